"""A recording hears what a plugin tries, and nothing becomes possible by it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cardcage import PluginManager
from cardcage.foundation.errors import Refused
from cardcage.launch.recorder import Deed, Tried
from cardcage.launch.recording import RecordingRunner
from cardcage.manager import PolicyWarning, UnconfinedWarning
from cardcage.sandbox.mode import detect_mode
from cardcage.sandbox.report import Mode

pytestmark = pytest.mark.skipif(
    detect_mode() not in (Mode.ROOT, Mode.USER), reason="a recording needs walls with namespaces"
)

PROBER = """
import os
import socket
import subprocess
import threading
from cardcage_sdk import Plugin


def attempt(what, *args):
    try:
        return str(what(*args))
    except Exception as error:
        return type(error).__name__


class Main(Plugin):
    def probe(self, secret, made, name):
        os.chdir("/tmp")
        here = os.open("/data", os.O_RDONLY | os.O_DIRECTORY)
        return {
            "read": attempt(lambda: open(secret).read()),
            "read by folder": attempt(lambda: os.open(".." + secret + ".at", os.O_RDONLY, dir_fd=here)),
            "write": attempt(lambda: open(made, "w").write("x")),
            "both": attempt(lambda: open(made, "r+").read()),
            "look": attempt(os.path.exists, secret),
            "list": attempt(os.listdir, os.path.dirname(secret)),
            "make": attempt(os.mkdir, made + ".d"),
            "rename": attempt(os.rename, "/tmp/none", made + ".r"),
            "run": attempt(lambda: subprocess.run(["/usr/bin/env"]).returncode),
            "name": attempt(lambda: socket.create_connection((name, 443), timeout=5)),
            "address": attempt(lambda: socket.create_connection(("10.11.12.13", 80), timeout=5)),
            "version six": attempt(lambda: socket.create_connection(("2001:db8::1", 80), timeout=5)),
            "climb": attempt(lambda: open("/data/../.." + secret).read()),
            "own": attempt(lambda: open("own.txt", "w").write("x")),
        }

    def many(self, count):
        def look(number):
            for each in range(count):
                os.path.exists(f"/srv/never/{number}/{each}")
        threads = [threading.Thread(target=look, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return count
"""


async def record(package: Path, method: str, *args: Any) -> tuple[Any, list[Tried]]:
    """One call behind recording walls: its result, and what the process tried."""
    tried: list[Tried] = []
    with tempfile.TemporaryDirectory() as folder:
        async with PluginManager(state_dir=Path(folder) / "state", audit=False, packs=(), auto_start=False) as manager:
            manager.wrap_runner("process", lambda runner: RecordingRunner(runner, tried.extend))
            await manager.start_plugin(str(package))
            result = await manager.call(package.name, method, *args)
    return result, tried


@pytest.fixture
def prober(tmp_path: Path) -> Path:
    package = tmp_path / "prober"
    package.mkdir()
    (package / "plugin.yaml").write_text("name: prober\nversion: 1.0.0\nentrypoint: prober:Main\n")
    (package / "prober.py").write_text(PROBER)
    return package


def things(tried: Sequence[Tried], deed: Deed) -> set[str]:
    return {each.thing for each in tried if each.deed is deed}


async def test_everything_that_is_tried_is_heard_and_nothing_of_it_happens(prober: Path, tmp_path: Path) -> None:
    folder = tmp_path / "host"
    folder.mkdir()
    secret, made = folder / "secret.txt", folder / "made.txt"
    secret.write_text("hunter2")
    result, tried = await record(prober, "probe", str(secret), str(made), "api.unheard.test")
    own = result.pop("own")
    assert own == "1"
    assert result == {
        "read": "FileNotFoundError",
        "read by folder": "FileNotFoundError",
        "write": "FileNotFoundError",
        "both": "FileNotFoundError",
        "look": "False",
        "list": "FileNotFoundError",
        "make": "FileNotFoundError",
        "rename": "FileNotFoundError",
        "run": "FileNotFoundError",
        "name": "ConnectionRefusedError",
        "address": "ConnectionRefusedError",
        "version six": "ConnectionRefusedError",
        "climb": "FileNotFoundError",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["secret.txt"]
    assert f"{secret}.at" in things(tried, Deed.READ)
    assert str(secret) in things(tried, Deed.READ) & things(tried, Deed.LOOK)
    assert {str(made)} <= things(tried, Deed.WRITE) & things(tried, Deed.READ)
    assert str(folder) in things(tried, Deed.LIST)
    assert {f"{made}.d", f"{made}.r"} <= things(tried, Deed.MAKE)
    assert things(tried, Deed.RUN) == {"/usr/bin/env"}
    assert things(tried, Deed.ASK) == {"api.unheard.test"}
    assert things(tried, Deed.CONNECT) == {"api.unheard.test:443", "10.11.12.13:80", "[2001:db8::1]:80"}
    assert all(os.path.normpath(each.thing) == each.thing for each in tried if each.thing.startswith("/"))


async def test_many_threads_are_answered_and_what_is_kept_is_bounded(prober: Path) -> None:
    from cardcage.launch.recorder import THINGS_MAX

    async with asyncio.timeout(120):
        result, tried = await record(prober, "many", 2000)
    assert result == 2000
    assert len(tried) <= THINGS_MAX


async def test_a_plan_without_walls_is_not_recorded(prober: Path, tmp_path: Path) -> None:
    manager = PluginManager(state_dir=tmp_path / "state", audit=False, isolation="unconfined", auto_start=False)
    with pytest.warns(UnconfinedWarning):
        await manager.__aenter__()
    try:
        manager.wrap_runner("unconfined", lambda runner: RecordingRunner(runner, lambda tried: None))
        with pytest.raises(Refused) as caught, pytest.warns(PolicyWarning):
            await manager.start_plugin(str(prober))
        assert caught.value.code == "recording_unavailable"
    finally:
        await manager.stop()
