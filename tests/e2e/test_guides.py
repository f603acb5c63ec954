"""The guides are true: their programs run, their plugins load, their commands do what stands there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
GUIDES = ROOT / "docs" / "guides"
BLOCK = re.compile(r"^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(guide: str, language: str) -> list[str]:
    found = BLOCK.finditer((GUIDES / guide).read_text(encoding="utf-8"))
    return [match["text"] for match in found if match["language"] == language]


def programs() -> list[tuple[str, str]]:
    """The blocks that are whole programs of a host: they import `cardcage`, not the SDK alone."""
    guides = ("embedding.md", "permissions.md")
    return [(guide, text) for guide in guides for text in blocks(guide, "python") if "PluginManager" in text]


def run(command: list[str], folder: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
        "HOME": str(folder),
        "CARDCAGE_HOME": str(folder / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.parametrize(("guide", "text"), programs(), ids=lambda value: value[:14])
def test_a_program_in_a_guide_runs(tmp_path: Path, guide: str, text: str) -> None:
    done = run([sys.executable, "-c", text], tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), guide


def test_the_programs_are_found() -> None:
    assert len(programs()) == 6


def test_the_first_plugin_is_what_the_scaffold_makes_and_its_commands_work(tmp_path: Path) -> None:
    commands = [line.removeprefix("$ ") for text in blocks("first-plugin.md", "console") for line in text.splitlines()]
    cwd = tmp_path
    seen: dict[str, str] = {}
    for command in commands:
        if command.startswith("cd "):
            cwd = cwd / command.removeprefix("cd ")
            continue
        done = run(shlex.split(command), tmp_path, cwd)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        seen[command] = done.stdout
    (shown,) = blocks("first-plugin.md", "python")
    assert shown in (tmp_path / "kind-words" / "plugin.py").read_text(encoding="utf-8").replace(
        "from __future__ import annotations\n\n", ""
    )
    answers = [out.strip() for command, out in seen.items() if " call " in command]
    assert answers == ['"Good day, Ada."', '"Hello, Ada."']


def test_the_commands_for_operators_work_with_the_policy_that_is_shown(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "polite", tmp_path / "examples" / "polite")
    (policy,) = blocks("operating.md", "yaml")
    (tmp_path / "policy.yaml").write_text(policy)
    text = "".join(blocks("operating.md", "console")).replace("$ ", "")
    seen: dict[str, str] = {}
    for command in text.splitlines():
        done = run(shlex.split(command), tmp_path, tmp_path)
        assert done.returncode == 0, f"{command}: {done.stderr}{done.stdout}"
        seen[" ".join(command.split()[1:3])] = done.stdout
    assert "polite would start" in seen["policy explain"]
    assert "memory 256 MiB" in seen["plan polite"]
    assert "polite" in seen["plugin top"]
    assert "The log is as it was written." in seen["audit verify"]


def test_the_guide_to_permissions_shows_a_refusal_and_then_a_grant(tmp_path: Path) -> None:
    (manifest,) = blocks("permissions.md", "yaml")
    code = next(text for text in blocks("permissions.md", "python") if "PluginManager" not in text)
    package = tmp_path / "bill-size"
    package.mkdir()
    (package / "plugin.yaml").write_text(manifest)
    (package / "bill_size.py").write_text(code)
    (tmp_path / "bill.csv").write_text("12345")
    (console,) = blocks("permissions.md", "console")
    commands = console.replace("/srv/bill.csv", str(tmp_path / "bill.csv")).replace("$ ", "").splitlines()
    registered, refused, granted = (run(shlex.split(command), tmp_path, tmp_path) for command in commands)
    assert registered.returncode == 0, registered.stderr
    assert refused.returncode == 3
    assert "--grant read:" in refused.stderr
    assert (granted.returncode, granted.stdout.strip()) == (0, "5"), granted.stderr
