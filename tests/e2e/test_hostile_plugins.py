"""Plugins that mean harm, over a whole manager: what they do is theirs alone, and the host and the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from cardcage import CardcageError, PluginFault, PluginManager, Unavailable
from cardcage.runtime import RuntimePolicy
from cardcage.supervise import PluginState, RestartPolicy

WritePlugin = Callable[..., Path]

HONEST = """
    class Main:
        def echo(self, value):
            return value
"""

SUBSCRIBER = """
    from cardcage_sdk import Plugin

    class Main(Plugin):
        seen = 0

        def ask(self, pattern):
            return self.context.api_client.call("cardcage.subscribe", pattern)

        def ask_often(self, count):
            for number in range(count):
                self.ask(f"flood.{number}")

        def handle_event(self, event_type, data):
            self.seen += 1

        def count(self):
            return self.seen
"""

HANGS_UP = """
    import os, time

    class Main:
        def start(self):
            os.close(3)
            time.sleep(600)
"""

MORTAL = """
    import os

    class Main:
        def who(self):
            return "verified"

        def die(self):
            os._exit(3)
"""


@pytest.mark.parametrize("pattern", [5, b"*", None, ["*"], "", "a b", "\x1b[2J", "x" * 257])
async def test_a_subscription_to_what_is_no_pattern_is_refused_and_events_go_on(
    pattern: object, write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("subscriber", SUBSCRIBER)
    write_plugin("honest", HONEST)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        await manager.start_plugin("subscriber")
        with pytest.raises(PluginFault, match=r'plugin "subscriber" 1\.0\.0 cannot subscribe to'):
            await manager.call("subscriber", "ask", pattern)
        assert manager.publish("cost.spike", {}) == 0
        await manager.start_plugin("honest")
        assert await manager.call("honest", "echo", 1) == 1


async def test_a_plugin_cannot_subscribe_without_end(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("subscriber", SUBSCRIBER)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        with pytest.raises(PluginFault, match="it has 64 patterns already"):
            await manager.call("subscriber", "ask_often", 100)
        assert manager.publish("flood.1", {}) == 1
        assert manager.publish("flood.99", {}) == 0


async def test_a_pattern_asked_for_twice_brings_each_event_once(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("subscriber", SUBSCRIBER)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        for _ in range(3):
            await manager.call("subscriber", "ask", "cost.*")
        assert manager.publish("cost.spike", {}) == 1


async def test_a_plugin_that_hangs_up_in_its_start_and_goes_on_is_killed_and_named(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("ghost", HANGS_UP)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        async with asyncio.timeout(15):
            with pytest.raises(PluginFault, match=r'plugin "ghost" 1\.0\.0 hung up and went on running'):
                await manager.start_plugin("ghost")
        assert manager.get_plugin_status("ghost") is PluginState.ERROR


async def test_a_package_that_was_changed_is_not_what_a_crashed_plugin_is_restarted_from(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    folder = write_plugin("mortal", MORTAL)
    policy = RuntimePolicy(restart=RestartPolicy(intensity=1, backoff_initial_s=0.01))
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, policy=policy) as manager:
        assert await manager.call("mortal", "who") == "verified"
        code = folder / "mortal.py"
        code.write_text(code.read_text().replace("verified", "swapped"))
        with pytest.raises(PluginFault, match="crashed"):
            await manager.call("mortal", "die")
        with pytest.raises(Unavailable, match=r'plugin "mortal" 1\.0\.0 was changed after it was verified'):
            await manager.call("mortal", "who")


SCHEMER = """
    from cardcage_sdk import Plugin

    class Main(Plugin):
        def get_config_schema(self):
            values = [{"a": number} for number in range(3000)]
            rules = [{"items": {"type": "object"}} for _ in range(2000)]
            return {"type": "object", "properties": {"y": {"default": values, "uniqueItems": True, "allOf": rules}}}
"""


async def test_a_config_schema_made_to_take_for_ever_ends_as_a_fault(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("schemer", SCHEMER)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        with pytest.raises(CardcageError, match=r'plugin "schemer" 1\.0\.0 .* takes more than 100000 steps'):
            await manager.start_plugin("schemer")


SPY = """
    class Main:
        def find(self, shifted):
            # Every letter of it is the next one of the alphabet, or this very search would find what it is given.
            sought, found = shifted.encode(), 0
            next_letter = bytes((value + 1) % 256 for value in range(256))
            with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
                for line in maps:
                    span, rights = line.split()[:2]
                    if not rights.startswith("rw"):
                        continue
                    start, end = (int(part, 16) for part in span.split("-"))
                    try:
                        memory.seek(start)
                        found += memory.read(end - start).translate(next_letter).count(sought)
                    except (OSError, ValueError, OverflowError):
                        pass
            return found

        def order(self):
            with open("/proc/self/cmdline", "rb") as file:
                return file.read().decode()
"""


async def test_a_plugin_finds_nothing_of_another_instance_in_its_memory_nor_of_the_host_in_its_arguments(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("spy", SPY)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        labels = ("ownlabelofthisone", "topsecretcustomer")
        for label in reversed(labels):
            await manager.create_instance("spy", label=label)
            await manager.start_instance(f"spy/{label}")
        spy = "spy/ownlabelofthisone"
        own, other = ("".join(chr(ord(letter) + 1) for letter in label) for label in labels)
        assert await manager.call(spy, "find", own) > 0
        assert await manager.call(spy, "find", other) == 0
        assert "as_root" not in (order := await manager.call(spy, "order"))
        assert str(state_dir) not in order


EAVESDROPPER = """
    from cardcage_sdk import Plugin

    class Main(Plugin):
        def initialize(self):
            self.heard = []
            self.context.event_bus.subscribe("*", lambda name, data: self.heard.append([name, data.get("instance")]))
            return True

        def what(self):
            return self.heard
"""


@pytest.mark.parametrize("granted", [False, True])
async def test_a_plugin_hears_of_other_plugins_only_with_the_capability(
    granted: bool, write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin(
        "ear", EAVESDROPPER, manifest={"permissions": {"capabilities": [{"value": "ObservePlugins", "optional": True}]}}
    )
    write_plugin("other", "class Main:\n    pass\n")
    grants = {"ear": ["capability:ObservePlugins"]} if granted else {}
    async with PluginManager(
        plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False, grants=grants
    ) as manager:
        await manager.start_plugin("ear")
        await manager.start_plugin("other")
        manager.publish("month.closed", {})
        heard: list[list[str]] = []
        async with asyncio.timeout(30):
            while ["month.closed", None] not in heard:
                heard = await manager.call("ear", "what")
        assert any(instance == "other" for _, instance in heard) is granted
        assert any(instance == "ear" for _, instance in heard)
