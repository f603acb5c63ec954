"""What Cardcage is measured against: the least that two Pythons can do, and starts without any of it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager

MESSAGE = b"x" * 100

_ECHO = """
import socket, sys
sock = socket.socket(fileno=int(sys.argv[1]))
while data := sock.recv(4096):
    sock.sendall(data)
"""


class RawEcho:
    """Another Python at the end of a socketpair, which sends back what it gets: the floor under every call."""

    def __init__(self, sock: socket.socket, pid: int) -> None:
        self._sock = sock
        self.pid = pid

    def round_s(self, calls: int) -> list[float]:
        """The seconds that each of so many ping-pongs took."""
        sock, clock, taken = self._sock, time.perf_counter, list[float]()
        for _ in range(calls):
            began_s = clock()
            sock.sendall(MESSAGE)
            missing = len(MESSAGE)
            while missing:
                missing -= len(sock.recv(4096))
            taken.append(clock() - began_s)
        return taken


@contextmanager
def raw_echo() -> Generator[RawEcho]:
    """Start the other Python; ended on the way out."""
    ours, theirs = socket.socketpair()
    with ours:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _ECHO, str(theirs.fileno())], pass_fds=[theirs.fileno()]
        )
        theirs.close()
        try:
            yield RawEcho(ours, process.pid)
        finally:
            ours.shutdown(socket.SHUT_RDWR)
            process.wait(timeout=10)


def spawn_s() -> float | None:
    """The seconds that a Python takes which does nothing."""
    return _run_s([sys.executable, "-I", "-c", "pass"])


def bubblewrap_s() -> float | None:
    """The same inside bubblewrap with all namespaces; None where it is not installed or does not run here."""
    program = shutil.which("bwrap")
    if program is None:
        return None
    walls = ["--unshare-all", "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev", "--die-with-parent"]
    return _run_s([program, *walls, sys.executable, "-I", "-c", "pass"])


def _run_s(command: list[str]) -> float | None:
    began_s = time.perf_counter()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, env={"PATH": os.defpath}, check=False)
    return time.perf_counter() - began_s if done.returncode == 0 else None
