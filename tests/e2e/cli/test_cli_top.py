"""`cardcage plugin top`, and how the command line names a limit that ended a plugin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

HUNGRY = """
from cardcage_sdk import Plugin

class Main(Plugin):
    def take(self, mib):
        self.held = bytearray(b"x" * (mib << 20))
"""
LIMITS = "limits: {memory: 64MiB, cpu: 0.5}\n"


@pytest.fixture
def hungry(cli: Any) -> Path:
    folder: Path = cli.plugin("hungry", HUNGRY, manifest=LIMITS)
    assert cli("plugin", "load", folder).code == 0
    return folder


def test_top_shows_use_beside_limits(cli: Any, hungry: Path) -> None:
    ran = cli("plugin", "top", "--every", "0.1")
    assert ran.code == 0, ran.err
    assert "hungry" in ran.out
    assert "64 MiB" in ran.out


def test_top_answers_with_data(cli: Any, hungry: Path) -> None:
    (row,) = cli("plugin", "top", "hungry", "--json", "--every", "0.1").json
    assert row["instance"] == "hungry"
    assert 0 < row["memory_bytes"] < row["memory_limit_bytes"] == 64 << 20
    assert (row["processes"], row["cpu_limit_cores"]) == (1, 0.5)
    assert row["hits"]["oom_kills"] == 0


def test_top_without_plugins_says_so(cli: Any) -> None:
    ran = cli("plugin", "top", "--every", "0.1")
    assert (ran.code, ran.out.strip()) == (0, "No plugin is running.")


def test_a_call_that_ran_out_of_memory_names_the_limit(cli: Any, hungry: Path) -> None:
    ran = cli("plugin", "call", "hungry", "take", "160")
    assert ran.code == 1
    assert 'plugin "hungry" 1.2.3 ran out of the 64 MiB of memory it was given during take()' in ran.err
    assert cli("plugin", "call", "hungry", "take", "160", "--json").error["limit"]["value"] == 64 << 20
