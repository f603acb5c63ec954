"""The bytes of one channel: reads into a session, writes from it, and notices a peer that stops doing its part.

Writing. A frame goes out at once where nothing else is under way, which saves a turn of the loop; otherwise frames are
gathered until the end of the turn and go out as one write. What the peer leaves unread is bounded: above a soft limit
callers wait, and a peer that stays there too long, or takes it above a hard limit, is disconnected.

Waiting in place. A turn of the event loop costs more than a short call to a plugin. So the answer to a lone call is
looked for on the socket itself for some microseconds, with the core offered to the plugin, before the loop is asked.

Reading. All channels of a loop read into one buffer: the session copies what it keeps before the next read can happen,
and looks at no byte beyond those just read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable
from weakref import WeakKeyDictionary

from cardcage.channel.handler import CloseReason
from cardcage.channel.limits import COALESCE_BYTES, IN_PLACE_S, READ_BUFFER_BYTES, ChannelLimits
from cardcage_sdk.wire import Message, RemoteProtocolError, Session

yield_core: Callable[[], None] | None = getattr(os, "sched_yield", None)
"""Lets the plugin run where it shares this core. None on systems that cannot."""

_read_buffers: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


class Driver(asyncio.BufferedProtocol):
    """Moves bytes between a socket and a session. Tells its owner of messages and, once, of the end."""

    def __init__(
        self,
        session: Session,
        limits: ChannelLimits,
        *,
        on_messages: Callable[[list[Message]], None],
        on_end: Callable[[CloseReason], None],
    ) -> None:
        self.paused = False
        self.ended = False
        self._session = session
        self._limits = limits
        self._on_messages = on_messages
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._buffer = _read_buffer(self._loop)
        self._transport: asyncio.Transport
        self._sock: socket.socket
        self._gathered: list[bytes] = []
        self._gathered_bytes = 0
        self._writable: asyncio.Future[None] | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._late_frame: asyncio.TimerHandle | None = None

    @classmethod
    async def open(cls, sock: socket.socket, make: Callable[[], Driver]) -> Driver:
        """Drive `sock`, which now belongs to the driver, also where this fails."""
        loop = asyncio.get_running_loop()
        try:
            sock.setblocking(False)
            if sock.family == socket.AF_UNIX:
                _, driver = await loop.create_unix_connection(make, sock=sock)
            else:
                _, driver = await loop.create_connection(make, sock=sock)
        except BaseException:
            sock.close()
            raise
        driver._sock = sock
        return driver

    # Writing

    def write(self, frame: bytes) -> None:
        """Write at the end of this turn of the loop, together with what else is written in it."""
        if self.ended:
            return
        if not self._gathered:
            self._loop.call_soon(self._flush)
        self._gathered.append(frame)
        self._gathered_bytes += len(frame)
        if self._gathered_bytes > COALESCE_BYTES:
            self._flush()

    def write_now(self, frame: bytes) -> None:
        """Write at once, behind what was gathered before."""
        if self._gathered or self.ended:
            self.write(frame)
            return
        if not self._transport.get_write_buffer_size():
            # Past the transport, which has nothing of its own to send: that saves a microsecond, and some event loops
            # write only at the end of their turn.
            try:
                sent = self._sock.send(frame)
            except OSError:
                sent = 0  # Full, or broken: the transport finds out which.
            if sent == len(frame):
                return
            frame = frame[sent:]
        self._transport.write(frame)

    def read_in_place(self) -> list[Message]:
        """Give the plugin a moment to answer before the loop is asked to wait; what it said, which may be nothing.

        Reads the socket as the transport would. An end or an error of the socket is left for the transport to find.
        """
        if yield_core is None:
            return []
        until_s = 0.0
        while True:
            yield_core()
            try:
                count = self._sock.recv_into(self._buffer)
            except BlockingIOError:
                now_s = self._loop.time()
                until_s = until_s or now_s + IN_PLACE_S
                if now_s < until_s:
                    continue
                return []
            except OSError:
                return []
            return self._read(count) if count else []

    async def writable(self) -> None:
        """Wait while too much is unsent. Returns too once the channel has ended: the next step finds out."""
        while self.paused and not self.ended:
            if self._writable is None:
                self._writable = self._loop.create_future()
            await asyncio.shield(self._writable)

    def _flush(self) -> None:
        if not self._gathered:
            return
        data = b"".join(self._gathered) if len(self._gathered) > 1 else self._gathered[0]
        self._gathered.clear()
        self._gathered_bytes = 0
        if self.ended:
            return
        self._transport.write(data)
        if self.paused and self._transport.get_write_buffer_size() > self._limits.write_hard_bytes:
            self.disconnect(
                "protocol_error",
                f"does not read what it is sent: more than {self._limits.write_hard_bytes} bytes are unsent",
            )

    # Ending

    def disconnect(self, code: str, what: str, farewell: bytes = b"") -> None:
        """Drop the connection at once, after a last word where there is room for one."""
        if not self.ended:
            if farewell and not self.paused:
                self._transport.write(farewell)
            self._end(CloseReason(code=code, message=what))
            self._transport.abort()

    def finish(self, code: str, what: str) -> None:
        """Close in good order: what was written before is still sent."""
        if not self.ended:
            self._flush()
            self._end(CloseReason(code=code, message=what))
            # Closing would wait for a peer that does not read; both have said goodbye, so nothing of worth is lost.
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()

    def _end(self, reason: CloseReason) -> None:
        self.ended = True
        with contextlib.suppress(RemoteProtocolError):
            self._session.receive_eof()  # Whatever the reason, nothing may be sent from now on.
        self._wake_writers()
        for timer in (self._stall, self._late_frame):
            if timer is not None:
                timer.cancel()
        self._on_end(reason)

    # asyncio.BufferedProtocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=self._limits.write_soft_bytes)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if not self.ended and (messages := self._read(nbytes)):
            self._on_messages(messages)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended:
            try:
                self._session.receive_eof()
            except RemoteProtocolError as fault:
                why = f" ({exc})" if exc else ""
                self._end(CloseReason(code="connection_lost", message=fault.message.removeprefix("the plugin ") + why))
            else:
                self._end(CloseReason(code="goodbye", message="hung up after its goodbye"))

    def pause_writing(self) -> None:
        self.paused = True
        self._stall = self._loop.call_later(self._limits.stall_s, self._stalled)

    def resume_writing(self) -> None:
        self.paused = False
        if self._stall is not None:
            self._stall.cancel()
        self._wake_writers()

    # Watching the peer

    def _read(self, count: int) -> list[Message]:
        """Feed the session. At a fault, return what came before it and disconnect once that has been taken."""
        try:
            messages = self._session.receive_data(self._buffer[:count])
        except RemoteProtocolError as fault:
            what = fault.message.removeprefix("the plugin ")
            self._loop.call_soon(self.disconnect, "protocol_error", what, fault.farewell)
            return fault.received
        if self._late_frame is not None or self._session.mid_frame:
            self._watch_frame(bool(messages))
        return messages

    def _watch_frame(self, progress: bool) -> None:
        """Time the frame that is under way, from its first byte."""
        if self._late_frame is not None and (progress or not self._session.mid_frame):
            self._late_frame.cancel()
            self._late_frame = None
        if self._late_frame is None and self._session.mid_frame:
            self._late_frame = self._loop.call_later(self._limits.frame_s, self._frame_is_late)

    def _frame_is_late(self) -> None:
        self.disconnect("deadline_exceeded", f"began a frame and did not finish it within {self._limits.frame_s:g} s")

    def _stalled(self) -> None:
        size = self._transport.get_write_buffer_size()
        self.disconnect(
            "deadline_exceeded",
            f"has not read what it was sent for {self._limits.stall_s:g} s: {size} bytes are unsent",
        )

    def _wake_writers(self) -> None:
        if self._writable is not None:
            self._writable.set_result(None)
            self._writable = None


def _read_buffer(loop: asyncio.AbstractEventLoop) -> memoryview:
    buffer = _read_buffers.get(loop)
    if buffer is None:
        buffer = _read_buffers[loop] = memoryview(bytearray(READ_BUFFER_BYTES))
    return buffer
