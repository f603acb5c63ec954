"""Granted endpoints are reached without a network namespace, through the host alone, by every kind of client."""

from __future__ import annotations

import asyncio
import http.server
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cardcage.egress import EgressCount, EgressEvent, EgressRules, Gateway, Relay, Verdict
from cardcage.launch.handover import HandedListener, connected_pair
from cardcage.launch.keeper import parse_address
from cardcage.permissions.network import parse_endpoint
from cardcage.trust.authority import Authority

CLIENTS = ("with_urllib", "with_requests", "with_httpx", "with_aiohttp", "with_socket")


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked for."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = f"you asked for {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A web server of the host."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    folder.chmod(0o700)
    return Authority.open(folder)


@pytest.fixture(scope="module")
def trust_file(authority: Authority, open_folder: Path) -> Path:
    """The authority's certificate, where the plugin may be given it."""
    path = open_folder / "trust.pem"
    path.write_text(authority.ca_pem if isinstance(authority.ca_pem, str) else authority.ca_pem.decode())
    path.chmod(0o644)
    return path


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[http.server.ThreadingHTTPServer]:
    """The web server behind TLS, as `api.test`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue("api.test", server=True, client=False, names=("api.test",)).load_into(context)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


class NoNames:
    """A resolver that knows no name: what is reached is what the rules say."""

    async def resolve(self, name: str, port: int) -> tuple[str, ...]:
        raise OSError(-2, "Name or service not known")


class Connected:
    """A process behind the wall, and the host's relay for it."""

    def __init__(self, loop: Any, prober: Any, relay: Relay, events: list[EgressEvent]) -> None:
        self._loop = loop
        self.attempt: Callable[..., dict[str, Any]] = prober.attempt
        self.prober = prober
        self.relay = relay
        self.events = events

    def final_count(self) -> EgressCount:
        """What went through once the relay is closed: a client may have its answer before it is booked."""
        self._loop.run(self.relay.aclose())
        (count,) = self.relay.counts()
        return count


@pytest.fixture
def reach(loop: Any, confine: Any) -> Iterator[Callable[..., Connected]]:
    """Starts a process with network grants, with the relay that the host would open for it."""
    made: list[Connected] = []
    gateway = Gateway(resolver=NoNames())

    def begin(*endpoints: str, more: tuple[str, ...] = (), hosts: Any = None) -> Connected:
        prober = confine(*(f"network:{each}" for each in endpoints), *more)
        events: list[EgressEvent] = []
        parsed = tuple(map(parse_endpoint, endpoints))
        rules = EgressRules(plugin="p", instance="p", endpoints=parsed, granted=parsed, hosts=hosts or {})

        async def open_relay() -> Relay:
            listeners, prober.process.listeners = prober.process.listeners, []
            return gateway.open(rules, listeners, events.append)

        made.append(Connected(loop, prober, loop.run(open_relay()), events))
        return made[-1]

    yield begin
    for one in made:
        loop.run(one.relay.aclose())
    gateway.close()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_granted_name_is_reached_by(client: str, reach: Any, port: int) -> None:
    plugin = reach(f"api.test:{port}", hosts={"api.test": "127.0.0.1"})
    answer = plugin.attempt(client, f"http://api.test:{port}/bill")
    assert answer == {"value": "you asked for /bill"}
    count = plugin.final_count()
    assert (count.connections, count.refused) == (1, 0)
    assert count.bytes_down > 100
    assert plugin.events[0].verdict is Verdict.CONNECTED


def test_a_granted_address_and_localhost_are_reached(reach: Any, port: int) -> None:
    plugin = reach(f"127.0.0.1:{port}", f"localhost:{port}")
    for host in ("127.0.0.1", "localhost"):
        assert plugin.attempt("with_urllib", f"http://{host}:{port}/x") == {"value": "you asked for /x"}


def test_a_granted_program_reaches_a_granted_address(reach: Any, port: int) -> None:
    if not os.path.exists("/usr/bin/curl"):
        pytest.skip("curl is not installed")
    plugin = reach(f"127.0.0.1:{port}", more=("subprocess:/usr/bin/curl",))
    assert plugin.attempt("with_curl", f"http://127.0.0.1:{port}/bill") == {"value": "you asked for /bill"}


def test_a_granted_program_reaches_a_granted_name_through_the_proxy(reach: Any, secure: Any, trust_file: Any) -> None:
    if not os.path.exists("/usr/bin/curl"):
        pytest.skip("curl is not installed")
    port = secure.server_address[1]
    grants = ("subprocess:/usr/bin/curl", f"read:{trust_file}")
    plugin = reach(f"api.test:{port}", hosts={"api.test": "127.0.0.1"}, more=grants)
    answer = plugin.attempt("curl_trusting", f"https://api.test:{port}/bill", str(trust_file))
    assert answer == {"value": "you asked for /bill"}, answer
    count = plugin.final_count()
    assert count.connections == 1


def test_other_ports_hosts_and_the_same_address_without_its_name_are_not_reached(
    reach: Any, port: int, planted: Any
) -> None:
    plugin = reach(f"api.test:{port}", hosts={"api.test": "127.0.0.1"})
    for host, number in (("127.0.0.1", port), ("127.0.0.1", planted.tcp4), ("127.100.0.2", planted.tcp4)):
        assert plugin.attempt("connect_tcp", socket.AF_INET, host, number) == {"error": "ENETUNREACH"}


def test_an_address_that_no_grant_names_is_refused_by_the_relay(reach: Any, port: int) -> None:
    plugin = reach(f"*.test:{port}")
    answer = plugin.attempt("with_urllib", f"http://api.test:{port}/bill")
    assert "value" not in answer


def test_what_is_large_goes_through_whole_and_is_counted(reach: Any, echo_port: int) -> None:
    plugin = reach(f"127.0.0.1:{echo_port}")
    assert plugin.attempt("exchange", "127.0.0.1", echo_port, 8 << 20) == {"value": 8 << 20}
    count = plugin.final_count()
    assert count.bytes_up >= 8 << 20


@pytest.fixture
def echo_port() -> Iterator[int]:
    """A server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    sock, _ = server.accept()
                except OSError:
                    return
                with sock:
                    while part := sock.recv(1 << 16):
                        sock.sendall(part)

        threading.Thread(target=run, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def test_a_socket_that_does_not_block_stays_so_and_closes_when_a_program_is_started(reach: Any, port: int) -> None:
    plugin = reach(f"127.0.0.1:{port}")
    assert plugin.attempt("connect_without_blocking", "127.0.0.1", port) == {"value": [False, False, True]}


def test_an_address_that_changes_after_the_look_leads_nowhere_else(reach: Any, port: int, planted: Any) -> None:
    plugin = reach(f"127.0.0.1:{port}")
    answer = plugin.attempt("change_address_meanwhile", "127.0.0.1", port, planted.tcp4, 300)
    assert answer["value"]["other"] == 0
    assert answer["value"]["granted"] + answer["value"]["refused"] == 300


def test_a_flood_of_connections_holds_up_nobody_else(
    reach: Any, confine: Any, loop: Any, port: int, planted: Any
) -> None:
    flooding, other = reach(f"127.0.0.1:{port}"), confine()
    tried: list[dict[str, Any]] = []
    arguments = ("127.0.0.1", planted.tcp4, 16, 2.0)
    flood = threading.Thread(
        target=lambda: tried.append(flooding.attempt("flood_with_connections", *arguments)), daemon=True
    )
    flood.start()
    answered = 0
    while flood.is_alive():
        assert "value" in other.attempt("identity")
        loop.run(asyncio.sleep(0))  # the host's loop, which is asked each time, goes on as well
        answered += 1
    assert tried[0]["value"] > 16
    assert answered > 10
    assert flooding.attempt("with_urllib", f"http://127.0.0.1:{port}/x") == {"value": "you asked for /x"}


def test_a_descriptor_that_is_no_socket_is_refused(reach: Any, port: int) -> None:
    plugin = reach(f"127.0.0.1:{port}")
    assert plugin.attempt("connect_a_file", "127.0.0.1", port) == {"error": "ENOTSOCK"}


def test_without_a_relay_nothing_is_reached(loop: Any, confine: Any, port: int) -> None:
    plugin = confine(f"network:127.0.0.1:{port}")
    plugin.process.close_listeners()
    assert plugin.attempt("connect_tcp", socket.AF_INET, "127.0.0.1", port) == {"error": "ECONNREFUSED"}


# the parts ----------------------------------------------------------------------------------------------------------


def test_a_pair_is_connected_to_itself() -> None:
    theirs, ours = connected_pair()
    with theirs, ours:
        assert theirs.getpeername() == ours.getsockname()
        theirs.send(b"ping")
        ours.setblocking(True)
        assert ours.recv(4) == b"ping"


def test_a_handed_listener_gives_what_was_handed_in_and_then_nothing() -> None:
    with HandedListener() as listener:
        theirs, ours = connected_pair()
        with theirs:
            assert listener.hand_in(ours)
            taken, _ = listener.accept()
            with taken:
                assert taken.getpeername() == theirs.getsockname()
        with pytest.raises(BlockingIOError):
            listener.accept()
    theirs, ours = connected_pair()
    with theirs:
        assert not listener.hand_in(ours), "a closed listener takes nothing"


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b"\x02\x00\x01\xbb\x7f\x64\x00\x02" + bytes(8), ("127.100.0.2", 443)),
        (b"\x0a\x00\x01\xbb" + bytes(4) + bytes(10) + b"\xff\xff\x7f\x00\x00\x01" + bytes(4), ("127.0.0.1", 443)),
        (b"\x0a\x00\x00\x50" + bytes(4) + bytes(15) + b"\x01" + bytes(4), ("::1", 80)),
    ],
)
def test_an_address_is_read_as_the_kernel_reads_it(raw: bytes, found: tuple[str, int]) -> None:
    assert parse_address(raw) == found


@pytest.mark.parametrize(
    "raw", [b"", b"\x02", b"\x02\x00\x01", b"\x0a\x00" + bytes(8), b"\x01\x00/x", b"\x00\x00" + bytes(14)]
)
def test_an_address_that_is_cut_short_or_of_another_family_leads_nowhere(raw: bytes) -> None:
    assert isinstance(parse_address(raw), int)
