"""Two connected sockets joined: every byte of one is written to the other, each direction ended by itself.

Bytes are moved by readiness callbacks on the loop, without tasks or streams between: what cannot be written at once is
kept, and nothing more is read until it is gone. So each direction holds at most one buffer's worth.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Final

from cardcage.egress.bandwidth import Bandwidth

CHUNK_BYTES: Final = 256 * 1024
"""Read at once: what a socket's buffer holds on a busy loopback, where larger reads bring nothing more."""

OnBytes = Callable[[int], None]


class IdleTimeout(Exception):
    """Not a byte went either way for too long."""


async def splice(
    inside: socket.socket,
    outside: socket.socket,
    *,
    up: tuple[OnBytes, Bandwidth | None],
    down: tuple[OnBytes, Bandwidth | None],
    idle_timeout_s: float,
    buffer: memoryview,
) -> None:
    """Move bytes until both directions have ended. Raises `OSError` where one side broke off, or `IdleTimeout`.

    The sockets stay open, and stay the caller's. `buffer` may be shared by all that run on one loop: a callback reads
    into it and leaves nothing there.
    """
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    pumps = (_Pump(loop, inside, outside, buffer, *up), _Pump(loop, outside, inside, buffer, *down))

    def on_end(error: OSError | None) -> None:
        if ended.done():
            return
        if error is not None:
            ended.set_exception(error)
        elif all(pump.ended for pump in pumps):
            ended.set_result(None)

    def look() -> None:
        quiet_s = loop.time() - max(pump.moved_at_s for pump in pumps)
        if quiet_s >= idle_timeout_s:
            if not ended.done():
                ended.set_exception(IdleTimeout(f"no byte for {idle_timeout_s:g} s"))
            return
        nonlocal watch
        watch = loop.call_later(idle_timeout_s - quiet_s, look)

    watch = loop.call_later(idle_timeout_s, look)
    try:
        for pump in pumps:
            pump.start(on_end)
        await ended
    finally:
        watch.cancel()
        for pump in pumps:
            pump.stop()


def break_off(sock: socket.socket) -> None:
    """Let the other side see the connection break when it is closed, and not end as if all had been said."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    except OSError:
        pass  # it has ended already


def reset(sock: socket.socket) -> None:
    """Close a connection in that way."""
    break_off(sock)
    sock.close()


class _Pump:
    """One direction."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        source: socket.socket,
        sink: socket.socket,
        buffer: memoryview,
        on_bytes: OnBytes,
        bandwidth: Bandwidth | None,
    ) -> None:
        self._loop = loop
        self._source = source
        self._sink = sink
        self._on_bytes = on_bytes
        self._bandwidth = bandwidth
        self._left = memoryview(b"")
        self._resume: asyncio.TimerHandle | None = None
        self._on_end: Callable[[OSError | None], None] = lambda error: None
        # With a cap no single read takes more than the burst: the wait comes after it.
        self._buffer = buffer if bandwidth is None else buffer[: bandwidth.burst_bytes]
        self._owed = 0
        self.moved_at_s = loop.time()
        self.ended = False

    def start(self, on_end: Callable[[OSError | None], None]) -> None:
        self._on_end = on_end
        self._loop.add_reader(self._source, self._readable)

    def stop(self) -> None:
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._source)
        self._loop.remove_writer(self._sink)

    def _readable(self) -> None:
        try:
            count = self._source.recv_into(self._buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if not count:
            self._end(None)
            return
        self._owed = count
        sent = self._send(self._buffer[:count])
        if sent is None:
            return
        if sent < count:
            self._left = memoryview(bytes(self._buffer[sent:count]))
            self._loop.remove_reader(self._source)
            self._loop.add_writer(self._sink, self._writable)
            return
        wait_s = self._wait_s()
        if wait_s:
            self._loop.remove_reader(self._source)
            self._read_after(wait_s)

    def _writable(self) -> None:
        sent = self._send(self._left)
        if sent is None:
            return
        self._left = self._left[sent:]
        if not self._left:
            self._loop.remove_writer(self._sink)
            self._read_after(self._wait_s())

    def _wait_s(self) -> float:
        return self._bandwidth.spend(self._owed) if self._bandwidth is not None else 0.0

    def _read_after(self, wait_s: float) -> None:
        self._resume = self._loop.call_later(wait_s, self._loop.add_reader, self._source, self._readable)

    def _send(self, data: memoryview) -> int | None:
        """How much of it went; None where the direction has ended."""
        try:
            sent = self._sink.send(data)
        except (BlockingIOError, InterruptedError):
            return 0
        except OSError as error:
            self._end(error)
            return None
        self.moved_at_s = self._loop.time()
        self._on_bytes(sent)
        return sent

    def _end(self, error: OSError | None) -> None:
        self.ended = True
        self.stop()
        if error is None:
            try:
                self._sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the other side has gone meanwhile, which its own direction tells
        self._on_end(error)
