"""A process that came of the fork server, as the host keeps it: its sockets, what is known of it, how it is ended."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from cardcage.foundation.errors import CardcageError
from cardcage.launch.groups import layer_of
from cardcage.launch.handover import Switchboard
from cardcage.launch.refusals import NOT_GRANTED, Refusal, RefusalTap
from cardcage.launch.runner import Exit, LaunchSpec, OpenListener
from cardcage.sandbox.control_groups import ControlGroup
from cardcage.sandbox.report import EnforcementReport, Layer

_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True, eq=False)
class ForkedInstance:
    """One started process as the host keeps it, from the request to the end."""

    number: int
    spec: LaunchSpec
    report: socket.socket
    forked: asyncio.Future[None]
    up: asyncio.Future[EnforcementReport]
    exited: asyncio.Future[Exit]
    group: ControlGroup | None = None
    group_layer: Layer = field(default_factory=layer_of)
    pidfd: int = -1
    """The init's: whoever ends it ends all of the instance."""
    plugin_status: int | None = None
    stopped_by_host: bool = False
    listeners: list[OpenListener] = field(default_factory=list[OpenListener])
    switchboard: Switchboard | None = None
    """Where its connections lead, when it has no network of its own to listen in."""

    refusals: RefusalTap = field(default_factory=RefusalTap)
    recorder: int = -1

    def open_switchboard(self) -> None:
        """Stand ready to make the connections that its supervisor will ask for."""
        self.switchboard = Switchboard(self.spec.plan.network.all_listeners)
        self.listeners = self.switchboard.listeners

    def connect(self, number: int, address: str, port: int) -> None:
        """Answer the supervisor: a connected socket, or the error that the plugin gets."""
        made = self.switchboard.connect(address, port) if self.switchboard else errno.ENETUNREACH
        if made == errno.ENETUNREACH:
            self.refusals.tell(Refusal(NOT_GRANTED, address, port))
        try:
            if isinstance(made, int):
                self.report.send(_encode((number, made)))
                return
            with made:
                socket.send_fds(self.report, [_encode((number, 0))], [made.fileno()])
        except OSError:
            pass  # it is gone, or too far behind; the supervisor has a deadline of its own

    def take_listeners(self, places: Sequence[int], descriptors: Sequence[int]) -> None:
        """Keep the sockets that came with the report; their places say which of the plan's listeners each is."""
        wanted = self.spec.plan.network.all_listeners
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        self.listeners = [(wanted[place], sock) for place, sock in zip(places, sockets, strict=True)]

    def close_listeners(self) -> None:
        """Close those that were not handed on."""
        while self.listeners:
            self.listeners.pop()[1].close()
        if self.recorder >= 0:
            os.close(self.recorder)
            self.recorder = -1

    def kill(self) -> None:
        """End it, now or, where the fork has not been reported yet, as soon as it is."""
        if not self.exited.done():
            self.stopped_by_host = True
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended, and its end is on its way to us


def resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def fail(future: asyncio.Future[Any], error: CardcageError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: nobody need be waiting for it
