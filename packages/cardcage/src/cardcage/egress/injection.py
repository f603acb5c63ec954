"""Adding a credential to a plugin's requests: TLS ends here, and begins again towards the server.

The plugin speaks plain HTTP, or TLS with a certificate that the host made for it; the server sees TLS checked against
the system's certificates, and the credential. The plugin never holds it.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from contextlib import AsyncExitStack
from typing import Final

import h11

from cardcage.egress.dial import DialFailed, DialRefused
from cardcage.egress.heads import HEAD_BYTES_MAX, HEAD_TIMEOUT_S, first_byte
from cardcage.egress.http import BadMessage, Headers, Side, end_to_end, exchange, refuse, server_side
from cardcage.egress.outlet import Outlet
from cardcage.egress.rules import Target
from cardcage.egress.signing import BODY_BYTES_MAX, Signer
from cardcage.permissions.credentials import Credential
from cardcage.trust.authority import Authority, Certificate

_TLS_HANDSHAKE: Final = b"\x16"
_REFUSED_METHODS: Final = frozenset({b"TRACE", b"TRACK", b"CONNECT"})
"""The first two answer with the request as it came, the credential included."""


class Injection:
    """One endpoint with a credential."""

    def __init__(
        self, credential: Credential, signer: Signer, *, authority: Authority, outside_tls: ssl.SSLContext
    ) -> None:
        self.credential = credential
        self._signer = signer
        self._authority = authority
        self._outside_tls = outside_tls
        self._leaf: Certificate | None = None
        self._inside_tls: ssl.SSLContext | None = None

    async def serve(self, outlet: Outlet, inside: socket.socket, target: Target, greeting: bytes) -> None:
        """One connection of the plugin, and every request on it."""
        if greeting:
            await asyncio.get_running_loop().sock_sendall(inside, greeting)
        try:
            async with asyncio.timeout(HEAD_TIMEOUT_S):
                begins = await first_byte(inside)
                if not begins:
                    return
                context = self._context(target.host) if begins == _TLS_HANDSHAKE else None
                side = server_side(*await _accept(inside.dup(), context), outlet.rules.idle_timeout_s, outlet.pace)
        except (TimeoutError, ssl.SSLError) as error:
            outlet.ledger.failed(target.grant, target.endpoint, f"TLS with the plugin failed: {error}")
            raise ConnectionAbortedError from error
        async with side:
            await _Conversation(self, outlet, side, target).run()

    def _context(self, host: str) -> ssl.SSLContext:
        """What the plugin is shown: a certificate for this host alone, made anew before it ends."""
        leaf = self._authority.issue(host, server=True, client=False) if self._leaf is None else self._leaf
        leaf = self._authority.renew(leaf)
        if leaf is not self._leaf or self._inside_tls is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"])
            leaf.load_into(context)
            self._leaf, self._inside_tls = leaf, context
        return self._inside_tls

    def rewrite(self, request: h11.Request, target: Target, body: bytes | None) -> h11.Request:
        """The request as the server gets it: its own `Host`, nothing of the plugin's in place of the credential."""
        port = 443 if self.credential.tls else 80
        authority = target.endpoint.removesuffix(f":{port}").encode("ascii")
        headers: Headers = [(b"host", authority)]
        headers += [(name, value) for name, value in end_to_end(request.headers) if not self._is_replaced(name)]
        if body is not None:
            headers = [(n, v) for n, v in headers if n not in (b"content-length", b"transfer-encoding", b"expect")]
            if body or request.method not in (b"GET", b"HEAD", b"DELETE", b"OPTIONS"):
                headers.append((b"content-length", str(len(body)).encode()))
        scheme = "https" if self.credential.tls else "http"
        url = f"{scheme}://{authority.decode()}{request.target.decode('latin-1')}"
        headers += self._signer.headers(request.method, url, headers, body)
        try:
            return h11.Request(method=request.method, target=request.target, headers=headers)
        except h11.LocalProtocolError:
            # Its words may show a header, and so the credential.
            raise BadMessage(502, "the request cannot be sent on with its credential") from None

    def _is_replaced(self, name: bytes) -> bool:
        # Some servers take `x_api_key` for `x-api-key`.
        spelled = name.replace(b"_", b"-").decode("latin-1")
        return spelled == "host" or spelled in {header.replace("_", "-") for header in self.credential.headers}

    @property
    def needs_body(self) -> bool:
        """Whether a request must be whole before it can be signed."""
        return self._signer.needs_body

    async def connect(self, stack: AsyncExitStack, outlet: Outlet, target: Target) -> Side:
        """A checked connection to the server, open as long as `stack` is."""
        way = await stack.enter_async_context(outlet.way(target))
        way.credential = ", ".join(self.credential.secrets)
        context = self._outside_tls if self.credential.tls else None
        try:
            reader, writer = await asyncio.open_connection(
                sock=way.sock.dup(),
                ssl=context,
                server_hostname=target.host if context else None,
                ssl_handshake_timeout=outlet.rules.connect_timeout_s if context else None,
            )
        except ssl.SSLCertVerificationError as error:
            raise BadMessage(
                502, f"{target.endpoint} shows a certificate that is not good: {error.verify_message}"
            ) from None
        except ssl.SSLError as error:
            raise BadMessage(502, f"TLS with {target.endpoint} failed: {error.reason}") from None
        side = Side(
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
        return await stack.enter_async_context(side)


class _Conversation:
    """The requests of one connection, one after the other, over one connection outside while that can be kept."""

    def __init__(self, injection: Injection, outlet: Outlet, inside: Side, target: Target) -> None:
        self._injection = injection
        self._outlet = outlet
        self._inside = inside
        self._target = target
        self._outside: Side | None = None
        self._stack = AsyncExitStack()

    async def run(self) -> None:
        try:
            # What goes wrong passes through the stack, so that the connection outside is noted as broken off.
            async with self._stack:
                while await self._one_request():
                    pass
        except DialRefused as error:
            await refuse(self._inside, 403, str(error))
        except DialFailed as error:
            await refuse(self._inside, 502, str(error))
        except BadMessage as error:
            await refuse(self._inside, error.status, str(error))

    async def _one_request(self) -> bool:
        """Serve the next request. False where there is none, or where none can follow."""
        try:
            request = await self._inside.next_event()
        except h11.RemoteProtocolError as error:
            raise BadMessage(400, f"the request cannot be read: {error}") from None
        if not isinstance(request, h11.Request):
            return False
        _check(request)
        if self._injection.needs_body:
            async with self._outlet.held_bodies:
                outside = await self._pass_on(request, await self._whole_body())
        else:
            outside = await self._pass_on(request, None)
        if not _can_go_on(outside.conn):
            await self._let_go()
        else:
            outside.conn.start_next_cycle()
        if not _can_go_on(self._inside.conn):
            return False
        self._inside.conn.start_next_cycle()
        return True

    async def _pass_on(self, request: h11.Request, body: bytes | None) -> Side:
        outside = await self._connected()
        rewritten = self._injection.rewrite(request, self._target, body)
        await exchange(self._inside, outside, rewritten, last=False, body=body)
        return outside

    async def _connected(self) -> Side:
        if self._outside is not None and self._outside.reader.at_eof():
            await self._let_go()
        if self._outside is None:
            self._outside = await self._injection.connect(self._stack, self._outlet, self._target)
        return self._outside

    async def _let_go(self) -> None:
        self._outside = None
        await self._stack.aclose()

    async def _whole_body(self) -> bytes:
        if self._inside.conn.they_are_waiting_for_100_continue:
            await self._inside.send(h11.InformationalResponse(status_code=100, headers=[]))
        body = bytearray()  # a list of its pieces would cost far more than they hold where each is a byte or two
        while True:
            try:
                event = await self._inside.next_event()
            except h11.RemoteProtocolError as error:
                raise BadMessage(400, f"the request cannot be read: {error}") from None
            if isinstance(event, h11.EndOfMessage):
                return bytes(body)
            if not isinstance(event, h11.Data):
                raise ConnectionAbortedError("the plugin went away in the middle of its request")
            body += event.data
            if len(body) > BODY_BYTES_MAX:
                raise BadMessage(413, f"a body that is to be signed has at most {BODY_BYTES_MAX} bytes")


def _check(request: h11.Request) -> None:
    if request.method.upper() in _REFUSED_METHODS:
        raise BadMessage(405, f"{request.method.decode('ascii')} is not passed on where a credential is added")
    if not request.target.startswith(b"/") and request.target != b"*":
        raise BadMessage(400, "expected the path of a resource")


def _can_go_on(conn: h11.Connection) -> bool:
    return conn.our_state is h11.DONE and conn.their_state is h11.DONE


async def _accept(
    sock: socket.socket, context: ssl.SSLContext | None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Streams over a connection that was accepted, as the server of it. Closes the socket where that fails."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=HEAD_BYTES_MAX, loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    try:
        transport, _ = await loop.connect_accepted_socket(lambda: protocol, sock, ssl=context)
    except BaseException:
        sock.close()
        raise
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
