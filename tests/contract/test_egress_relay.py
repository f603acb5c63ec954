"""The relay over plain sockets, without walls: what it sends on, whatever comes in."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import h11
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from cardcage.egress import EgressEvent, EgressRules, Gateway, Relay, Verdict
from cardcage.egress.http import PIECES_PER_S
from cardcage.egress.outlet import HELD_BODIES_MAX
from cardcage.egress.relay import CONNECTIONS_PER_S
from cardcage.permissions.credentials import Credential, parse_credentials
from cardcage.permissions.network import parse_endpoint
from cardcage.sandbox.network import Listener
from cardcage.trust.authority import Authority

SECRET = "the-secret"
TIMEOUT_S = 30.0


class Secrets:
    """One secret."""

    def secret(self, name: str) -> str:
        return SECRET

    def describe(self) -> str:
        return "a test"


class Upstream:
    """A server that reads requests with a parser of its own, and answers each with as many bytes as it was sent."""

    def __init__(self) -> None:
        self.requests: list[tuple[h11.Request, bytes]] = []
        self.broken: list[str] = []
        self.resets = 0
        self.trailers: list[tuple[bytes, bytes]] = []
        self.answer = b""
        """What to answer to anything, where it is to be no good answer."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.answer:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(self.answer)
            writer.close()
            return
        conn = h11.Connection(h11.SERVER)
        request, body = None, b""
        try:
            while True:
                said = conn.next_event()
                if said is h11.NEED_DATA:
                    conn.receive_data(await reader.read(65536))
                elif isinstance(said, h11.Request):
                    request, body = said, b""
                elif isinstance(said, h11.Data):
                    body += bytes(said.data)
                elif isinstance(said, h11.EndOfMessage):
                    assert request is not None
                    self.trailers += list(said.headers)
                    self.requests.append((request, body))
                    writer.write(
                        conn.send(h11.Response(status_code=200, headers=[("content-length", "2")]))
                        + ((conn.send(h11.Data(data=b"ok")) or b"") if request.method != b"HEAD" else b"")
                        + (conn.send(h11.EndOfMessage()) or b"")
                    )
                    await writer.drain()
                    conn.start_next_cycle()
                else:
                    return
        except h11.RemoteProtocolError as error:
            if "hung up" not in str(error) and "incomplete message" not in str(error):
                self.broken.append(str(error))
        except ConnectionResetError:
            self.resets += 1
        except h11.LocalProtocolError:
            pass  # the client closed after its last request
        finally:
            writer.close()


@asynccontextmanager
async def relayed(
    folder: Path, *, credential: bool, proxy: bool = False, how: dict[str, Any] | None = None, deaf: bool = False
) -> AsyncGenerator[tuple[Upstream, int, Relay, list[EgressEvent]]]:
    """An upstream, and the port of a relay in front of it that adds a header, or that is a proxy.

    `how` is another credential than the header; an upstream that is `deaf` takes connections, and never a byte.
    """
    upstream = Upstream()
    outside = socket.create_server(("127.0.0.1", 0))
    server = None if deaf else await asyncio.start_server(upstream.serve, sock=outside)
    endpoint = f"api.test:{outside.getsockname()[1]}"
    credentials: tuple[Credential, ...] = ()
    if credential:
        document = {"endpoint": endpoint, "tls": False, **(how or {"header": "X-Api-Key", "secret": "KEY"})}
        credentials = parse_credentials([document], subject="the list")
    rules = EgressRules(
        plugin="p",
        instance="p",
        endpoints=(parse_endpoint(endpoint),),
        hosts={"api.test": "127.0.0.1"},
        credentials=credentials,
        idle_timeout_s=TIMEOUT_S,
    )
    gateway = Gateway(secrets=Secrets(), authority=lambda: Authority.open(folder))
    listener = socket.create_server(("127.0.0.1", 0))
    place = Listener(address="127.0.0.1", port=listener.getsockname()[1], endpoint="" if proxy else endpoint)
    told: list[EgressEvent] = []
    relay = gateway.open(rules, [(place, listener)], told.append, gateway.prepare(rules))
    try:
        yield upstream, place.port, relay, told
    finally:
        await relay.aclose()
        gateway.close()
        if server is not None:
            server.close()
        outside.close()


async def say(port: int, *pieces: bytes) -> bytes:
    """Send the pieces, end, and read what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            writer.write_eof()
            while part := await reader.read(65536):
                received += part
    except (ConnectionResetError, BrokenPipeError):
        pass
    finally:
        writer.close()
    return received


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


tokens = st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "TRACE", "CONNECT", "get", "X"])
targets = st.sampled_from(["/", "/a?b=c", "*", "http://evil.test/", "//evil.test/", "/\x00", "/a b", "/%0d%0aX:1", ""])
header_lines = st.sampled_from(
    [
        *(
            "Host: api.test",
            "Host: evil.test",
            "host : evil.test",
            "X-Api-Key: mine",
            "x_api_key: mine",
            "X-API-KEY : a",
        ),
        *("Content-Length: 3", "Content-Length: 0", "Content-Length: +3", "Content-Length: 3, 3", "Content-Length: 4"),
        *("Transfer-Encoding: chunked", "Transfer-Encoding: identity", "Transfer-Encoding: chunked, chunked"),
        *("transfer-encoding:\tchunked", "Transfer-Encoding : chunked", "Connection: X-Api-Key, close", "TE: trailers"),
        *("Connection: content-length", "Connection: transfer-encoding", "Connection: keep-alive", "Upgrade: h2c"),
        *(
            "Expect: 100-continue",
            " folded",
            "X: a\rX-Api-Key: b",
            "X: a\nX-Api-Key: b",
            ": empty",
            "Trailer: X-Api-Key",
        ),
    ]
)
bodies = st.sampled_from(
    [
        *("", "abc", "0\r\n\r\n", "3\r\nabc\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\nX-Api-Key: trailer\r\n\r\n", "zz\r\n"),
        *(
            "abcGET /smuggled HTTP/1.1\r\nHost: evil.test\r\n\r\n",
            "3;x=\r\nabc\r\n0\r\n\r\n",
            "00000000000000003\r\nabc",
        ),
    ]
)


def spell(method: str, target: str, version: str, lines: list[str], body: str) -> bytes:
    head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/{version}", *lines))
    return f"{head}\r\n{body}".encode("latin-1")


requests = st.builds(
    spell,
    tokens,
    targets,
    st.sampled_from(["1.1", "1.0", "1.1", "2.0", "1.1"]),
    st.lists(header_lines, max_size=5),
    bodies,
)


harmless = st.sampled_from(
    ["X-Api-Key: mine", "x_api_key: mine", "X_API-KEY: a", "Connection: X-Api-Key", "TE: trailers", "Upgrade: h2c"]
)
bodies_with_framing = st.sampled_from(
    [
        ("Content-Length: 0", ""),
        ("Content-Length: 3", "abc"),
        ("Transfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n"),
        ("Transfer-Encoding: chunked", "3;x=y\r\nabc\r\n0\r\nX-Api-Key: trailer\r\nHost: evil.test\r\n\r\n"),
    ]
)


def spell_well(method: str, lines: list[str], framed: tuple[str, str]) -> bytes:
    return spell(method, "/", "1.1", ["Host: evil.test", *lines, framed[0]], framed[1])


good_requests = st.builds(
    spell_well,
    st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    st.lists(harmless, max_size=3),
    bodies_with_framing,
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(st.one_of(good_requests, requests), min_size=1, max_size=3), cut=st.integers(1, 40))
def test_whatever_a_plugin_sends_the_server_gets_whole_requests_with_one_credential_each(
    folder: Path, sent: list[bytes], cut: int
) -> None:
    async def attempt() -> Upstream:
        async with relayed(folder, credential=True) as (upstream, port, _, _):
            stream = b"".join(sent)
            await say(port, stream[:cut], stream[cut:])
            return upstream

    upstream = asyncio.run(attempt())
    assert upstream.broken == []
    assert upstream.trailers == []
    event(f"{len(upstream.requests)} requests went out")
    for request, _ in upstream.requests:
        headers = [(name, value) for name, value in request.headers]
        assert [value for name, value in headers if name.replace(b"_", b"-") == b"x-api-key"] == [SECRET.encode()]
        (host,) = [value for name, value in headers if name == b"host"]
        assert host.startswith(b"api.test:")
        assert request.method not in (b"TRACE", b"CONNECT")
        assert request.target[:1] in (b"/", b"*")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.one_of(requests, st.binary(max_size=300)))
def test_whatever_comes_to_the_proxy_it_answers_or_closes_and_goes_on(folder: Path, sent: bytes) -> None:
    async def attempt() -> None:
        async with relayed(folder, credential=False, proxy=True) as (upstream, port, relay, _):
            await say(port, sent)
            endpoint = next(iter(relay.counts())).endpoint
            answer = await say(port, f"GET http://{endpoint}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert answer.startswith(b"HTTP/1.1 200 "), answer
            assert upstream.broken == []

    asyncio.run(attempt())


async def test_a_kept_connection_carries_one_request_after_the_other(folder: Path) -> None:
    async with relayed(folder, credential=True) as (upstream, port, relay, _):
        one = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc"
        answer = await say(port, one, one, one)
        assert answer.count(b"HTTP/1.1 200") == 3
        assert [body for _, body in upstream.requests] == [b"abc"] * 3
        assert next(iter(relay.counts())).connections == 1


async def test_what_breaks_off_inside_breaks_off_outside_and_does_not_look_whole(folder: Path) -> None:
    async with relayed(folder, credential=False) as (upstream, port, relay, told):
        sock = socket.create_connection(("127.0.0.1", port))
        sock.sendall(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        async with asyncio.timeout(TIMEOUT_S):
            while not any(each.verdict is Verdict.CONNECTED for each in told):
                await asyncio.sleep(0)
            await relay.aclose()
            sock.close()
            while not upstream.resets:
                await asyncio.sleep(0)
        assert upstream.requests == []


async def test_a_flood_of_connections_is_taken_at_a_pace(folder: Path) -> None:
    async with relayed(folder, credential=False) as (_, port, relay, _):
        loop = asyncio.get_running_loop()
        began_s, count = loop.time(), 300
        for _ in range(count // 30):
            await asyncio.gather(*(say(port, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n") for _ in range(30)))
        # A quarter of a second's worth may come at once; a slow machine only takes longer.
        assert loop.time() - began_s >= (count - 30 - CONNECTIONS_PER_S / 4) / CONNECTIONS_PER_S * 0.95
        assert next(iter(relay.counts())).connections == count


async def test_a_body_framed_in_two_ways_goes_out_framed_in_one(folder: Path) -> None:
    async with relayed(folder, credential=True) as (upstream, port, _, _):
        head = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        await say(port, head + b"5\r\nhello\r\n0\r\n\r\n")
        (request, body), *others = upstream.requests
        names = [name for name, _ in request.headers]
        assert (names.count(b"transfer-encoding"), names.count(b"content-length")) == (1, 0)
        assert (body, others) == (b"hello", [])


@pytest.mark.parametrize("proxy", [False, True])
async def test_a_server_that_takes_nothing_does_not_hold_up_the_end_of_a_plugin(folder: Path, proxy: bool) -> None:
    async with relayed(folder, credential=not proxy, proxy=proxy, deaf=True) as (_, port, relay, told):
        inside = socket.create_connection(("127.0.0.1", port))
        inside.setblocking(False)
        loop = asyncio.get_running_loop()
        if proxy:
            endpoint = next(iter(relay.counts())).endpoint
            head = f"POST http://{endpoint}/x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
        else:
            head = "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n"
        await loop.sock_sendall(inside, head.encode())
        with suppress(TimeoutError):  # at some point no more is taken anywhere on the way
            while True:
                async with asyncio.timeout(1):
                    await loop.sock_sendall(inside, b"x" * 65536)
        inside.close()
        async with asyncio.timeout(TIMEOUT_S):
            await relay.aclose()
        assert told[-1].verdict is Verdict.CLOSED


async def test_a_body_of_tiny_chunks_is_read_at_a_pace_and_sent_on_in_larger_ones(folder: Path) -> None:
    async with relayed(folder, credential=True) as (upstream, port, relay, _):
        loop = asyncio.get_running_loop()
        began_s, count = loop.time(), 15_000
        head = b"POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await say(port, head, b"1\r\nx\r\n" * count, b"0\r\n\r\n")
        assert loop.time() - began_s >= (count - PIECES_PER_S / 4) / PIECES_PER_S * 0.95
        assert [body for _, body in upstream.requests] == [b"x" * count]
        assert next(iter(relay.counts())).bytes_up < 2 * count


async def test_only_so_many_bodies_are_held_at_once_to_be_signed(folder: Path) -> None:
    aws = {"region": "eu-west-1", "service": "ec2", "access_key": "KEY", "secret_key": "KEY"}
    async with relayed(folder, credential=True, how={"aws": aws}) as (upstream, port, _, _), asyncio.timeout(TIMEOUT_S):
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(HELD_BODIES_MAX + 1)]
        head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        for reader, writer in clients[:-1]:
            writer.write(head)
            assert b"100" in await reader.readuntil(b"\r\n\r\n")
        (first_reader, first_writer), (last_reader, last_writer) = clients[0], clients[-1]
        last_writer.write(head)
        going_on = asyncio.ensure_future(last_reader.readuntil(b"\r\n\r\n"))
        assert await asyncio.wait({going_on}, timeout=0.3) == (set(), {going_on})
        first_writer.write(b"ab")
        assert b"200" in await first_reader.readuntil(b"\r\n\r\n")
        assert b"100" in await going_on
        for _, writer in clients:
            writer.close()
        assert [body for _, body in upstream.requests] == [b"ab"]


@pytest.mark.parametrize("proxy", [False, True])
async def test_trailers_of_a_server_do_not_reach_a_client_that_knows_none(
    folder: Path, proxy: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with relayed(folder, credential=not proxy, proxy=proxy) as (upstream, port, relay, _):
        upstream.answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n"
        target = f"http://{next(iter(relay.counts())).endpoint}/" if proxy else "/"
        answer = await say(port, f"GET {target} HTTP/1.0\r\n\r\n".encode())
    gc.collect()
    assert answer.endswith(b"\r\n\r\nok")
    assert not caplog.records
