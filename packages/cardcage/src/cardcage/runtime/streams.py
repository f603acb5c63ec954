"""What a plugin prints: its standard output and error, read line by line into the log book.

They are pipes of their own, so a print can never be taken for a message of the protocol. A plugin that prints faster
than lines can be taken waits for its pipe: a pipe full of line feeds would otherwise hold up the whole event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

_LINE_BYTES_MAX: Final = 32 * 1024  # a line that never ends is cut here, so that it cannot fill the memory

_LINES_AT_ONCE_MAX: Final = 500  # half a millisecond's work
_PAUSE_S: Final = 0.01


class LineReader(asyncio.Protocol):
    """Splits a pipe into lines and hands each to `sink`; ends by itself when the pipe does."""

    def __init__(self, sink: Callable[[str], None]) -> None:
        self._sink = sink
        self._rest = b""
        self._lines: list[bytes] = []
        self._transport: asyncio.ReadTransport | None = None
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.ReadTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > _LINE_BYTES_MAX:
            lines.append(rest[:_LINE_BYTES_MAX])
            rest = rest[_LINE_BYTES_MAX:]
        self._rest = rest
        self._lines += lines
        self._hand_on()

    def _hand_on(self) -> None:
        """Hand on some lines; where there are more, read nothing before those have been."""
        now, self._lines = self._lines[:_LINES_AT_ONCE_MAX], self._lines[_LINES_AT_ONCE_MAX:]
        for line in now:
            self._sink(line.decode("utf-8", "backslashreplace"))
        if self._transport is None or self._transport.is_closing():
            return
        if self._lines:
            self._transport.pause_reading()
            self._loop.call_later(_PAUSE_S, self._hand_on)
        else:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        while self._lines:
            self._hand_on()
        if self._rest:
            self._sink(self._rest.decode("utf-8", "backslashreplace"))
            self._rest = b""
        if not self.ended.done():
            self.ended.set_result(None)


async def read_lines(descriptor: int, sink: Callable[[str], None]) -> tuple[asyncio.ReadTransport, LineReader]:
    """Begin to read `descriptor`, which is owned from here on, and hand every line to `sink`."""
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    try:
        return await loop.connect_read_pipe(lambda: LineReader(sink), pipe)
    except BaseException:
        pipe.close()
        raise
