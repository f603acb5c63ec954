"""`cardcage plugin learn`: from calls to a permission block, on stdout or in the manifest."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from cardcage.sandbox.mode import detect_mode
from cardcage.sandbox.report import Mode

pytestmark = pytest.mark.skipif(
    detect_mode() not in (Mode.ROOT, Mode.USER), reason="a recording needs walls with namespaces"
)

READER = """
from cardcage_sdk import Plugin

class Main(Plugin):
    def size(self):
        print("noise")
        try:
            open(self.config["bill"] + ".extra").close()
        except OSError:
            pass
        with open(self.config["bill"]) as file:
            return len(file.read())
"""
MORE = "description: reads\n# asks for too much\npermissions: [ReadCostData]\nlimits: {cpu: 1}\n"


@pytest.fixture
def bill(tmp_path: Path) -> Path:
    path = tmp_path / "bills" / "bill.csv"
    path.parent.mkdir()
    path.write_text("abc")
    path.with_suffix(".csv.extra").write_text("d")
    return path


@pytest.fixture
def reader(cli: Any) -> Path:
    package: Path = cli.plugin("reader", READER, manifest=MORE)
    return package


def test_the_block_is_printed_and_what_was_left_out_is_told_beside_it(cli: Any, reader: Path, bill: Path) -> None:
    config = json.dumps({"bill": str(bill)})
    ran = cli("plugin", "learn", reader, "--run", "size", "--config", config, "--try", bill.parent)
    assert ran.code == 0, ran.err
    assert yaml.safe_load(ran.out) == {"permissions": {"files": {"read": [str(bill)]}}}
    assert "fail without any one of them" in ran.err
    assert f"read:{bill}.extra: " in ran.err
    assert "noise" not in ran.err
    assert "ReadCostData" in (reader / "plugin.yaml").read_text()
    ran = cli("plugin", "learn", reader, "--run", "size", "--config", config, "--json")
    assert (ran.code, ran.json["passed"], ran.json["grants"]) == (1, False, [])
    assert f"read:{bill}" in [each["what"] for each in ran.json["left_out"]]
    assert "bill.csv" in ran.json["reason"]


def test_the_block_is_written_into_the_manifest_and_the_plugin_runs_with_exactly_that(
    cli: Any, reader: Path, bill: Path, tmp_path: Path
) -> None:
    assert cli("plugins", "register", reader).code == 0
    config = json.dumps({"bill": str(bill)})
    fixture = tmp_path / "calls.yaml"
    fixture.write_text("- {call: size, expect: 3}\n")
    learn = ("plugin", "learn", "reader", "--fixture", fixture, "--config", config, "--try", bill.parent)
    ran = cli(*learn, "--generalise", "--write", "--json")
    assert (ran.code, ran.json["written"]) == (0, str(reader / "plugin.yaml")), ran.out
    assert ran.json["permissions"] == {"files": {"read": ["${config.bill}"]}}
    text = (reader / "plugin.yaml").read_text()
    assert text.endswith(
        "description: reads\n# asks for too much\n"
        'permissions:\n  files:\n    read:\n    - "${config.bill}"\nlimits: {cpu: 1}\n'
    )
    assert sorted(path.name for path in reader.iterdir()) == ["plugin.yaml", "reader.py"]
    assert cli("plugins", "register", reader).code == 0
    call = ("plugin", "call", "reader", "size", "--config", config)
    assert cli(*call).code == 3
    assert cli(*call, "--grant", f"read:{bill}").out == "3\n"
    events = [json.loads(line) for line in cli("audit", "tail", "--json").out.splitlines()]
    assert [event["plugin"] for event in events if event["action"] == "instance.learning"] == ["reader"]


def test_a_capability_and_a_name_are_learnt_from_the_command_line(cli: Any) -> None:
    code = """
import socket
from cardcage_sdk import Plugin

class Main(Plugin):
    def keep(self, host, port):
        self.context.api_client.call("data_store.put", "last", port)
        with socket.create_connection((host, port), timeout=5) as connection:
            return connection.recv(10).decode()
"""
    package = cli.plugin("keeper", code)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        answering = threading.Thread(target=answer_all, args=(server,), daemon=True)
        answering.start()
        learn = ("plugin", "learn", package, "--run", f"keep api.test {port}", "--host", "api.test=127.0.0.1", "--json")
        closed = cli(*learn)
        found = cli(*learn, "--allow-network")
        server.shutdown(socket.SHUT_RDWR)
    assert (closed.code, closed.json["passed"]) == (1, False)
    assert {"what": f"network:api.test:{port}", "reason": "connections are made only where that is allowed"} in (
        closed.json["left_out"]
    )
    assert (found.code, found.json["grants"]) == (0, ["capability:DataStore", f"network:api.test:{port}"])


def answer_all(server: socket.socket) -> None:
    """Say hello to whoever connects, until the server is shut down."""
    with contextlib.suppress(OSError):
        while True:
            connection, _ = server.accept()
            with connection:
                connection.sendall(b"hello")


def test_what_is_asked_wrongly_is_told_in_a_sentence(cli: Any, reader: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("- {call: size}\n- {cal: size}\n")
    for words, code in (
        (("--run", ""), "bad_run"),
        (("--run", "'open"), "bad_run"),
        (("--host", "a.test"), "bad_host"),
        (("--fixture", bad), "fixture_invalid"),
        ((), "nothing_to_learn_from"),
    ):
        ran = cli("plugin", "learn", reader, *words, "--json")
        assert (ran.code, ran.error["code"]) == (2, code), words
    assert cli("plugin", "learn", "unheard", "--run", "x", "--json").error["code"] == "unknown_plugin"
