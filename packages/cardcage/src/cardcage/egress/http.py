"""HTTP/1.1 passed on message by message, where the host has to see or to change what is said.

Both sides go through h11, so that what is sent on was understood, and framed anew: a request that two servers could
read in two ways never gets out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import h11

from cardcage.egress.bandwidth import Bandwidth
from cardcage.egress.heads import HEAD_BYTES_MAX
from cardcage.egress.splice import IdleTimeout

READ_BYTES: Final = 64 * 1024

PIECES_PER_S: Final = 10_000
"""Of messages, on all connections of one instance, either way. To read one costs the host some twenty microseconds,
and a chunk may be of a single byte: without a pace a few connections would keep the loop from everybody else."""
_PIECES_AT_ONCE: Final = 64
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"upgrade",
    }
)
Headers = list[tuple[bytes, bytes]]


class BadMessage(Exception):
    """One side broke the protocol. `status` is what the plugin is told."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _nothing(count: int) -> None:
    pass


@dataclass(slots=True)
class Side:
    """One side of an exchange: its protocol state, its streams, and who counts and slows its bytes."""

    conn: h11.Connection
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    idle_timeout_s: float
    on_read: Callable[[int], None] = _nothing
    on_write: Callable[[int], None] = _nothing
    read_limit: Bandwidth | None = None
    write_limit: Bandwidth | None = None
    pace: Bandwidth | None = None
    _ahead: h11.Event | type[h11.PAUSED] | None = None

    async def next_event(self) -> h11.Event | type[h11.PAUSED]:
        """What comes next; waits for bytes. Raises `h11.RemoteProtocolError`, `IdleTimeout` or `OSError`."""
        while True:
            ahead, self._ahead = self._ahead, None
            event = ahead or self.conn.next_event()
            if isinstance(event, h11.Data):
                return await self._gathered(event)
            if event is not h11.NEED_DATA:
                await _pay(self.pace, 1)
                return event  # type: ignore[return-value]
            try:
                async with asyncio.timeout(self.idle_timeout_s):
                    data = await self.reader.read(READ_BYTES)
            except TimeoutError:
                raise IdleTimeout(f"no byte for {self.idle_timeout_s:g} s") from None
            self.on_read(len(data))
            await _pay(self.read_limit, len(data))
            self.conn.receive_data(data)

    async def _gathered(self, first: h11.Data) -> h11.Data:
        """`first` with what else of the body is there already: many small chunks become one."""
        pieces = [bytes(first.data)]
        while len(pieces) < _PIECES_AT_ONCE:
            try:
                event = self.conn.next_event()
            except h11.RemoteProtocolError:
                break  # it says so again when it is asked again
            if not isinstance(event, h11.Data):
                self._ahead = None if event is h11.NEED_DATA else event  # type: ignore[assignment]
                break
            pieces.append(bytes(event.data))
        else:
            await asyncio.sleep(0)  # all of it may have come at once, and others wait for their turn
        await _pay(self.pace, len(pieces))
        return h11.Data(data=b"".join(pieces))

    async def send(self, event: h11.Event) -> None:
        """Send one event, and wait until the other side has room for more."""
        data = self.conn.send(event)
        if data:
            self.writer.write(data)
            self.on_write(len(data))
            await self.writer.drain()
            await _pay(self.write_limit, len(data))

    async def __aenter__(self) -> Side:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Let go of the streams. Where something went wrong nobody waits for the other side to take the rest."""
        if error is not None:
            self.writer.transport.abort()
        await self.close()

    async def close(self) -> None:
        """Let go of the streams once the other side has taken what is left, or has taken nothing for too long."""
        self.writer.close()
        try:
            async with asyncio.timeout(self.idle_timeout_s):
                await self.writer.wait_closed()
        except (OSError, TimeoutError):
            pass  # broken off already, or now
        finally:
            # Otherwise a side that never reads would keep the transport, and what it holds, beyond the plugin's end.
            self.writer.transport.abort()


def server_side(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, idle_timeout_s: float, pace: Bandwidth | None = None
) -> Side:
    """The side of the plugin, to which the host is a server."""
    conn = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
    return Side(conn, reader, writer, idle_timeout_s, pace=pace)


async def exchange(inside: Side, outside: Side, request: h11.Request, *, last: bool, body: bytes | None = None) -> None:
    """Send `request`, whose body is still to come from inside where it is not given, and pass back what is answered.

    Request and response flow at the same time, so that a server may answer before all is sent. With `last` the plugin
    is told that the connection ends after it. Raises `BadMessage` before anything was answered, and otherwise what
    broke the connection.
    """
    await outside.send(request)
    sending = asyncio.ensure_future(_send_body(inside, outside) if body is None else _send_whole(outside, body))
    receiving = asyncio.ensure_future(_send_response(inside, outside, last=last))
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if sending.done() and not receiving.done():
            await sending
        await receiving
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _send_body(inside: Side, outside: Side) -> None:
    while True:
        try:
            event = await inside.next_event()
        except h11.RemoteProtocolError as error:
            raise BadMessage(400, f"the request cannot be read: {error}") from None
        if isinstance(event, h11.EndOfMessage):
            # Without the trailers: some servers take them for headers, and nobody has looked at them.
            await outside.send(h11.EndOfMessage())
            return
        if not isinstance(event, h11.Data):
            raise ConnectionAbortedError("the plugin went away in the middle of its request")
        await outside.send(h11.Data(data=event.data))


async def _send_whole(outside: Side, body: bytes) -> None:
    if body:
        await outside.send(h11.Data(data=body))
    await outside.send(h11.EndOfMessage())


async def _send_response(inside: Side, outside: Side, *, last: bool) -> None:
    while True:
        try:
            event = await outside.next_event()
        except h11.RemoteProtocolError as error:
            raise BadMessage(502, f"the answer cannot be read: {error}") from None
        match event:
            case h11.InformationalResponse(status_code=status):
                if status != 101:  # nobody was asked to switch
                    await inside.send(event)
            case h11.Response():
                await inside.send(_response(event, last=last))
            case h11.Data():
                await inside.send(h11.Data(data=event.data))
            case h11.EndOfMessage():
                # Clients of HTTP/1.0 know no trailers, whatever the server sends.
                trailers = list(event.headers) if inside.conn.their_http_version != b"1.0" else Headers()
                await inside.send(h11.EndOfMessage(headers=trailers))
                return
            case _:
                raise BadMessage(502, "the server ended without an answer")


def _response(answer: h11.Response, *, last: bool) -> h11.Response:
    headers = end_to_end(answer.headers)
    if last:
        headers.append((b"connection", b"close"))
    return h11.Response(status_code=answer.status_code, headers=headers, reason=answer.reason)


def end_to_end(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    """The headers without those that are about one connection only, the ones that `Connection` names included."""
    given = list(headers)
    named = {word.strip().lower() for name, value in given if name == b"connection" for word in value.split(b",")}
    # Names of framing stay in: h11 has understood them, and what it sends is framed by them.
    leaving = _HOP_BY_HOP | (named - {b"content-length", b"transfer-encoding", b"host"})
    if any(name == b"transfer-encoding" for name, _ in given):
        # Chunks win over a length that stands beside them (RFC 9112, 6.3); a server that thinks otherwise would take
        # the end of this body for the beginning of the next request, and that one's credential for its body.
        leaving |= {b"content-length"}
    return [(name, value) for name, value in given if name not in leaving]


async def refuse(side: Side, status: int, sentence: str) -> None:
    """Answer with one sentence, where an answer can still be given."""
    if side.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
        return
    body = f"{sentence}\n".encode("utf-8", "replace")
    headers = [
        ("content-type", "text/plain; charset=utf-8"),
        ("content-length", str(len(body))),
        ("connection", "close"),
    ]
    try:
        await side.send(h11.Response(status_code=status, headers=headers, reason=_REASONS.get(status, b"")))
        await side.send(h11.Data(data=body))
        await side.send(h11.EndOfMessage())
    except (h11.LocalProtocolError, OSError):
        pass  # it asked for no body (HEAD), or is gone


_REASONS: Final = {
    400: b"Bad Request",
    403: b"Forbidden",
    405: b"Method Not Allowed",
    413: b"Content Too Large",
    502: b"Bad Gateway",
}


async def _pay(bandwidth: Bandwidth | None, count: int) -> None:
    wait_s = bandwidth.spend(count) if bandwidth is not None else 0.0
    if wait_s:
        await asyncio.sleep(wait_s)
