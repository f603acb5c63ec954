"""Every hostile behaviour of the catalogue is stopped, and by a layer that this machine enforces."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hostile_suite import CATALOGUE, Arena, Behaviour
from hostile_suite.weaken import GROUPS, layers_of

from cardcage.sandbox.mode import why_no_fallback
from cardcage.sandbox.python_layout import find_python_layout
from cardcage.sandbox.report import LayerName

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # the control runs without walls, and is warned of

FIRST_LIST = range(1, 71)
"""The list that the suite began from."""

BITES: dict[str, list[int]] = {
    "files": [1, 2, 30, 45],
    "network": [29, 33],
    "processes": [4, 8],
    "seccomp": [7, 39, 48],
    "limits": [10, 11, 13, 14, 50],
    "uid": [73],
    "capabilities": [25],
    "privileges": [24],
    "environment": [6],
    "descriptors": [49],
    "wire": [52],
    "names": [47],
}
"""For each wall that can be switched off, behaviours that must then succeed."""

ROOT_ALONE = {"uid"}

CLOSED, OPEN = (3, 4, 7, 9, 33, 34, 49, 59, 60), (1, 2, 47)
"""Without namespaces: what is stopped all the same, and what docs/reference/hostile.md says is not."""


def sentence(behaviour: Behaviour) -> str:
    return f"{behaviour.number} {behaviour.title}"


@pytest.mark.parametrize("behaviour", CATALOGUE, ids=sentence)
def test_it_is_stopped(behaviour: Behaviour, arena: Arena, in_loop: Any) -> None:
    if behaviour.root_only and not arena.as_root:
        pytest.skip("must run as root: an ordinary user's host cannot be attacked so")
    row = in_loop(arena.run(behaviour))
    assert row.stopped, row.fault
    # Without control groups, which an ordinary user seldom has, memory is sampled: best-effort, and the table says so.
    assert row.enforced or "cgroup_limits" in row.layer, f"{row.layer} is not enforced on this machine"


def test_the_catalogue_covers_the_list_and_numbers_each_once() -> None:
    numbers = [behaviour.number for behaviour in CATALOGUE]
    assert len(set(numbers)) == len(numbers)
    assert set(FIRST_LIST) <= set(numbers)
    assert all(behaviour.attempts or behaviour.scenario for behaviour in CATALOGUE)


def test_every_method_of_every_hostile_plugin_is_used_by_some_behaviour() -> None:
    used = {(attempt.plugin, attempt.method) for behaviour in CATALOGUE for attempt in behaviour.attempts}
    scenes = "".join(path.read_text() for path in (Path(__file__).parent / "hostile_suite/scenarios").glob("*.py"))
    unused: list[str] = []
    for code in sorted((Path(__file__).parent / "plugins").glob("*/*.py")):
        plugin = code.parent.name
        if plugin == "honest":
            continue
        methods = re.findall(r"^    def ([a-z]\w*)\(self", code.read_text(), flags=re.MULTILINE)
        unused += [
            f"{plugin}.{method}"
            for method in methods
            if (plugin, method) not in used and f'"{method}"' not in scenes and method != "stop"
        ]
    assert unused == []


@pytest.mark.parametrize("wall", sorted(GROUPS))
def test_with_this_wall_switched_off_its_behaviours_are_not_stopped(
    wall: str, in_loop: Any, machine_has_walls: None
) -> None:
    if wall in ROOT_ALONE and os.geteuid() != 0:
        pytest.skip("must run as root: an ordinary user's plugins have no uid of their own")

    async def run() -> tuple[dict[int, bool], str]:
        async with Arena(without=layers_of([wall])) as weak:
            rows = [await weak.run(behaviour) for behaviour in CATALOGUE if behaviour.number in BITES[wall]]
            names = [str(name) for name in LayerName if name in layers_of([wall])]
            on = [name for name in names if weak.report.status(name) == "enforced"]
            return {row.number: row.stopped for row in rows}, ", ".join(on)

    stopped, still_on = in_loop(run())
    assert still_on == "", f"the report calls {still_on} enforced"
    assert stopped == dict.fromkeys(BITES[wall], False)


def test_where_namespaces_are_forbidden_the_suite_shows_what_stays_open(in_loop: Any) -> None:
    if missing := why_no_fallback():
        pytest.skip(f"the wall without namespaces cannot be put up here: {missing}")
    if os.geteuid() == 0 and find_python_layout().stdlib.startswith("/root/"):
        pytest.skip("must not run as root: its Python stands in its own home, where no other uid gets to")

    async def run() -> dict[int, bool]:
        async with Arena(isolation="fallback") as weaker:
            wanted = [behaviour for behaviour in CATALOGUE if behaviour.number in (*CLOSED, *OPEN)]
            return {row.number: row.stopped for row in [await weaker.run(behaviour) for behaviour in wanted]}

    assert in_loop(run()) == {**dict.fromkeys(CLOSED, True), **dict.fromkeys(OPEN, False)}


def test_the_runner_prints_the_table_and_writes_the_list(tmp_path: Path, machine_has_walls: None) -> None:
    script = Path(__file__).parent / "run.py"

    def run(*arguments: str) -> tuple[int, str, list[dict[str, Any]]]:
        written = tmp_path / "hostile.json"
        done = subprocess.run(
            [sys.executable, script, "--json", written, *arguments],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr, json.loads(written.read_text())

    code, told, rows = run("--only", "6,39-40")
    assert code == 0, told
    assert "3 of 3 behaviours stopped" in told
    assert [row["id"] for row in rows] == [6, 39, 40]
    assert all(set(row) == {"id", "behaviour", "stopped", "layer", "enforced", "seconds"} for row in rows)
    code, told, rows = run("--only", "6,39", "--without", "seccomp")
    assert code == 1, told
    assert {row["id"]: row["stopped"] for row in rows} == {6: True, 39: False}
    assert "NOT STOPPED" in told
