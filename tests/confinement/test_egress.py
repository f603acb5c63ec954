"""Granted endpoints are reached by every kind of client, and nothing else is."""

from __future__ import annotations

import http.server
import importlib.util
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cardcage.egress import EgressEvent, EgressRules, Gateway, Relay, Verdict
from cardcage.permissions.network import parse_endpoint
from cardcage.sandbox.python_layout import core_libraries
from cardcage.sandbox.report import LayerStatus
from cardcage.trust.authority import Authority

PROBES = tuple((name, Path(__file__).parent / f"{name}.py") for name in ("walled_probe", "egress_probe"))
CLIENT_LIBRARIES = (
    *("requests", "urllib3", "idna", "certifi", "charset_normalizer", "httpx", "httpcore", "h11", "anyio", "sniffio"),
    *("aiohttp", "multidict", "yarl", "frozenlist", "aiosignal", "attr", "attrs", "propcache", "aiohappyeyeballs"),
    "typing_extensions",
)
CLIENTS = ("with_urllib", "with_requests", "with_httpx", "with_aiohttp", "with_curl", "with_socket")
CURL = "subprocess:/usr/bin/curl"


def _libraries() -> tuple[tuple[str, Path], ...]:
    found: list[tuple[str, Path]] = []
    for name in CLIENT_LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            continue
        place = Path(spec.origin)
        found.append((name, place.parent if place.name == "__init__.py" else place))
    return (*core_libraries(), *PROBES, *found)


# servers of the host ------------------------------------------------------------------------------------------------


class Answering(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked for, and remembers the requests."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.server.requests.append((self.command, self.path, dict(self.headers), self.rfile.read(length)))  # type: ignore[attr-defined]
        body = f"you asked for {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class WebServer(http.server.ThreadingHTTPServer):
    """An HTTP server in threads; `requests` holds method, path, headers and body of each request."""

    daemon_threads = True

    def __init__(self, host: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Answering)
        self.requests: list[tuple[str, str, dict[str, str], bytes]] = []
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class EchoServer:
    """Sends back what it gets, and counts both."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.received = self.sent = self.connections = 0
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, 0), family=family, backlog=256)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._echo, args=(sock,), daemon=True).start()

    def _echo(self, sock: socket.socket) -> None:
        with sock:
            try:
                while part := sock.recv(1 << 16):
                    self.received += len(part)
                    sock.sendall(part)
                    self.sent += len(part)
            except OSError:
                return

    def stop(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    folder = tmp_path_factory.mktemp("authority")
    folder.chmod(0o700)
    return Authority.open(folder)


@pytest.fixture(scope="module")
def web() -> Iterator[WebServer]:
    server = WebServer()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def secure(authority: Authority) -> Iterator[WebServer]:
    """The same behind TLS, as `api.test`, `localhost` and 127.0.0.1."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue("api.test", server=True, client=False, names=("api.test", "localhost", "127.0.0.1")).load_into(
        context
    )
    server = WebServer(context=context)
    yield server
    server.stop()


@pytest.fixture
def echo() -> Iterator[EchoServer]:
    server = EchoServer()
    yield server
    server.stop()


# a walled process with its relay ------------------------------------------------------------------------------------


class Names:
    """A resolver of the test's own: each look-up of a name takes the next answer, and the last one stays."""

    def __init__(self, **answers: Sequence[tuple[str, ...]]) -> None:
        self._answers = {name.replace("_", "."): list(given) for name, given in answers.items()}
        self.asked: list[str] = []

    async def resolve(self, name: str, port: int) -> tuple[str, ...]:
        self.asked.append(name)
        given = self._answers.get(name)
        if given is None:
            raise OSError(-2, "Name or service not known")
        return given.pop(0) if len(given) > 1 else given[0]


@dataclass(slots=True)
class Plugin:
    """A walled process that probes, and the host's relay for it."""

    prober: Any
    relay: Relay
    events: list[EgressEvent]
    told: threading.Condition = field(default_factory=threading.Condition)

    def attempt(self, probe: str, *arguments: Any) -> dict[str, Any]:
        return self.prober.attempt(probe, *arguments)

    def tell(self, event: EgressEvent) -> None:
        with self.told:
            self.events.append(event)
            self.told.notify_all()

    def event(self, verdict: Verdict, endpoint: str) -> EgressEvent:
        """The first such event, waited for."""

        def found() -> EgressEvent | None:
            return next((e for e in self.events if e.verdict is verdict and e.endpoint == endpoint), None)

        with self.told:
            assert self.told.wait_for(found, 30), [each.sentence() for each in self.events]
        event = found()
        assert event is not None
        return event

    def counts(self, grant: str) -> Any:
        return next(count for count in self.relay.counts() if count.endpoint == grant)


@pytest.fixture(scope="module")
def client_zygote(loop: Any, runner_of: Any) -> Iterator[Any]:
    async def make() -> Any:
        return runner_of("egress_probe:main", (*core_libraries(), *PROBES))

    runner = loop.run(make())
    yield runner
    loop.run(runner.aclose())


Start = Callable[..., Plugin]


@pytest.fixture
def start(loop: Any, client_zygote: Any, make_spec: Any, prober_of: Any) -> Iterator[Start]:
    """Starts a walled process that is granted `network`, with the relay that the host would open for it."""
    plugins: list[Plugin] = []
    gateways: list[Gateway] = []

    def begin(
        *network: str,
        grants: Sequence[str] | None = None,
        hosts: Mapping[str, str] | None = None,
        resolver: Any = None,
        more: Sequence[str] = (),
        **rules: Any,
    ) -> Plugin:
        spec = make_spec(*(f"network:{each}" for each in network), *more, libraries=_libraries())
        process = loop.run(client_zygote.start(spec))
        plugin = Plugin(prober_of(client_zygote, process), None, [])  # type: ignore[arg-type]
        plugins.append(plugin)

        async def open_relay() -> Relay:
            gateways.append(Gateway(resolver=resolver or Names()))
            listeners, process.listeners = process.listeners, []
            described = EgressRules(
                plugin="hostile",
                instance="hostile",
                endpoints=tuple(map(parse_endpoint, network)),
                granted=tuple(map(parse_endpoint, network if grants is None else grants)),
                hosts=hosts or {},
                **rules,
            )
            return gateways[-1].open(described, listeners, plugin.tell)

        plugin.relay = loop.run(open_relay())
        return plugin

    yield begin
    for plugin in plugins:
        loop.run(plugin.relay.aclose())
        plugin.prober.close()
    for gateway in gateways:
        gateway.close()


@pytest.fixture(scope="module")
def trust(authority: Authority) -> str:
    return authority.ca_pem.decode()


# what is granted is reached -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("client", CLIENTS)
def test_a_granted_server_is_reached_by_every_client_and_its_neighbour_by_none(
    start: Start, web: WebServer, secure: WebServer, trust: str, client: str
) -> None:
    other = EchoServer()
    plain, tls = f"127.0.0.1:{web.server_port}", f"api.test:{secure.server_port}"
    named = f"plain.test:{web.server_port}"
    plugin = start(plain, tls, named, more=(CURL,), hosts={"api.test": "127.0.0.1", "plain.test": "127.0.0.1"})
    assert plugin.attempt(client, f"http://{plain}/literal") == {"value": "you asked for /literal"}
    assert plugin.attempt(client, f"http://{named}/name") == {"value": "you asked for /name"}
    assert plugin.attempt(client, f"https://{tls}/tls", trust) == {"value": "you asked for /tls"}
    for elsewhere in (
        f"127.0.0.1:{other.port}",
        f"localhost:{other.port}",
        f"api.test:{web.server_port}",
        "example.com",
    ):
        assert "error" in plugin.attempt(client, f"http://{elsewhere}/"), elsewhere
    assert other.connections == 0
    other.stop()


@pytest.mark.parametrize("client", CLIENTS)
def test_localhost_and_ipv6_are_reached_where_they_are_granted(start: Start, client: str) -> None:
    try:
        six = WebServer("::1")
    except OSError:
        pytest.skip("this machine has no IPv6")
    plugin = start(f"[::1]:{six.server_port}", more=(CURL,))
    assert plugin.attempt(client, f"http://[::1]:{six.server_port}/six") == {"value": "you asked for /six"}
    six.stop()


def test_localhost_is_the_hosts_own(start: Start, web: WebServer) -> None:
    plugin = start(f"localhost:{web.server_port}")
    assert plugin.attempt("with_urllib", f"http://localhost:{web.server_port}/") == {"value": "you asked for /"}
    assert plugin.attempt("with_urllib", f"http://127.0.0.1:{web.server_port}/") == {"value": "you asked for /"}


def test_low_ports_and_foreign_addresses_are_listened_on_as_they_are(start: Start) -> None:
    """Nothing of the test's answers at them: what is seen is that the relay was asked, and for which address."""
    plugin = start("203.0.113.7:80", "[2001:db8::7]:443", grants=["198.51.100.0/24:*"])
    for host, port in (("203.0.113.7", 80), ("2001:db8::7", 443)):
        assert plugin.attempt("say", host, port, "hello") == {"value": "[reset]"}
    assert "documentation address that no grant names" in plugin.event(Verdict.REFUSED, "203.0.113.7:80").reason
    assert "documentation address that no grant names" in plugin.event(Verdict.REFUSED, "[2001:db8::7]:443").reason


def test_both_directions_end_by_themselves(start: Start, echo: EchoServer) -> None:
    plugin = start(f"127.0.0.1:{echo.port}")
    assert plugin.attempt("exchange", "127.0.0.1", echo.port, 3_000_000) == {"value": 3_000_000}


def test_the_counts_agree_with_the_servers_own(start: Start, echo: EchoServer) -> None:
    grant = f"127.0.0.1:{echo.port}"
    plugin = start(grant)
    for size in (0, 1, 70_000, 1_000_000):
        plugin.attempt("exchange", "127.0.0.1", echo.port, size)
    plugin.event(Verdict.CLOSED, grant)
    count = plugin.counts(grant)
    assert (count.bytes_up, count.bytes_down) == (echo.received, echo.sent) == (1_070_001, 1_070_001)
    assert count.connections == echo.connections == 4


def test_the_report_says_how_many_endpoints_there_are(start: Start, enter: Any) -> None:
    granted = start("127.0.0.1:9", "api.test:9").prober.report
    assert granted.status("egress") is LayerStatus.ENFORCED
    assert next(layer.detail for layer in granted.layers if layer.name == "egress") == "2 of 2 listeners"
    assert enter().report.status("egress") is LayerStatus.OFF


# and nothing else ---------------------------------------------------------------------------------------------------


def test_the_plugin_holds_no_listener_and_cannot_make_one(start: Start, web: WebServer, machine: Any) -> None:
    plugin = start(f"127.0.0.1:{web.server_port}", f"api.test:{web.server_port}")
    held = plugin.attempt("descriptors")["value"]
    # The wire of this process and of its parent, which are Unix sockets; a listener would be one more.
    assert sum(name.startswith("socket:") for name in held) <= 2
    assert plugin.attempt("bind_and_listen", "127.0.0.1", web.server_port)["error"] in ("EADDRINUSE", "EACCES")
    if machine.landlock_abi >= 4:
        assert plugin.attempt("bind_and_listen", "127.0.0.1", 4444) == {"error": "EACCES"}


def test_a_name_that_resolves_to_private_space_is_refused_and_told(start: Start, web: WebServer) -> None:
    names = Names(
        inside_test=[("127.0.0.1",)], metadata_test=[("169.254.169.254",)], mixed_test=[("192.0.9.9", "10.0.0.1")]
    )
    endpoints = [f"{name}.test:{web.server_port}" for name in ("inside", "metadata", "mixed")]
    plugin = start(*endpoints, resolver=names)
    before = len(web.requests)
    for endpoint in endpoints:
        assert "error" in plugin.attempt("with_urllib", f"http://{endpoint}/")
    assert len(web.requests) == before
    told = [plugin.event(Verdict.REFUSED, endpoint).reason for endpoint in endpoints]
    assert told == [
        "inside.test is 127.0.0.1, a loopback address that no grant names",
        "metadata.test is 169.254.169.254, a link-local address that no grant names",
        "mixed.test is 10.0.0.1, a private address that no grant names",
    ]
    assert plugin.counts(endpoints[0]).refused == 1


def test_a_grant_of_the_address_opens_it_to_the_name(start: Start, web: WebServer) -> None:
    names = Names(inside_test=[("127.0.0.1",)])
    endpoint = f"inside.test:{web.server_port}"
    open_to_it = start(endpoint, grants=[endpoint, f"127.0.0.0/8:{web.server_port}"], resolver=names)
    assert open_to_it.attempt("with_urllib", f"http://{endpoint}/x") == {"value": "you asked for /x"}
    too_wide = start(endpoint, grants=[endpoint, "0.0.0.0/0:*", "*:*"], resolver=names)
    assert "error" in too_wide.attempt("with_urllib", f"http://{endpoint}/x")


def test_the_address_that_was_checked_is_the_one_that_is_dialled(start: Start, web: WebServer) -> None:
    """A name server that changes its answer between the check and the connection is asked once only."""
    other = EchoServer()
    names = Names(turning_test=[("127.0.0.1",), ("127.0.0.2",)])
    endpoint = f"turning.test:{web.server_port}"
    plugin = start(endpoint, grants=[endpoint, f"127.0.0.1:{web.server_port}"], resolver=names)
    assert plugin.attempt("with_urllib", f"http://{endpoint}/") == {"value": "you asked for /"}
    assert names.asked == ["turning.test"]
    assert "error" in plugin.attempt("with_urllib", f"http://{endpoint}/")
    assert "127.0.0.2, a loopback address" in plugin.event(Verdict.REFUSED, endpoint).reason
    other.stop()


def test_the_next_address_is_tried_where_the_first_does_not_answer(start: Start, web: WebServer) -> None:
    names = Names(twice_test=[("127.0.0.9", "127.0.0.1")])
    endpoint = f"twice.test:{web.server_port}"
    plugin = start(endpoint, grants=[endpoint, "127.0.0.0/8:*"], resolver=names)
    assert plugin.attempt("with_urllib", f"http://{endpoint}/") == {"value": "you asked for /"}
    assert plugin.event(Verdict.CONNECTED, endpoint).address == "127.0.0.1"


# bounds -------------------------------------------------------------------------------------------------------------


def test_connections_beyond_the_limit_are_refused_and_the_others_go_on(start: Start, echo: EchoServer) -> None:
    grant = f"127.0.0.1:{echo.port}"
    plugin = start(grant, connections_max=5)
    assert plugin.attempt("open_many", "127.0.0.1", echo.port, 9) == {"value": 5}
    assert plugin.counts(grant).refused == 4
    assert "5 connections are open" in plugin.event(Verdict.REFUSED, grant).reason
    assert plugin.attempt("exchange", "127.0.0.1", echo.port, 10) == {"value": 10}


def test_bandwidth_is_held_to_its_cap_in_both_directions(start: Start, echo: EchoServer) -> None:
    rate, size = 400_000, 600_000
    plugin = start(f"127.0.0.1:{echo.port}", bytes_per_s=rate)
    began_s = time.monotonic()
    assert plugin.attempt("exchange", "127.0.0.1", echo.port, size) == {"value": size}
    took_s = time.monotonic() - began_s
    # A quarter of a second's worth may go at once; a slow machine only takes longer.
    assert took_s >= (size - rate / 4) / rate * 0.95


def test_a_connection_without_traffic_is_closed_after_a_while(start: Start, echo: EchoServer) -> None:
    grant = f"127.0.0.1:{echo.port}"
    plugin = start(grant, idle_timeout_s=0.2)
    assert plugin.attempt("say", "127.0.0.1", echo.port, "hello") == {"value": "hello[reset]"}
    assert "no byte for 0.2 s" in plugin.event(Verdict.FAILED, grant).reason


def test_an_endpoint_that_cannot_be_reached_is_a_reset_and_told(start: Start) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        plugin = start(f"127.0.0.1:{port}")
        assert plugin.attempt("say", "127.0.0.1", port, "hello") == {"value": "[reset]"}
        assert "127.0.0.1: Connection refused" in plugin.event(Verdict.FAILED, f"127.0.0.1:{port}").reason


def test_without_its_relay_a_plugin_reaches_nothing(start: Start, loop: Any, web: WebServer) -> None:
    plugin = start(f"127.0.0.1:{web.server_port}")
    assert plugin.attempt("with_urllib", f"http://127.0.0.1:{web.server_port}/") == {"value": "you asked for /"}
    loop.run(plugin.relay.aclose())
    assert "error" in plugin.attempt("with_urllib", f"http://127.0.0.1:{web.server_port}/")


# the proxy ----------------------------------------------------------------------------------------------------------

PROXY = ("127.100.0.1", 3128)


@pytest.mark.parametrize("client", CLIENTS[:-1])
def test_a_wildcard_is_reached_by_every_client_through_the_proxy(
    start: Start, web: WebServer, secure: WebServer, trust: str, client: str
) -> None:
    names = {"www.plain.test": "127.0.0.1", "api.test": "127.0.0.1", "plain.test": "127.0.0.1"}
    plugin = start(
        f"*.plain.test:{web.server_port}", f"*.test:{secure.server_port}", f"127.0.0.1:{web.server_port}",
        more=(CURL,), hosts=names,
    )  # fmt: skip
    plain, tls = f"www.plain.test:{web.server_port}", f"api.test:{secure.server_port}"
    assert plugin.attempt(client, f"http://{plain}/a?b=c") == {"value": "you asked for /a?b=c"}
    assert plugin.attempt(client, f"https://{tls}/tls", trust) == {"value": "you asked for /tls"}
    assert plugin.attempt(client, f"http://127.0.0.1:{web.server_port}/") == {"value": "you asked for /"}
    refused = plugin.attempt(client, f"http://plain.test:{web.server_port}/")
    assert "you asked" not in refused.get("value", "")
    endpoint = f"plain.test:{web.server_port}"
    assert plugin.event(Verdict.REFUSED, endpoint).reason == f"network access to {endpoint} is not granted"
    assert plugin.counts(f"*.plain.test:{web.server_port}").connections >= 1


def test_the_proxy_says_what_is_not_granted_in_one_sentence(start: Start, web: WebServer) -> None:
    names = Names(inside_any_test=[("10.0.0.1",)])
    plugin = start("*.any.test:443", "10.0.0.0/8:443", grants=["*.any.test:443"], resolver=names)
    answers = {
        "CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n": "403 Forbidden",
        f"GET http://127.0.0.1:{web.server_port}/ HTTP/1.1\r\nHost: x\r\n\r\n": "403 Forbidden",
        "CONNECT inside.any.test:443 HTTP/1.1\r\nHost: x\r\n\r\n": "403 Forbidden",
        "CONNECT 10.1.1.1:443 HTTP/1.1\r\nHost: x\r\n\r\n": "403 Forbidden",
        "CONNECT gone.any.test:443 HTTP/1.1\r\nHost: x\r\n\r\n": "502 Bad Gateway",
        "CONNECT *.any.test:443 HTTP/1.1\r\nHost: x\r\n\r\n": "403 Forbidden",
        "GET / HTTP/1.1\r\nHost: inside.any.test\r\n\r\n": "400 Bad Request",
        "hello\r\n\r\n": "400 Bad Request",
        "GET http://u:p@inside.any.test:443/ HTTP/1.1\r\nHost: x\r\n\r\n": "400 Bad Request",
    }
    for request, status in answers.items():
        answer = plugin.attempt("say", *PROXY, request)["value"]
        head, _, sentence = answer.partition("\r\n\r\n")
        assert head.startswith(f"HTTP/1.1 {status}"), (request, answer)
        assert sentence.endswith("\n")
        assert sentence.count("\n") == 1
    assert "is not granted" in plugin.attempt("say", *PROXY, next(iter(answers)))["value"]
    assert "a private address that no grant names" in plugin.event(Verdict.REFUSED, "inside.any.test:443").reason


def test_a_head_without_an_end_is_closed(start: Start) -> None:
    plugin = start("*.any.test:443")
    answer = plugin.attempt("say", *PROXY, "GET http://a.any.test/ HTTP/1.1\r\nX: " + "x" * 200_000)["value"]
    assert answer.startswith("HTTP/1.1 400") or answer == "[reset]"
    assert "longer than" in plugin.event(Verdict.REFUSED, "").reason


def test_a_body_goes_through_the_proxy_both_ways(start: Start, web: WebServer) -> None:
    plugin = start(f"*.plain.test:{web.server_port}", hosts={"www.plain.test": "127.0.0.1"})
    url = f"http://www.plain.test:{web.server_port}/upload"
    status, _, text = plugin.attempt("post", url, "z" * 300_000, {"Host": "elsewhere.test", "X-Own": "kept"})["value"]
    assert (status, text) == (200, "you asked for /upload")
    method, path, headers, body = web.requests[-1]
    assert (method, path, len(body)) == ("POST", "/upload", 300_000)
    assert headers["host"] == f"www.plain.test:{web.server_port}"
    assert headers["x-own"] == "kept"
