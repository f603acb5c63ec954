"""What a plugin prints: its standard output and error, read line by line into the log book.

They are pipes of their own, so a print can never be taken for a message of the protocol.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

_LINE_BYTES_MAX: Final = 32 * 1024  # a line that never ends is cut here, so that it cannot fill the memory


class LineReader(asyncio.Protocol):
    """Splits a pipe into lines and hands each to `sink`; ends by itself when the pipe does."""

    def __init__(self, sink: Callable[[str], None]) -> None:
        self._sink = sink
        self._rest = b""
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > _LINE_BYTES_MAX:
            lines.append(rest[:_LINE_BYTES_MAX])
            rest = rest[_LINE_BYTES_MAX:]
        self._rest = rest
        for line in lines:
            self._sink(line.decode("utf-8", "backslashreplace"))

    def connection_lost(self, exc: Exception | None) -> None:
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
