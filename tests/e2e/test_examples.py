"""The examples do what they say: each spelling of the lifecycle loads behind walls and answers, and the host greets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cardcage import PluginManager

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def manager(state_dir: Path) -> PluginManager:
    return PluginManager(state_dir=state_dir, auto_start=False, packs=())


def test_the_host_greets_with_every_greeter(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "hello_host.py")],
        env={"PATH": os.defpath, "HOME": str(tmp_path), "CARDCAGE_HOME": str(tmp_path / "home")},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "polite Good day, Ada.\n"), done.stderr


async def test_every_example_is_a_sound_package(tmp_path: Path) -> None:
    async with PluginManager(state_dir=tmp_path / "home", plugin_paths=[EXAMPLES], packs=()) as host:
        assert [str(problem) for problem in host.problems()] == []
        assert host.list_plugins() == sorted(path.parent.name for path in EXAMPLES.glob("*/plugin.yaml"))


async def test_the_context_and_lifecycle_spelling_remembers_over_a_stop(tmp_path: Path) -> None:
    async with manager(tmp_path / "home") as host:
        await host.start_plugin(str(EXAMPLES / "word-counter"))
        assert await host.call("word-counter", "count", "to be or not to be") == {"to": 2, "be": 2, "or": 1, "not": 1}
        assert (await host.get_instance_health("word-counter"))["plugin"]["words"] == 4
        await host.unload_plugin("word-counter")
        await host.start_plugin("word-counter")
        assert (await host.call("word-counter", "count", "be"))["be"] == 3
        await host.broadcast_event("words.forget", {})
        assert await host.call("word-counter", "count", "") == {}


async def test_the_four_method_spelling_analyses_by_its_config(tmp_path: Path) -> None:
    async with manager(tmp_path / "home") as host:
        await host.register_plugin(EXAMPLES / "downsizer")
        await host.create_instance("downsizer", {"cpu_threshold": 10})
        await host.start_plugin("downsizer")
        (found,) = await host.call("downsizer", "analyze", "i-1", {"cpu_usage": 3.0})
        assert found == {"resource_id": "i-1", "action": "downsize", "reason": "CPU 3.0% < 10%"}
        assert await host.call("downsizer", "analyze", "i-1", {"cpu_usage": 12.0}) == []


async def test_the_tools_and_resources_spelling_has_one_instance_for_each_cluster(tmp_path: Path) -> None:
    async with manager(tmp_path / "home") as host:
        await host.register_plugin(EXAMPLES / "cluster-watch")
        paris = await host.create_instance("cluster-watch", {"name": "Paris", "pods": {"a": "Running"}}, label="paris")
        await host.start_plugin("cluster-watch")
        await host.start_instance(paris)
        assert await host.call(paris, "get_resources") == [{"kind": "pod", "name": "a", "state": "Running"}]
        summary = await host.call("cluster-watch", "get_status_summary")
        assert (summary["cluster"], summary["resources"], summary["status"]) == ("Demo", 2, "degraded")
