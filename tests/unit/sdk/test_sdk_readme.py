"""The programs in the SDK's README, run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cardcage_sdk.wire import Event

if TYPE_CHECKING:
    from .conftest import StartPlugin


def programs(project_root: Path) -> list[str]:
    text = (project_root / "packages/cardcage-sdk/README.md").read_text("utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def test_the_first_plugin_greets(start_plugin: StartPlugin, project_root: Path) -> None:
    host = start_plugin(programs(project_root)[0])
    assert host.load("Polite")["methods"] == [{"name": "greet", "stream": False, "doc": "Greet somebody."}]
    assert host.ask("greet", "Ada") == "Good day, Ada."


def test_the_marked_plugin_does_what_its_marks_say(start_plugin: StartPlugin, project_root: Path) -> None:
    host = start_plugin(programs(project_root)[1])
    told = host.load("Watcher")
    assert (told["events"], told["schedules"]) == (["cost.*"], [{"cron": "*/5 * * * *", "method": "refresh"}])
    host.ask("cardcage.initialize")
    host.ask("cardcage.hook", "post_cost_analysis", "detect", {"daily_spike": 0.3})
    assert host.wait_for(Event).name == "cost.spike_found"
    host.sock.sendall(host.session.event("cost.spike_found", {}))
    assert host.ask("cardcage.tool", "lookup", {"service": "ec2"}) == 7
    host.ask("refresh")
    assert host.session.decode(host.logs()[0].fields) == {"seen": 1}


def test_the_test_case_passes(project_root: Path, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(programs(project_root)[2], "utf-8")
    command = [sys.executable, "-m", "unittest", "-q", "test_it"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "Ran 1 test" in ran.stderr
