"""The proxy for what cannot be listed: CONNECT, and plain HTTP by absolute address, to what some grant covers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import h11

from cardcage.egress.dial import DialFailed, DialRefused
from cardcage.egress.heads import HEAD_BYTES_MAX, BadHead, read_head
from cardcage.egress.http import READ_BYTES, BadMessage, Side, end_to_end, exchange, refuse, server_side
from cardcage.egress.outlet import Outlet, Way
from cardcage.egress.rules import Target

_FAREWELL_S: Final = 2.0
_FAREWELL_READS: Final = 16
ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"

Tunnel = Callable[[socket.socket, Target, bytes], Awaitable[None]]
"""Serves a connection to a target as if it had come in at its own listener, after sending a greeting."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client wants of a proxy: a tunnel, or one request sent on."""

    host: str
    port: int
    tunnel: bool
    path: bytes = b"/"


def parse_request(head: bytes) -> tuple[h11.Connection, h11.Request, Asked]:
    """The request that `head` is, and where it leads. Raises `BadHead`, whatever the bytes are."""
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    try:
        conn.receive_data(head)
        event = conn.next_event()
    except h11.RemoteProtocolError as error:
        raise BadHead(f"the request cannot be read: {error}") from None
    if not isinstance(event, h11.Request):
        raise BadHead("the request cannot be read")
    target = event.target.decode("latin-1")
    if event.method == b"CONNECT":
        return conn, event, _parse_authority(target)
    return conn, event, _parse_absolute(target)


def _parse_authority(text: str) -> Asked:
    host, colon, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not host or not _is_port(port):
        raise BadHead("CONNECT takes host:port")
    return Asked(host, int(port), tunnel=True)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 5


def _parse_absolute(text: str) -> Asked:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadHead("the address of the request cannot be read") from None
    if parts.scheme != "http" or not parts.hostname or parts.username is not None or parts.password is not None:
        raise BadHead("this proxy takes CONNECT host:port, and requests for http://host/path")
    path = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
    return Asked(parts.hostname, 80 if port is None else port, tunnel=False, path=path.encode("latin-1"))


class Proxy:
    """Serves the connections to one instance's proxy."""

    def __init__(self, outlet: Outlet, tunnel: Tunnel) -> None:
        self._outlet = outlet
        self._tunnel = tunnel

    async def serve(self, inside: socket.socket) -> None:
        """One connection: one tunnel, or one request. Raises what ends a connection badly."""
        try:
            head = await read_head(inside)
            if not head:
                return
            conn, request, asked = parse_request(head)
        except BadHead as error:
            self._outlet.ledger.refused("", "", str(error))
            await _say(inside, 400, str(error))
            return
        target = self._outlet.rules.target(asked.host, asked.port)
        if target is None:
            endpoint = f"{asked.host[:255]}:{asked.port}"
            sentence = f"network access to {endpoint} is not granted"
            self._outlet.ledger.refused("", endpoint, sentence)
            await _say(inside, 403, sentence)
        elif asked.tunnel:
            await self._open_tunnel(inside, target)
        else:
            await self._send_on(inside, conn, request, target, asked.path)

    async def _open_tunnel(self, inside: socket.socket, target: Target) -> None:
        try:
            await self._tunnel(inside, target, ESTABLISHED)
        except DialRefused as error:
            await _say(inside, 403, str(error))
        except DialFailed as error:
            await _say(inside, 502, str(error))

    async def _send_on(
        self, inside: socket.socket, conn: h11.Connection, request: h11.Request, target: Target, path: bytes
    ) -> None:
        idle_s = self._outlet.rules.idle_timeout_s
        # The streams own a copy: the socket itself stays its owner's to reset or to close.
        side = server_side(*await asyncio.open_connection(sock=inside.dup()), idle_s, self._outlet.pace)
        side.conn = conn
        async with side:
            try:
                async with self._outlet.way(target) as way, await _client_side(way, self._outlet) as outside:
                    await exchange(side, outside, _rewritten(request, target, path), last=True)
            except DialRefused as error:
                await refuse(side, 403, str(error))
                await _hear_out(side)
            except DialFailed as error:
                await refuse(side, 502, str(error))
                await _hear_out(side)
            except BadMessage as error:
                await refuse(side, error.status, str(error))


async def _client_side(way: Way, outlet: Outlet) -> Side:
    reader, writer = await asyncio.open_connection(sock=way.sock.dup())
    return Side(
        h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX),
        reader,
        writer,
        outlet.rules.idle_timeout_s,
        on_read=way.came_down,
        on_write=way.went_up,
        read_limit=outlet.down,
        write_limit=outlet.up,
        pace=outlet.pace,
    )


def _rewritten(request: h11.Request, target: Target, path: bytes) -> h11.Request:
    """The request as the server itself takes it. Its `Host` is the one that was checked, whatever the client wrote."""
    authority = target.endpoint.removesuffix(":80").encode()
    headers = [(name, value) for name, value in end_to_end(request.headers) if name != b"host"]
    return h11.Request(
        method=request.method,
        target=path,
        headers=[(b"host", authority), *headers, (b"connection", b"close")],
    )


async def _say(inside: socket.socket, status: int, sentence: str) -> None:
    """One sentence as an answer, and the end of what is said."""
    side = server_side(*await asyncio.open_connection(sock=inside.dup()), _FAREWELL_S)
    async with side:
        await refuse(side, status, sentence)
        await _hear_out(side)


async def _hear_out(side: Side) -> None:
    """Take what the client still sends, for a moment: unread bytes would end it with a reset, and cost the answer."""
    try:
        side.writer.write_eof()
        async with asyncio.timeout(_FAREWELL_S):
            for _ in range(_FAREWELL_READS):
                if not await side.reader.read(READ_BYTES):
                    return
    except (TimeoutError, OSError):
        pass  # it had its chance
