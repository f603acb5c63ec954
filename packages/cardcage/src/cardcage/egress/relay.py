"""The relay of one process: takes what the plugin connects to, and passes it on where its rules allow.

It owns the listeners, every connection and every task that comes of them. Closing it closes all; a plugin without its
relay reaches nothing.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterable, Sequence
from typing import Final, Protocol

import h11

from cardcage.egress.bandwidth import Bandwidth
from cardcage.egress.dial import DialFailed, DialRefused
from cardcage.egress.events import EgressCount, Tell
from cardcage.egress.injection import Injection
from cardcage.egress.ledger import Ledger
from cardcage.egress.outlet import Outlet
from cardcage.egress.proxy import Proxy
from cardcage.egress.resolver import Resolver
from cardcage.egress.rules import EgressRules, Target
from cardcage.egress.splice import IdleTimeout, reset

CONNECTIONS_PER_S: Final = 500
"""Taken from one instance. Each costs the host a third of a millisecond, and more with TLS; what comes faster waits in
the queues of the listeners, where it costs the plugin alone."""

_REST_S: Final = 0.5
"""How long a listener rests where the host itself is out of descriptors or memory."""

_EXHAUSTED: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_ACCEPTS_AT_ONCE: Final = 16


class ListenerPlace(Protocol):
    """What the relay has to know of a listener; `sandbox.network.Listener` is one."""

    @property
    def endpoint(self) -> str:
        """`host:port`, or nothing for the proxy."""
        ...

    @property
    def upgraded(self) -> bool: ...


class Relay:
    """The connections of one process."""

    def __init__(
        self,
        rules: EgressRules,
        listeners: Iterable[tuple[ListenerPlace, socket.socket]],
        *,
        resolver: Resolver,
        tell: Tell,
        buffer: memoryview,
        injections: Sequence[Injection] = (),
    ) -> None:
        """Takes the listeners over, and begins to accept. Needs a running loop."""
        self._loop = asyncio.get_running_loop()
        self._rules = rules
        self._ledger = Ledger(rules, tell, self._loop.time)
        self._outlet = Outlet(rules, resolver, self._ledger, buffer)
        self._injections = {injection.credential.endpoint: injection for injection in injections}
        self._proxy = Proxy(self._outlet, self._pass_on)
        self._listeners = list(listeners)
        self._pace = Bandwidth(CONNECTIONS_PER_S, self._loop.time)
        self._tasks: set[asyncio.Task[None]] = set()
        self._resting: set[asyncio.TimerHandle] = set()
        for place, sock in self._listeners:
            sock.setblocking(False)
            self._loop.add_reader(sock, self._accept, place, sock)

    def counts(self) -> Sequence[EgressCount]:
        """What went through, for each granted endpoint."""
        return tuple(self._ledger.counts())

    @property
    def ledger(self) -> Ledger:
        """The books of this process, for refusals that come to pass elsewhere."""
        return self._ledger

    async def aclose(self) -> None:
        """Close every listener and every connection. Harmless twice."""
        for handle in self._resting:
            handle.cancel()
        listeners, self._listeners = self._listeners, []
        for _, sock in listeners:
            self._loop.remove_reader(sock)
            sock.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self, place: ListenerPlace, listener: socket.socket) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                inside, _ = listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._rest(place, listener)
                    return
                raise
            self._take(place, inside)
            wait_s = self._pace.spend(1)
            if wait_s:
                self._rest(place, listener, wait_s)
                return

    def _rest(self, place: ListenerPlace, listener: socket.socket, wait_s: float = _REST_S) -> None:
        """Leave the queue alone for a moment: a loop that is told of it and may not take from it would spin."""
        self._loop.remove_reader(listener)

        def resume() -> None:
            self._resting.discard(handle)
            self._loop.add_reader(listener, self._accept, place, listener)

        handle = self._loop.call_later(wait_s, resume)
        self._resting.add(handle)

    def _take(self, place: ListenerPlace, inside: socket.socket) -> None:
        inside.setblocking(False)
        target = self._rules.listed_target(place.endpoint) if place.endpoint else None
        if len(self._tasks) >= self._rules.connections_max:
            reason = f"{self._rules.connections_max} connections are open, and that is the limit"
            self._ledger.refused(target.grant if target else "", place.endpoint, reason)
            reset(inside)
            return
        task = self._loop.create_task(self._serve(place, target, inside), name=f"egress {self._rules.instance}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, inside: socket.socket, target: Target, greeting: bytes) -> None:
        injection = self._injections.get(target.endpoint)
        if injection is None:
            await self._outlet.tunnel(inside, target, greeting)
        else:
            await injection.serve(self._outlet, inside, target, greeting)

    async def _serve(self, place: ListenerPlace, target: Target | None, inside: socket.socket) -> None:
        """One connection from its beginning to its end; whatever goes wrong ends it, and it alone."""
        try:
            inside.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not place.endpoint:
                await self._proxy.serve(inside)
            elif target is None:
                self._ledger.refused("", place.endpoint, "no grant covers it")
                raise DialRefused
            else:
                await self._pass_on(inside, target, b"")
        except (DialRefused, DialFailed, OSError, IdleTimeout, h11.LocalProtocolError):
            reset(inside)  # noted where it happened, or both sides together ask for what HTTP cannot say
        finally:
            inside.close()
