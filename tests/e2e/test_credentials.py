"""Secrets and credentials over a whole manager: who gets them, who never does, and what the server sees."""

from __future__ import annotations

import http.server
import json
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cardcage import PluginManager, Refused
from cardcage.audit import Action, MemoryAuditor
from cardcage.launch.oci_runtimes import installed_runtimes
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.hypervisor import find_hypervisor
from cardcage.sandbox.plan import STRICT_FLOOR
from cardcage.trust.authority import Authority

WritePlugin = Callable[..., Path]
SECRET = "s3cr3t-value-of-the-token"

FETCHER = """
    import json
    import os
    import socket
    import ssl
    import urllib.error
    import urllib.request

    from cardcage_sdk import Plugin


    HELD = "known to the plugin"

    class Main(Plugin):
        def fetch(self, url, headers=None, body=None, method=None):
            data = None if body is None else body.encode()
            request = urllib.request.Request(url, data=data, headers=headers or {}, method=method)
            try:
                with urllib.request.urlopen(request, timeout=20) as answer:
                    return [answer.status, answer.read().decode()]
            except urllib.error.HTTPError as error:
                return [error.code, error.read().decode()]

        def raw(self, host, port, text):
            with socket.create_connection((host, port), timeout=20) as sock:
                sock.sendall(text.encode())
                received = b""
                while part := sock.recv(65536):
                    received += part
            return received.decode("latin-1")

        def certificate(self, host, port):
            with socket.create_connection((host, port), timeout=20) as sock:
                with ssl.create_default_context().wrap_socket(sock, server_hostname=host) as tls:
                    return dict(item[0] for item in tls.getpeercert()["issuer"])["commonName"]

        def secrets(self):
            return self.context.secrets

        def told(self):
            return repr(self.context)

        def remembers(self, first, second):
            # In two parts, which are put together nowhere, so that the search does not find itself.
            first, second = first.encode(), second.encode()
            places = []
            with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
                for line in maps:
                    span, rights, *rest = line.split()
                    if not rights.startswith("r") or (rest and rest[-1].startswith("[v")):
                        continue
                    low, high = (int(number, 16) for number in span.split("-"))
                    try:
                        memory.seek(low)
                        block = memory.read(high - low)
                    except (OSError, ValueError, OverflowError):
                        continue
                    found = block.find(first)
                    while found >= 0:
                        if block.startswith(second, found + len(first)):
                            places.append(line.strip())
                            break
                        found = block.find(first, found + 1)
            return places
"""


class Mirror(http.server.BaseHTTPRequestHandler):
    """Tells what it was sent, except for the values of credentials; those are kept for the test alone."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        self.server.seen.append((self.command, self.path, self.headers.items(), body))  # type: ignore[attr-defined]
        text = json.dumps({"path": self.path, "headers": sorted(name.lower() for name in self.headers)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, context: ssl.SSLContext | None) -> None:
        super().__init__(("127.0.0.1", 0), Mirror)
        self.seen: list[tuple[str, str, list[tuple[str, str]], bytes]] = []
        if context is not None:
            self.socket = context.wrap_socket(self.socket, server_side=True)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def headers(self, name: str) -> list[str]:
        """The values of one header in the last request."""
        return [value for key, value in self.seen[-1][2] if key.lower() == name]

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


@pytest.fixture(scope="module", autouse=True)
def walls() -> None:
    if missing := examine().below(STRICT_FLOOR):
        pytest.skip(f"walls cannot be put up here: {', '.join(f'{layer.name}: {layer.detail}' for layer in missing)}")


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Server, Server]]:
    """The certificates that servers are checked by, a server that has a good one, and one for another name."""
    folder = tmp_path_factory.mktemp("outside")
    folder.chmod(0o700)
    authority = Authority.open(folder)
    ca_file = folder / "ca.pem"
    ca_file.write_bytes(authority.ca_pem)
    servers: list[Server] = []
    for name in ("api.test", "elsewhere.test"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue(name, server=True, client=False).load_into(context)
        servers.append(Server(context))
    yield ca_file, servers[0], servers[1]
    for server in servers:
        server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The operator's folder of secrets."""
    place = tmp_path / "secrets"
    place.mkdir(mode=0o700)
    for name, value in (("API_TOKEN", SECRET), ("PASSWORD", "open sesame")):
        file = place / name
        file.touch(mode=0o600)
        file.write_text(f"{value}\n")
    return place


class Opened:
    """What a test's manager is made of."""

    def __init__(self, plugins: Path, state: Path, folder: Path, ca_file: Path) -> None:
        self._paths = plugins, state
        self._base: dict[str, Any] = {
            "secrets": {"folder": str(folder)},
            "network": {
                "ca_file": str(ca_file),
                "hosts": {"api.test": "127.0.0.1", "wrong.test": "127.0.0.1", "www.star.test": "127.0.0.1"},
            },
        }
        self.auditor = MemoryAuditor()

    def manager(self, plugin: str, *, credentials: list[Any], grants: list[str], **settings: Any) -> PluginManager:
        entry = {"enabled": True, "credentials": credentials, "grants": grants}
        return PluginManager(
            {**self._base, "plugins": {plugin: entry}, **settings},
            plugin_paths=[self._paths[0]],
            state_dir=self._paths[1],
            audit=self.auditor,
        )


@pytest.fixture
def opened(plugins_dir: Path, state_dir: Path, folder: Path, outside: tuple[Path, Server, Server]) -> Opened:
    return Opened(plugins_dir, state_dir, folder, outside[0])


def asks(*permissions: str) -> dict[str, Any]:
    return {"permissions": list(permissions)}


# secrets by name ----------------------------------------------------------------------------------------------------


async def test_a_granted_secret_is_in_the_context_and_nowhere_in_its_text(
    write_plugin: WritePlugin, opened: Opened
) -> None:
    write_plugin("keeper", FETCHER, manifest=asks("secret:API_TOKEN"))
    async with opened.manager("keeper", credentials=[], grants=["secret:API_TOKEN", "secret:PASSWORD"]) as manager:
        assert not manager.problems()
        assert await manager.call("keeper", "secrets") == {"API_TOKEN": SECRET}
        assert SECRET not in await manager.call("keeper", "told")
        assert SECRET not in json.dumps(manager.plan("keeper").to_json())
    (handed,) = opened.auditor.of(Action.SECRET_HANDED)
    assert handed.fields["secret"] == "API_TOKEN"
    assert all(SECRET not in repr(event) for event in opened.auditor.events)


async def test_a_secret_that_was_not_granted_is_not_handed_over(write_plugin: WritePlugin, opened: Opened) -> None:
    write_plugin("keeper", FETCHER, manifest={"permissions": {"secrets": [{"value": "API_TOKEN", "optional": True}]}})
    async with opened.manager("keeper", credentials=[], grants=[]) as manager:
        assert await manager.call("keeper", "secrets") == {}
        assert await manager.call("keeper", "remembers", SECRET[:9], SECRET[9:]) == []


async def test_a_missing_secret_refuses_the_start_and_says_where_it_was_looked_for(
    write_plugin: WritePlugin, opened: Opened, folder: Path
) -> None:
    write_plugin("keeper", FETCHER, manifest=asks("secret:ABSENT"))
    async with opened.manager("keeper", credentials=[], grants=["secret:ABSENT"]) as manager:
        (problem,) = manager.problems()
        assert problem.error.code == "secret_missing"
        assert problem.error.message == (
            f'plugin "keeper" 1.0.0 was not started: secret ABSENT cannot be given: it is not in the folder {folder}'
        )


async def test_an_optional_secret_that_is_missing_is_left_out(write_plugin: WritePlugin, opened: Opened) -> None:
    write_plugin("keeper", FETCHER, manifest={"permissions": {"secrets": [{"value": "ABSENT", "optional": True}]}})
    async with opened.manager("keeper", credentials=[], grants=["secret:ABSENT"]) as manager:
        assert not manager.problems()
        assert await manager.call("keeper", "secrets") == {}


async def test_a_secret_that_others_can_read_is_refused(
    write_plugin: WritePlugin, opened: Opened, folder: Path
) -> None:
    (folder / "API_TOKEN").chmod(0o644)
    write_plugin("keeper", FETCHER, manifest=asks("secret:API_TOKEN"))
    async with opened.manager("keeper", credentials=[], grants=["secret:API_TOKEN"]) as manager:
        (problem,) = manager.problems()
        assert problem.error.code == "secret_unsafe"
        assert problem.error.hint == f"chmod 600 {folder / 'API_TOKEN'}"


async def test_a_secret_may_be_a_variable_of_the_host_that_the_operator_names(
    write_plugin: WritePlugin, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST_SIDE_NAME", SECRET)
    write_plugin("keeper", FETCHER, manifest=asks("secret:API_TOKEN"))
    secrets = {"environment": {"API_TOKEN": "HOST_SIDE_NAME"}}
    async with opened.manager("keeper", credentials=[], grants=["secret:API_TOKEN"], secrets=secrets) as manager:
        assert await manager.call("keeper", "secrets") == {"API_TOKEN": SECRET}
    monkeypatch.delenv("HOST_SIDE_NAME")
    async with opened.manager("keeper", credentials=[], grants=["secret:API_TOKEN"], secrets=secrets) as manager:
        assert "the variable HOST_SIDE_NAME of the host's environment is not set" in str(manager.problems()[0])


# credentials --------------------------------------------------------------------------------------------------------


async def test_the_server_gets_the_credential_and_the_plugin_never_holds_it(
    write_plugin: WritePlugin, opened: Opened, outside: tuple[Path, Server, Server]
) -> None:
    server = outside[1]
    endpoint = f"api.test:{server.server_port}"
    write_plugin("caller", FETCHER, manifest={"permissions": {"network": [endpoint]}})
    credentials = [{"endpoint": endpoint, "bearer": "API_TOKEN"}]
    async with opened.manager("caller", credentials=credentials, grants=[f"network:{endpoint}"]) as manager:
        assert not manager.problems()
        own = {"authorization": "Bearer mine", "X-Other": "kept"}
        for url in (f"https://{endpoint}/a?b=c", f"http://{endpoint}/a?b=c", "http://api.test/a?b=c"):
            status, text = await manager.call("caller", "fetch", url, own)
            assert (status, json.loads(text)["path"]) == (200, "/a?b=c"), url
            assert server.headers("authorization") == [f"Bearer {SECRET}"]
            assert server.headers("x-other") == ["kept"]
            assert server.headers("host") == [endpoint]
        body = "z" * 200_000
        assert (await manager.call("caller", "fetch", f"https://{endpoint}/up", {}, body))[0] == 200
        assert server.seen[-1][3] == body.encode()
        # The search finds what the plugin does hold, and does not find the secret.
        assert await manager.call("caller", "remembers", "known to ", "the plugin")
        assert await manager.call("caller", "remembers", SECRET[:9], SECRET[9:]) == []
        counts = manager.egress("caller")[0]
        assert counts.connections >= 4
        assert all(SECRET not in line.text for line in manager.logs("caller"))
    used = opened.auditor.of(Action.CREDENTIAL_USED)
    assert {(event.fields["secret"], event.fields["endpoint"]) for event in used} == {("API_TOKEN", endpoint)}
    assert all(SECRET not in repr(event) for event in opened.auditor.events)


async def test_the_plugin_trusts_the_hosts_authority_for_that_endpoint_and_the_systems_for_others(
    write_plugin: WritePlugin, opened: Opened, outside: tuple[Path, Server, Server], state_dir: Path
) -> None:
    endpoint = f"api.test:{outside[1].server_port}"
    write_plugin("caller", FETCHER, manifest={"permissions": {"network": [endpoint]}})
    credentials = [{"endpoint": endpoint, "bearer": "API_TOKEN"}]
    async with opened.manager("caller", credentials=credentials, grants=[f"network:{endpoint}"]) as manager:
        assert (await manager.call("caller", "certificate", "api.test", outside[1].server_port)).startswith("Cardcage ")
        assert manager.plan("caller").environment["SSL_CERT_FILE"] == "/cardcage/trust.pem"
    system = Path("/etc/ssl/certs/ca-certificates.crt")
    if system.exists():
        assert system.read_bytes() in (state_dir / "trust" / "bundle.pem").read_bytes()


async def test_a_server_with_a_wrong_certificate_gets_nothing(
    write_plugin: WritePlugin, opened: Opened, outside: tuple[Path, Server, Server]
) -> None:
    server = outside[2]
    endpoint = f"wrong.test:{server.server_port}"
    write_plugin("caller", FETCHER, manifest={"permissions": {"network": [endpoint]}})
    credentials = [{"endpoint": endpoint, "bearer": "API_TOKEN"}]
    async with opened.manager("caller", credentials=credentials, grants=[f"network:{endpoint}"]) as manager:
        status, text = await manager.call("caller", "fetch", f"http://{endpoint}/")
        assert status == 502
        assert text.startswith(f"{endpoint} shows a certificate that is not good: Hostname mismatch")
    assert server.seen == []


async def test_what_would_show_or_misplace_the_credential_is_not_passed_on(
    write_plugin: WritePlugin, opened: Opened, outside: tuple[Path, Server, Server]
) -> None:
    server = outside[1]
    endpoint = f"api.test:{server.server_port}"
    write_plugin("caller", FETCHER, manifest={"permissions": {"network": [endpoint]}})
    credentials = [{"endpoint": endpoint, "header": "X-Api-Key", "format": "key {secret}", "secret": "API_TOKEN"}]
    async with opened.manager("caller", credentials=credentials, grants=[f"network:{endpoint}"]) as manager:
        before = len(server.seen)
        for request, status in (
            ("TRACE / HTTP/1.1\r\nHost: x\r\n\r\n", 405),
            ("GET http://other.test/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
            ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
            ("nonsense\r\n\r\n", 400),
        ):
            answer = await manager.call("caller", "raw", "api.test", server.server_port, request)
            assert answer.startswith(f"HTTP/1.1 {status} "), (request, answer)
        assert len(server.seen) == before
        own = {"X_Api_Key": "mine", "x-api-key": "mine", "Host": "other.test", "Connection": "X-Api-Key"}
        assert (await manager.call("caller", "fetch", f"http://{endpoint}/", own))[0] == 200
        assert server.headers("x-api-key") == [f"key {SECRET}"]
        assert server.headers("x_api_key") == []
        assert server.headers("host") == [endpoint]


async def test_basic_authentication_is_added_through_the_proxy_as_well(
    write_plugin: WritePlugin, opened: Opened, outside: tuple[Path, Server, Server]
) -> None:
    """The endpoint is granted by a pattern only, so that clients come to it by CONNECT."""
    plain = Server(None)
    endpoint = f"www.star.test:{plain.server_port}"
    pattern = f"*.star.test:{plain.server_port}"
    write_plugin("caller", FETCHER, manifest={"permissions": {"network": [pattern]}})
    credentials = [{"endpoint": endpoint, "basic": {"user": "ada", "password": "PASSWORD"}, "tls": False}]
    async with opened.manager("caller", credentials=credentials, grants=[f"network:{pattern}"]) as manager:
        assert not manager.problems()
        status, _ = await manager.call("caller", "fetch", f"https://{endpoint}/x")
        assert status == 200
        assert plain.headers("authorization") == ["Basic YWRhOm9wZW4gc2VzYW1l"]
    plain.stop()


async def test_a_credential_whose_secret_is_missing_refuses_the_start(
    write_plugin: WritePlugin, opened: Opened
) -> None:
    write_plugin("caller", FETCHER, manifest={"permissions": {"network": ["api.test:443"]}})
    credentials = [{"endpoint": "api.test:443", "bearer": "ABSENT"}]
    async with opened.manager("caller", credentials=credentials, grants=["network:api.test:443"]) as manager:
        assert manager.problems()[0].error.code == "secret_missing"


async def test_a_credential_cannot_be_added_without_walls(write_plugin: WritePlugin, opened: Opened) -> None:
    write_plugin("caller", FETCHER, manifest={"permissions": {"network": ["api.test:443"]}})
    manager = opened.manager(
        "caller",
        credentials=[],
        grants=[],
        plugins={
            "caller": {
                "enabled": False,
                "isolation": "unconfined",
                "grants": ["network:api.test:443"],
                "credentials": [{"endpoint": "api.test:443", "bearer": "API_TOKEN"}],
            }
        },
    )
    async with manager:
        with pytest.raises(Refused) as refused:
            await manager.load_plugin("caller")
        assert refused.value.code in ("credential_impossible", "policy_denied", "isolation_refused")


@pytest.mark.parametrize("isolation", ["container", "vm"])
async def test_behind_every_kind_of_wall_the_secret_is_handed_over_and_the_credential_is_not(
    isolation: str, write_plugin: WritePlugin, opened: Opened, outside: tuple[Path, Server, Server]
) -> None:
    _needs(isolation)
    server = outside[1]
    endpoint = f"api.test:{server.server_port}"
    asked = {"network": [endpoint], "secrets": ["PASSWORD"]}
    write_plugin("caller", FETCHER, manifest={"isolation": isolation, "permissions": asked})
    credentials = [{"endpoint": endpoint, "bearer": "API_TOKEN"}]
    grants = [f"network:{endpoint}", "secret:PASSWORD"]
    async with opened.manager("caller", credentials=credentials, grants=grants) as manager:
        assert not manager.problems()
        assert manager.plan("caller").isolation == isolation
        assert await manager.call("caller", "secrets") == {"PASSWORD": "open sesame"}
        for url in (f"https://{endpoint}/a", f"http://{endpoint}/a", "http://api.test/a"):
            status, text = await manager.call("caller", "fetch", url, {"authorization": "Bearer mine"})
            assert (status, json.loads(text)["path"]) == (200, "/a"), url
            assert server.headers("authorization") == [f"Bearer {SECRET}"]
        assert await manager.call("caller", "remembers", "open se", "same")
        assert await manager.call("caller", "remembers", SECRET[:9], SECRET[9:]) == []
    assert [event.fields["secret"] for event in opened.auditor.of(Action.SECRET_HANDED)] == ["PASSWORD"]
    assert {event.fields["secret"] for event in opened.auditor.of(Action.CREDENTIAL_USED)} == {"API_TOKEN"}


def _needs(isolation: str) -> None:
    if isolation == "container" and not installed_runtimes():
        pytest.skip("no OCI runtime is installed: crun")
    if isolation == "vm":
        try:
            find_hypervisor()
        except Refused as error:
            pytest.skip(f"no virtual machine can be started here: {error.message}")


# AWS ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Iterator[int]:
    """A server of AWS's interfaces that checks signatures; the keys of its one user are in the folder of secrets."""
    import botocore.session  # pyright: ignore[reportMissingTypeStubs]
    from moto import settings
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    session: Any = botocore.session.Session()
    iam = session.create_client(
        "iam",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{port}",
        aws_access_key_id="anyone",
        aws_secret_access_key="anything",
    )
    iam.create_user(UserName=f"ada-{port}")
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName=f"ada-{port}", PolicyName="all", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=f"ada-{port}")["AccessKey"]
    for name, value in (("AWS_ID", key["AccessKeyId"]), ("AWS_KEY", key["SecretAccessKey"])):
        (folder / name).touch(mode=0o600)
        (folder / name).write_text(value)
    monkeypatch.setattr(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)
    yield port
    server.stop()


@pytest.mark.parametrize("wrong", [False, True])
async def test_a_request_is_signed_for_aws_and_the_server_finds_the_signature_right(
    write_plugin: WritePlugin, opened: Opened, aws: int, folder: Path, wrong: bool
) -> None:
    if wrong:
        (folder / "AWS_KEY").write_text("not the key")
    endpoint = f"api.test:{aws}"
    write_plugin("caller", FETCHER, manifest={"permissions": {"network": [endpoint]}})
    keys = {"region": "us-east-1", "service": "ec2", "access_key": "AWS_ID", "secret_key": "AWS_KEY"}
    credentials = [{"endpoint": endpoint, "aws": keys, "tls": False}]
    form = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    body = "Action=DescribeRegions&Version=2016-11-15"
    async with opened.manager("caller", credentials=credentials, grants=[f"network:{endpoint}"]) as manager:
        assert not manager.problems()
        own = {**form, "Authorization": "AWS4-HMAC-SHA256 of its own", "X-Amz-Date": "20200101T000000Z"}
        status, text = await manager.call("caller", "fetch", f"https://{endpoint}/", own, body)
        if wrong:
            assert (status, "AuthFailure" in text) == (401, True), text
        else:
            assert (status, "DescribeRegionsResponse" in text) == (200, True), text


async def test_an_object_is_stored_under_a_signature_without_its_body_being_held(
    write_plugin: WritePlugin, opened: Opened, aws: int
) -> None:
    endpoint = f"localhost:{aws}"  # a name that the object store does not take for a bucket's
    write_plugin("caller", FETCHER, manifest={"permissions": {"network": [endpoint]}})
    keys = {"region": "us-east-1", "service": "s3", "access_key": "AWS_ID", "secret_key": "AWS_KEY"}
    credentials = [{"endpoint": endpoint, "aws": keys, "tls": False}]
    async with opened.manager("caller", credentials=credentials, grants=[f"network:{endpoint}"]) as manager:
        assert not manager.problems()
        bucket = f"http://{endpoint}/bucket-{aws}"
        assert (await manager.call("caller", "fetch", bucket, {}, None, "PUT"))[0] == 200
        own, body = {"Content-Type": "text/csv"}, "cost,2026\n" * 10_000
        stored = await manager.call("caller", "fetch", f"{bucket}/a%20b/c+d.csv", own, body, "PUT")
        assert stored[0] == 200, stored
        assert await manager.call("caller", "fetch", f"{bucket}/a%20b/c+d.csv") == [200, body]
        listed = await manager.call("caller", "fetch", f"{bucket}?list-type=2&prefix=a%20b%2F")
        assert "<Key>a b/c+d.csv</Key>" in listed[1]
