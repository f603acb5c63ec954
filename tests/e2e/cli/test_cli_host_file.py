"""The host configuration that commands take from the state folder."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

KEEPER = """
from cardcage_sdk import Plugin


class Main(Plugin):
    def secrets(self) -> dict:
        return self.context.secrets
"""
CONNECTS = """
import socket


class Main:
    port = PORT

    def start(self):
        with socket.create_connection(("127.0.0.1", self.port)) as sock:
            sock.sendall(b"hello")
            while sock.recv(100):
                pass
"""
MANIFEST = "permissions:\n  secrets: [TOKEN]\n"
CALLER = "permissions:\n  network: [{0}]\n"


@pytest.fixture
def host_file(cli: Any) -> Path:
    cli.home.mkdir(mode=0o700)
    return cli.home / "host.yaml"


def test_a_secret_comes_from_where_the_host_file_says(cli: Any, host_file: Path) -> None:
    cli("plugins", "register", cli.plugin("keeper", KEEPER, manifest=MANIFEST))
    call = ("plugin", "call", "keeper", "secrets", "--grant", "secret:TOKEN", "--json")
    missing = cli(*call)
    assert (missing.code, missing.error["code"]) == (3, "secret_missing")
    host_file.write_text("secrets: {environment: {TOKEN: MY_TOKEN}}\nplugin_paths: [/nowhere]\n")
    host_file.chmod(0o600)
    found = cli(*call, env={"MY_TOKEN": "from the shell"})
    assert found.code == 0, found.err
    assert "from the shell" in found.out


def test_a_host_file_that_others_can_write_is_refused(cli: Any, host_file: Path) -> None:
    cli("plugins", "register", cli.plugin("keeper", KEEPER, manifest=MANIFEST))
    host_file.write_text("{}")
    host_file.chmod(0o666)
    refused = cli("plugin", "list")
    assert refused.code != 0
    assert "may be written by others" in refused.err
    assert f"chmod go-w {host_file}" in refused.err


@pytest.mark.parametrize("text", ["- a list\n", "secrets: {environment: {a b: c}}\n", "surprise: 1\n", "a: [\n"])
def test_a_host_file_that_is_not_valid_is_told_of_without_a_traceback(cli: Any, host_file: Path, text: str) -> None:
    host_file.write_text(text)
    refused = cli("plugin", "list")
    assert refused.code != 0
    assert "not valid" in refused.err
    assert "Traceback" not in refused.err


def test_the_plan_shows_what_can_be_connected_to(cli: Any, host_file: Path) -> None:
    endpoints = ("api.test:443", "*.wide.test:443")
    cli("plugins", "register", cli.plugin("keeper", KEEPER, manifest=CALLER.format('"' + '", "'.join(endpoints) + '"')))
    folder = cli.folder / "secrets"
    folder.mkdir(mode=0o700)
    descriptor = os.open(folder / "TOKEN", os.O_CREAT | os.O_WRONLY, 0o600)
    os.write(descriptor, b"x")
    os.close(descriptor)
    host_file.write_text(
        f"secrets: {{folder: {folder}}}\n"
        "plugins:\n  keeper:\n    enabled: true\n"
        "    credentials: [{endpoint: 'api.test:443', bearer: TOKEN}]\n"
    )
    grants = [word for endpoint in endpoints for word in ("--grant", f"network:{endpoint}")]
    shown = cli("plan", "keeper", *grants)
    assert shown.code == 0, shown.err
    assert "connects to these, and no others" in shown.out
    assert "*.wide.test:443" in shown.out
    plan = cli("plan", "keeper", *grants, "--json").json
    assert plan["network"]["proxied"] == ["*.wide.test:443"]
    assert [listener["port"] for listener in plan["network"]["listeners"]] == [443, 80]
    assert plan["environment"]["SSL_CERT_FILE"] == "/cardcage/trust.pem"


def test_top_shows_what_went_out_and_came_in(cli: Any, host_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            sock, _ = server.accept()
            with sock:
                sock.sendall(sock.recv(100) * 2)

        threading.Thread(target=answer, daemon=True).start()
        code, manifest = CONNECTS.replace("PORT", str(port)), CALLER.format(f'"127.0.0.1:{port}"')
        cli("plugins", "register", cli.plugin("keeper", code, manifest=manifest))
        host_file.write_text(f"plugins: {{keeper: {{enabled: true, grants: ['network:127.0.0.1:{port}']}}}}\n")
        (row,) = cli("plugin", "top", "keeper", "--json", "--every", "0.1").json
    (count,) = row["egress"]
    assert (count["endpoint"], count["connections"]) == (f"127.0.0.1:{port}", 1)
    assert (count["bytes_up"], count["bytes_down"]) == (5, 10)
