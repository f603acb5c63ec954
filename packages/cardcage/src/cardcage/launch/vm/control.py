"""The host's end of a machine: orders to the guest's init and what it answers, and what the machine prints."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

import msgspec

MESSAGE_BYTES_MAX: Final = 1024 * 1024
"""The longest message is a report of walls, of some kilobytes; a guest that sends more is not ours any more."""

CONSOLE_BYTES: Final = 4096
"""The last of what a machine printed: where it stopped, if it does not come up."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class GuestError(Exception):
    """The guest's init failed or said what makes no sense; the text says what."""


class Control:
    """Messages to and from a guest's init, over the port of that name.

    `up` is done with the walls' rows once they stand, or has the guest's error. `ended` holds the last message.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._received = b""
        self.up: asyncio.Future[list[Any]] = self._loop.create_future()
        self.ended: asyncio.Future[list[Any]] = self._loop.create_future()
        sock.setblocking(False)
        self._loop.add_reader(sock, self._on_bytes)

    async def order(self, *messages: object) -> None:
        """Send orders, in order."""
        for message in messages:
            packed = _encode(message)
            await self._loop.sock_sendall(self._sock, len(packed).to_bytes(4, "big") + packed)

    def _on_bytes(self) -> None:
        try:
            data = self._sock.recv(64 * 1024)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._received += data
        try:
            while (message := self._next()) is not None:
                self._take(message)
        except (GuestError, msgspec.DecodeError, ValueError) as error:
            self._fail(GuestError(f"the guest's init said what makes no sense: {error}"))
            self.close()

    def _next(self) -> list[Any] | None:
        if len(self._received) < 4:
            return None
        length = int.from_bytes(self._received[:4], "big")
        if length > MESSAGE_BYTES_MAX:
            raise GuestError(f"a message of {length} bytes")
        if len(self._received) < 4 + length:
            return None
        packed, self._received = self._received[4 : 4 + length], self._received[4 + length :]
        return _decode(packed)

    def _take(self, message: list[Any]) -> None:
        match message:
            case ["ready" | "failed", *_]:
                if not self.up.done():
                    self.up.set_result(message)
            case ["ended", int() | None, bool(), bool()]:
                if not self.ended.done():
                    self.ended.set_result(message)
            case ["broken", str() as why]:
                self._fail(GuestError(f"the guest's init failed: {why[:500]}"))
            case _:
                raise GuestError(f"{str(message)[:80]!r}")

    def _fail(self, error: GuestError) -> None:
        if not self.up.done():
            self.up.set_exception(error)
            self.up.exception()  # seen: nobody need be waiting for it

    def read_rest(self) -> None:
        """Take in what came before the machine's end."""
        while self._sock.fileno() >= 0:
            before = len(self._received)
            self._on_bytes()
            if len(self._received) == before:
                break
        self.close()

    def close(self) -> None:
        """Hear nothing more."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()
        self._fail(GuestError("the machine ended"))


class Console:
    """The last of what a machine prints on its serial line, and QEMU beside it."""

    def __init__(self, descriptors: Sequence[int | None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._open = [descriptor for descriptor in descriptors if descriptor is not None]
        self._tail = b""
        for descriptor in self._open:
            os.set_blocking(descriptor, False)
            self._loop.add_reader(descriptor, self._on_bytes, descriptor)

    def _on_bytes(self, descriptor: int) -> None:
        try:
            data = os.read(descriptor, 64 * 1024)
        except BlockingIOError:
            return
        if data:
            self._tail = (self._tail + data)[-CONSOLE_BYTES:]
        else:
            self._forget(descriptor)

    def _forget(self, descriptor: int) -> None:
        self._open.remove(descriptor)
        self._loop.remove_reader(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        """Read what is left, and hear nothing more."""
        for descriptor in tuple(self._open):
            self._on_bytes(descriptor)
            if descriptor in self._open:
                self._forget(descriptor)

    def last_words(self) -> str:
        """The last lines as a part of a sentence; nothing where nothing was printed."""
        text = "".join(
            c if c.isprintable() else " " for c in self._tail.decode("utf-8", "replace").replace("\n", " | ")
        )
        text = " ".join(text.split()).strip("| ")
        return f"; it last printed: {text[-600:]}" if text else ""
