"""Reading the head of an HTTP request from a bare socket, and not a byte more: what follows may be another's."""

from __future__ import annotations

import asyncio
import socket
from typing import Final

HEAD_BYTES_MAX: Final = 32 * 1024
"""Twice what common servers take. It bounds the head of every message, either way."""

HEAD_TIMEOUT_S: Final = 15.0
_END: Final = b"\r\n\r\n"
_PIECE_BYTES: Final = 4096


class BadHead(Exception):
    """What came is no head of an HTTP request, or too long for one."""


async def read_head(sock: socket.socket) -> bytes:
    """The head with its empty line; nothing where the other side has ended. Raises `BadHead` or `OSError`."""
    head = b""
    try:
        async with asyncio.timeout(HEAD_TIMEOUT_S):
            while True:
                piece = await _peek(sock)
                if not piece:
                    return b""
                end = (head + piece).find(_END, max(0, len(head) - len(_END) + 1))
                wanted = len(piece) if end < 0 else end + len(_END) - len(head)
                head += sock.recv(wanted)
                if end >= 0:
                    return head
                if len(head) > HEAD_BYTES_MAX:
                    raise BadHead(f"the head of the request is longer than {HEAD_BYTES_MAX} bytes")
    except TimeoutError:
        raise BadHead(f"the head of the request was not complete after {HEAD_TIMEOUT_S:g} s") from None


async def first_byte(sock: socket.socket) -> bytes:
    """The first byte that comes, left where it is; nothing where the other side has ended."""
    return (await _peek(sock))[:1]


async def _peek(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        try:
            return sock.recv(_PIECE_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            pass
        ready: asyncio.Future[None] = loop.create_future()

        def set_ready(ready: asyncio.Future[None] = ready) -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(sock, set_ready)
        try:
            await ready
        finally:
            loop.remove_reader(sock)
