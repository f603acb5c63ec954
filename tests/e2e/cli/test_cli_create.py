"""A scaffolded plugin is whole: it validates, its test passes, it loads behind its walls, and it can be called."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from cardcage_finops.extension_points import PLUGIN_TYPES

LAYOUT = {
    "plugin.yaml",
    "plugin.py",
    "config_schema.json",
    "tests/__init__.py",
    "tests/test_plugin.py",
    "docs/README.md",
    "requirements.txt",
}


def own_tests(cli: Any, name: str) -> subprocess.CompletedProcess[str]:
    """Run the scaffold's own tests as its author would: pytest in its folder."""
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=cli.folder / name,
        env=cli.environment({"PYTHONDONTWRITEBYTECODE": "1"}),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_plugin_of_ones_own_is_made_tested_loaded_and_called(cli: Any) -> None:
    made = cli("plugin", "create", "kind-words", "--json").json
    assert set(made["files"]) == LAYOUT
    assert cli("plugin", "validate", "kind-words").code == 0
    tested = own_tests(cli, "kind-words")
    assert tested.returncode == 0, tested.stdout
    loaded = cli("plugin", "load", "kind-words")
    assert loaded.code == 0, loaded.err
    assert cli("plugin", "call", "kind-words", "greet", "Ada").json == "Good day, Ada."


def test_a_plugin_of_a_packs_type_provides_its_extension_point(cli: Any) -> None:
    made = cli("plugin", "create", "--type", "optimizer", "--lang", "python", "ec2-optimizer")
    assert made.code == 0, made.err
    tested = own_tests(cli, "ec2-optimizer")
    assert tested.returncode == 0, tested.stdout
    assert "2 passed" in tested.stdout
    loaded = cli("plugin", "load", "ec2-optimizer")
    assert loaded.code == 0, loaded.err
    assert cli("plugin", "call", "ec2-optimizer", "analyze", '{"id": "i-1"}', "{}").json == []


@pytest.mark.parametrize("kind", sorted({ref: kind for kind, ref in PLUGIN_TYPES.items()}.values()))
def test_every_known_type_can_be_made_and_loads(cli: Any, kind: str) -> None:
    name = f"my-{kind.replace('_', '-')}"
    assert cli("plugin", "create", "--type", kind.replace("_", "-"), name).code == 0
    tested = own_tests(cli, name)
    assert tested.returncode == 0, tested.stdout
    loaded = cli("plugin", "load", name)
    assert loaded.code == 0, loaded.err


def test_an_existing_folder_is_never_touched(cli: Any) -> None:
    (cli.folder / "mine").mkdir()
    (cli.folder / "mine" / "plugin.py").write_text("precious")
    ran = cli("plugin", "create", "mine", "--json")
    assert (ran.code, ran.error["code"]) == (2, "exists")
    assert [path.name for path in (cli.folder / "mine").iterdir()] == ["plugin.py"]


@pytest.mark.parametrize("name", ["Bad", "two words", "../escape", "a/b", "x" * 101, "", "-"])
def test_a_bad_name_is_refused_and_nothing_is_made(cli: Any, name: str) -> None:
    before = sorted(cli.folder.rglob("*"))
    ran = cli("plugin", "create", "--json", "--", name)
    assert (ran.code, ran.error["code"]) == (2, "bad_plugin_name")
    assert sorted(cli.folder.rglob("*")) == before


def test_another_language_is_refused_with_those_that_there_are(cli: Any) -> None:
    ran = cli("plugin", "create", "mine", "--lang", "node", "--json")
    assert (ran.code, ran.error["code"]) == (2, "language_unsupported")
    assert "python" in ran.error["message"]
    assert not (cli.folder / "mine").exists()


def test_an_unknown_type_is_refused_with_those_that_are_known(cli: Any) -> None:
    ran = cli("plugin", "create", "mine", "--type", "toaster")
    assert ran.code == 2
    assert "optimizer" in ran.err
    assert not (cli.folder / "mine").exists()
