"""The test kit, used as its own documentation shows: as test classes that pytest collects, and from inside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import cardcage_sdk.plugins.testing
import cardcage_sdk.testing
from cardcage_sdk import HostError, Plugin, current_context, hook, on_event
from cardcage_sdk.plugins import BasePlugin, CloudMindPluginBase, ClusterConfig, PluginBase, PluginMetadata
from cardcage_sdk.plugins.testing import PluginTestCase


class MyPlugin(BasePlugin):
    """The plugin under test."""

    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata(
            name="my-plugin", version="1.0.0", description="Example plugin", author="Developer Name", license="MIT"
        )

    async def initialize(self) -> bool:
        self.context.logger.info("Initializing my-plugin")
        return True

    async def start(self) -> bool:
        return True

    async def stop(self) -> bool:
        return True

    async def cleanup(self) -> bool:
        return True


class TestMyPlugin(PluginTestCase):
    def test_plugin_metadata(self) -> None:
        plugin = self.create_plugin(MyPlugin)
        metadata = plugin.get_metadata()
        assert metadata.name == "my-plugin"
        assert metadata.version == "1.0.0"

    async def test_plugin_lifecycle(self) -> None:
        plugin = self.create_plugin(MyPlugin)
        assert await plugin.initialize() is True
        assert await plugin.start() is True
        assert await plugin.stop() is True
        assert await plugin.cleanup() is True

    async def test_plugin_health_check(self) -> None:
        plugin = self.create_plugin(MyPlugin)
        await plugin.initialize()
        await plugin.start()
        health = await plugin.health_check()
        assert health["status"] == "active"


class Base(BasePlugin):
    async def start(self) -> bool:
        return True


class Derived(Base):
    """Calls its base, whose step must not count as one of its own."""

    seen: str = ""

    async def start(self) -> bool:
        await super().start()
        self.seen = self.status.value
        return True

    async def stop(self) -> bool:
        raise OSError("stuck")


class Mixin:
    async def start(self) -> bool:
        return False


class Mixed(Mixin, BasePlugin):
    pass


class Plain(BasePlugin):
    """Spells a step without async, as people do."""

    def start(self) -> bool:  # type: ignore[override]
        return True


class Legacy(BasePlugin):
    """An adapter that does not call the base's constructor."""

    def __init__(self, legacy: Any) -> None:
        self.legacy = legacy


class Optimizer(CloudMindPluginBase):
    def where(self) -> str:
        return self.context.data_dir


class Alerting(Plugin):
    @hook("post", priority=60)
    def second(self, context: Any) -> Any:
        context.order.append("second")
        return context

    @hook("post", priority=40)
    def first(self, context: Any) -> Any:
        context.order.append("first")
        return context

    @on_event("cost.*")
    def on_cost(self, event_type: str, data: Any) -> None:
        self.context.metrics.counter("seen", table="bill")
        self.context.event_bus.publish("noted", {"type": event_type})
        self.logger.warning("cost", extra={"usd": data})
        self.context.api_client.alerts.trigger(event_type)

    def ask(self) -> Any:
        return self.context.api_client.call("store.get", "key")


class TestStatus(PluginTestCase):
    async def test_the_outermost_call_alone_sets_the_status(self) -> None:
        plugin = self.create_plugin(Derived)
        await plugin.initialize()
        assert await plugin.start() is True
        assert (plugin.seen, plugin.status.value) == ("loaded", "active")

    async def test_a_step_that_raises_or_says_no_is_the_status_error(self) -> None:
        plugin = self.create_plugin(Derived)
        with pytest.raises(OSError, match="stuck"):
            await plugin.stop()
        assert plugin.status.value == "error"
        mixed = self.create_plugin(Mixed)
        assert await mixed.start() is False
        assert mixed.status.value == "error"

    async def test_a_plain_step_is_followed_too(self) -> None:
        plugin = self.create_plugin(Plain)
        assert plugin.start() is True
        health = await plugin.health_check()
        assert health["status"] == "active"
        assert health["uptime"] >= 0

    async def test_an_adapter_without_the_bases_constructor_works(self) -> None:
        plugin = Legacy(object())
        assert plugin.status.value == "unloaded"
        assert await plugin.initialize()
        assert plugin.status.value == "loaded"
        assert plugin.get_metadata().name == ""


class TestKit(PluginTestCase):
    def test_folders_exist_and_the_context_is_the_current_one(self) -> None:
        plugin = self.create_plugin(Optimizer, {"a": 1})
        assert Path(plugin.where()).is_dir()
        assert current_context() is plugin.context
        assert plugin.context.config == {"a": 1}

    def test_a_cluster_is_made_of_the_config(self) -> None:
        plugin = self.create_plugin(PluginBase, {"name": "prod", "nodes": 3})
        assert plugin.config == ClusterConfig("pluginbase", "prod", "", "pluginbase", {"name": "prod", "nodes": 3})

    async def test_what_the_plugin_says_is_kept(self) -> None:
        plugin = self.create_plugin(Alerting)
        self.host.services["alerts.trigger"] = str.upper
        await self.send_event(plugin, "cost.spike", 5)
        assert self.host.events == [("noted", {"type": "cost.spike"})]
        assert self.host.calls == [("alerts.trigger", ("cost.spike",))]
        assert [(line.level, line.message, line.fields) for line in self.host.logs] == [("warning", "cost", {"usd": 5})]
        assert self.host.metrics[0] == ("seen", "counter", 1.0, {"table": "bill"})

    async def test_hooks_run_in_order_of_priority(self) -> None:
        plugin = self.create_plugin(Alerting)
        assert (await self.run_hook(plugin, "post", {"order": []}))["order"] == ["first", "second"]

    def test_a_service_that_the_test_did_not_give_is_missing(self) -> None:
        plugin = self.create_plugin(Alerting)
        with pytest.raises(HostError) as caught:
            plugin.ask()
        assert caught.value.code == "method_not_found"


def test_the_kit_has_one_home_under_two_names() -> None:
    assert cardcage_sdk.plugins.testing.PluginTestCase is cardcage_sdk.testing.PluginTestCase


def test_folders_and_context_are_gone_after_a_test() -> None:
    seen: list[str] = []

    class Once(PluginTestCase):
        def test_once(self) -> None:
            seen.append(self.create_plugin(Optimizer).where())

    result = Once("test_once").run()
    assert result is not None
    assert result.wasSuccessful()
    assert not os.path.exists(seen[0])
    with pytest.raises(RuntimeError, match="no plugin is loaded"):
        current_context()


def test_the_kit_runs_under_unittest_and_needs_no_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "from cardcage_sdk import BasePlugin\n"
        "from cardcage_sdk.plugins.testing import PluginTestCase\n"
        "class Mine(BasePlugin): pass\n"
        "class TestMine(PluginTestCase):\n"
        "    async def test_it(self):\n"
        "        plugin = self.create_plugin(Mine)\n"
        "        await plugin.start()\n"
        "        assert (await plugin.health_check())['status'] == 'active'\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", "import unittest, sys; unittest.main('test_it', argv=['x']); "],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, "Ran 1 test" in ran.stderr) == (0, True), ran.stderr


class Counter(Plugin):
    """Counts words in the data store, in each of its two spellings."""

    def count(self, word: str) -> int:
        store = self.context.data_store
        found = store.entry(word)
        seen, revision = found or (0, 0)
        assert store.compare_and_set(word, seen + 1, revision)
        assert not store.compare_and_set(word, seen + 1, revision)
        return seen + 1

    async def words(self) -> list[str]:
        store = self.context.data_store
        await store.aput("~", 0)
        assert await store.acommit({"!": 1}, deletes=["~"], expected={"none": 0})
        assert await store.aget("~", "gone") == "gone"
        assert await store.adelete("!")
        assert not await store.adelete("!")
        return [word async for word in store.akeys()]


class TestCounter(PluginTestCase):
    async def test_a_plugin_that_keeps_data_is_tested_without_a_host(self) -> None:
        plugin = self.create_plugin(Counter)
        assert [plugin.count("a"), plugin.count("a"), plugin.count("b")] == [1, 2, 1]
        assert await plugin.words() == ["a", "b"]
        assert self.host.data.values == {"a": 2, "b": 1}
        assert list(plugin.context.data_store.keys("b")) == ["b"]
        assert plugin.context.data_store.space()["entries"] == 2

    def test_a_refusal_is_made_by_the_test(self) -> None:
        plugin = self.create_plugin(Counter)
        del self.host.services["data_store.entry"]
        with pytest.raises(HostError, match=r"data_store\.entry"):
            plugin.count("a")
