"""The descriptors that tie a process to the host: a socket for the wire, and pipes for what it prints."""

from __future__ import annotations

import os
import socket
from types import TracebackType
from typing import Self

from cardcage.launch.runner import Process
from cardcage.sandbox.control_groups import ControlGroup
from cardcage.sandbox.report import EnforcementReport


class Pipes:
    """Both ends of one process's descriptors while it is being started.

    Leaving the block closes the process's ends, which it holds itself by then, and the host's ends as well unless
    `process` has handed them on: a failed start leaks nothing.
    """

    def __init__(self) -> None:
        self.our_sock, self.their_sock = socket.socketpair()
        self.our_stdout, self.their_stdout = os.pipe()
        self.our_stderr, self.their_stderr = os.pipe()
        self._handed_on = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.their_sock.close()
        os.close(self.their_stdout)
        os.close(self.their_stderr)
        if not self._handed_on:
            self.our_sock.close()
            os.close(self.our_stdout)
            os.close(self.our_stderr)

    def process(
        self,
        *,
        pid: int,
        report: EnforcementReport,
        handle: object,
        group: ControlGroup | None = None,
        sock: socket.socket | None = None,
    ) -> Process:
        """The started process, which owns the host's ends from now on; `sock` is theirs where a link has ours."""
        self._handed_on = True
        return Process(
            pid=pid,
            sock=self.our_sock if sock is None else sock,
            stdout=self.our_stdout,
            stderr=self.our_stderr,
            report=report,
            group=group,
            handle=handle,
        )
