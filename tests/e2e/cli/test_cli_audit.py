"""`cardcage audit` as a shell runs it."""

from __future__ import annotations

import csv
import io
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

WALLED = """
class Main:
    def ping(self):
        return "pong"
"""


@pytest.fixture(scope="module")
def recorded() -> dict[str, Path]:
    """Where the log of this module's tests stands, once it was made: five commands are run for it."""
    return {}


@pytest.fixture
def log(cli: Any, recorded: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log with a registration, a start and a refusal in it; each test has a copy of its own."""
    if not recorded:
        maker: Any = type(cli)(tmp_path_factory.mktemp("recorded"))
        assert maker("plugin", "load", maker.plugin("polite", WALLED)).code == 0
        assert maker("plugin", "call", "polite", "ping").code == 0
        greedy = maker.plugin("greedy", WALLED, manifest="permissions: ['network:api.example.com:443']\n")
        assert maker("plugins", "register", greedy).code in (0, 3)
        assert maker("plugin", "start", "greedy").code == 3
        recorded["home"] = maker.home
    shutil.copytree(recorded["home"], cli.home)
    return cli.home / "audit"


def test_tail_shows_what_was_decided_with_its_reason(cli: Any, log: Path) -> None:
    shown = cli("audit", "tail", "--denied")
    assert shown.code == 0
    assert "REFUSED" in shown.out
    assert "network:api.example.com:443" in shown.out
    assert "is not granted" in shown.out
    assert "polite" not in shown.out


def test_tail_gives_one_object_a_line(cli: Any, log: Path) -> None:
    shown = cli("audit", "tail", "-n", "2", "--plugin", "polite", "--action", "instance.*", "--json")
    lines = [json.loads(line) for line in shown.out.splitlines()]
    assert [line["action"] for line in lines] == ["instance.started", "instance.unloaded"]
    assert all(line["plugin"] == "polite" and len(line["hash"]) == 64 for line in lines)


def test_tail_follows_what_comes(cli: Any, log: Path) -> None:
    following = cli.popen("audit", "tail", "-n", "1", "-f", "--json")
    try:
        assert following.stdout is not None
        first = json.loads(following.stdout.readline())
        assert cli("plugin", "call", "polite", "ping").code == 0
        then = [json.loads(following.stdout.readline()) for _ in range(3)]
    finally:
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=30)
    assert [line["seq"] for line in then] == [first["seq"] + number for number in (1, 2, 3)]


def test_a_log_that_is_whole_is_verified_with_the_pinned_key(cli: Any, log: Path, tmp_path: Path) -> None:
    pinned = tmp_path / "pinned.pem"
    pinned.write_text(cli("audit", "key").out)
    verified = cli("audit", "verify", "--key", pinned)
    assert verified.code == 0
    assert "as it was written" in verified.out
    assert cli("audit", "verify", "--json", "--key", pinned).json["key_pinned"] is True
    assert cli("audit", "verify", "--json").json["key_pinned"] is False


def test_tampering_is_told_line_by_line(cli: Any, log: Path) -> None:
    file = log / "log-000001.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2].replace(b"polite", b"decent")
    del lines[4]
    file.write_bytes(b"".join(lines[:-1]))
    verified = cli("audit", "verify")
    assert verified.code == 1
    assert "log-000001.jsonl:3: line 3 was changed" in verified.out
    assert "log-000001.jsonl:5: line 5 comes after a gap: 1 removed" in verified.out
    assert "more stood after it" in verified.out
    told = cli("audit", "verify", "--json").json
    assert [(fault["line"], fault["kind"]) for fault in told["faults"]] == [
        (3, "changed"),
        (5, "removed"),
        (len(lines) - 1, "cut"),
    ]


def test_an_exported_copy_is_verified_elsewhere(cli: Any, log: Path, tmp_path: Path) -> None:
    copy, pinned = tmp_path / "copy.jsonl", tmp_path / "key.pem"
    assert cli("audit", "export", "-o", copy).code == 0
    assert copy.stat().st_mode & 0o777 == 0o600
    pinned.write_text(cli("audit", "key").out)
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes((log / "last-checkpoint.jsonl").read_bytes())
    elsewhere = ["audit", "verify", copy, "--key", pinned, "--checkpoint", kept, "--state-dir", tmp_path / "none"]
    assert cli(*elsewhere).code == 0
    copy.write_bytes(b"".join(copy.read_bytes().splitlines(keepends=True)[:3]))
    assert cli(*elsewhere).code == 1


def test_another_key_is_found_out(cli: Any, log: Path, tmp_path: Path) -> None:
    code = """if True:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        from cardcage.audit.keys import public_pem
        print(public_pem(Ed25519PrivateKey.generate().public_key()))
    """
    other = tmp_path / "other.pem"
    other.write_text(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    told = cli("audit", "verify", "--key", other, "--json")
    assert told.code == 1
    assert {fault["kind"] for fault in told.json["faults"]} == {"wrong_key", "kept"}


def test_a_table_holds_no_formula(cli: Any, log: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(cli("audit", "export", "--format", "csv", "--plugin", "greedy").out)))
    assert {row["plugin"] for row in rows} == {"greedy"}
    assert "no" in {row["allowed"] for row in rows}
    assert not any(cell.startswith(("=", "+", "-", "@")) for row in rows for cell in row.values())


def test_times_choose_lines(cli: Any, log: Path) -> None:
    assert cli("audit", "export", "--since", "2999-01-01").out == ""
    assert cli("audit", "export", "--until", "2999-01-01T00:00:00Z").out == cli("audit", "export").out != ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["export", "--since", "yesterday"], "expected a date or a time"),
        (["tail", "--action", "nothing.such"], "no action is called"),
        (["verify", "/nowhere"], "there is no audit log at"),
    ],
)
def test_a_wrong_argument_is_told_in_a_sentence(cli: Any, log: Path, arguments: list[str], sentence: str) -> None:
    told = cli("audit", *arguments)
    assert told.code == 2
    assert sentence in told.err


@pytest.mark.parametrize("command", ["tail", "verify", "export", "key"])
def test_where_nothing_was_recorded_that_is_said(cli: Any, command: str) -> None:
    told = cli("audit", command)
    assert told.code == 2
    assert "there is no audit log at" in told.err
    assert not cli.home.exists()


def test_commands_that_decide_nothing_leave_nothing(cli: Any) -> None:
    assert cli("plugin", "list").code == 0
    assert list((cli.home / "audit").iterdir()) == []
