"""What the relays of one host share: where names are looked up, and a buffer."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from cardcage.egress.events import Tell
from cardcage.egress.relay import ListenerPlace, Relay
from cardcage.egress.resolver import Resolver, SystemResolver
from cardcage.egress.rules import EgressRules
from cardcage.egress.splice import CHUNK_BYTES


class Gateway:
    """Opens the relay of each process. Belongs to one event loop."""

    def __init__(self, *, resolver: Resolver | None = None) -> None:
        self._system = SystemResolver() if resolver is None else None
        self._resolver: Resolver = resolver or self._system or SystemResolver()
        self._buffer: memoryview | None = None

    def open(self, rules: EgressRules, listeners: Iterable[tuple[ListenerPlace, socket.socket]], tell: Tell) -> Relay:
        """The relay of one process, which owns the listeners from now on."""
        if self._buffer is None:
            self._buffer = memoryview(bytearray(CHUNK_BYTES))
        return Relay(rules, listeners, resolver=self._resolver, tell=tell, buffer=self._buffer)

    def close(self) -> None:
        """Let go of the threads that look names up."""
        if self._system is not None:
            self._system.close()
