"""The way out of one instance: dials what its rules allow, and keeps its books while bytes go through."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from cardcage.egress.bandwidth import Bandwidth
from cardcage.egress.dial import DialFailed, DialRefused, dial
from cardcage.egress.events import EgressCount
from cardcage.egress.http import PIECES_PER_S, BadMessage
from cardcage.egress.ledger import Ledger
from cardcage.egress.resolver import Resolver
from cardcage.egress.rules import EgressRules, Target
from cardcage.egress.splice import IdleTimeout, break_off, splice

LOOK_UPS_AT_ONCE: Final = 2

HELD_BODIES_MAX: Final = 4
"""Bodies of requests that one instance may have the host hold at once, to be signed; further requests wait."""


@dataclass(slots=True)
class Way:
    """One connection that stands: its socket outside, and the bytes that went each way."""

    sock: socket.socket
    address: str
    count: EgressCount
    up: int = 0
    down: int = 0
    credential: str = ""
    """The names of the secrets that were added to what was sent."""

    def went_up(self, count: int) -> None:
        """Bytes of the plugin were sent."""
        self.up += count
        self.count.bytes_up += count

    def came_down(self, count: int) -> None:
        """Bytes for the plugin were received."""
        self.down += count
        self.count.bytes_down += count


class _InTurn:
    """A resolver for one instance: with a slow name server it must not take all the threads that look names up.

    A look-up that nobody waits for any more still has its thread, and so its turn, until it is over.
    """

    def __init__(self, resolver: Resolver) -> None:
        self._resolver = resolver
        self._turn = asyncio.Semaphore(LOOK_UPS_AT_ONCE)

    async def resolve(self, name: str, port: int) -> tuple[str, ...]:
        await self._turn.acquire()
        looking = asyncio.ensure_future(self._resolver.resolve(name, port))
        looking.add_done_callback(self._over)
        return await asyncio.shield(looking)

    def _over(self, looking: asyncio.Future[tuple[str, ...]]) -> None:
        self._turn.release()
        if not looking.cancelled():
            looking.exception()  # seen: nobody need be waiting for it


class Outlet:
    """Dials and splices for one instance."""

    def __init__(self, rules: EgressRules, resolver: Resolver, ledger: Ledger, buffer: memoryview) -> None:
        now_s = asyncio.get_running_loop().time
        self.rules = rules
        self.ledger = ledger
        self.up = Bandwidth(rules.bytes_per_s, now_s) if rules.bytes_per_s else None
        self.down = Bandwidth(rules.bytes_per_s, now_s) if rules.bytes_per_s else None
        self.held_bodies = asyncio.Semaphore(HELD_BODIES_MAX)
        self.pace = Bandwidth(PIECES_PER_S, now_s)
        self._resolver = _InTurn(resolver)
        self._buffer = buffer

    @asynccontextmanager
    async def way(self, target: Target) -> AsyncGenerator[Way]:
        """A connection to `target`, noted from its beginning to its end and closed with the block.

        Raises `DialRefused` or `DialFailed`, which have been noted; an `OSError` or `IdleTimeout` out of the block is
        noted and goes on.
        """
        try:
            dialled = await dial(self.rules, self._resolver, target)
        except DialRefused as error:
            self.ledger.refused(target.grant, target.endpoint, str(error))
            raise
        except DialFailed as error:
            self.ledger.failed(target.grant, target.endpoint, str(error))
            raise
        way = Way(dialled.sock, dialled.address, self.ledger.of(target.grant))
        self.ledger.connected(target.grant, target.endpoint, way.address)
        try:
            yield way
        except (OSError, IdleTimeout, BadMessage) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self.ledger.failed(target.grant, target.endpoint, f"broken off: {reason}")
            break_off(way.sock)
            raise
        except BaseException:
            break_off(way.sock)  # the plugin has ended: what it was sending is not whole
            raise
        finally:
            way.sock.close()
            self.ledger.closed(target.grant, target.endpoint, way.address, way.up, way.down, credential=way.credential)

    async def tunnel(self, inside: socket.socket, target: Target, greeting: bytes = b"") -> None:
        """Connect, and pass on every byte as it is until both sides have said all. Raises what `way` raises.

        `greeting` is said to the inside once the connection stands.
        """
        async with self.way(target) as way:
            if greeting:
                await asyncio.get_running_loop().sock_sendall(inside, greeting)
            await splice(
                inside,
                way.sock,
                up=(way.went_up, self.up),
                down=(way.came_down, self.down),
                idle_timeout_s=self.rules.idle_timeout_s,
                buffer=self._buffer,
            )
