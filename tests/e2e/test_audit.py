"""What a manager over real plugins leaves in its audit log."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cardcage import InvalidDocument, PluginFault, PluginManager, Refused
from cardcage.audit import Action, AuditEvent, MemoryAuditor
from cardcage.audit.chain import Entry, parse
from cardcage.audit.segments import open_log
from cardcage.audit.verify import verify_log
from cardcage.broker import PluginInfo
from cardcage.manager import UnconfinedWarning
from cardcage.supervise import PluginState

WritePlugin = Callable[..., Path]

ASKER = """
    from cardcage_sdk import Plugin

    class Main(Plugin):
        def ask(self, service):
            return self.context.api_client.call(service)

        def publish(self, name):
            self.context.event_bus.publish(name, {})

        def subscribe(self, pattern):
            self.context.event_bus.subscribe(pattern, lambda name, data: None)

        def fail(self):
            raise RuntimeError("the password is hunter2")
"""


def seven(caller: PluginInfo) -> int:
    return 7


def read(state_dir: Path) -> list[Entry]:
    with open_log(state_dir / "audit") as log:
        return [line.entry for raw in log.lines() if (line := parse(raw.data)) is not None]


def of(entries: list[Entry], action: Action) -> list[Entry]:
    return [entry for entry in entries if entry.action == action]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_life_from_registration_to_removal_is_recorded_with_its_reasons(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    folder = write_plugin("asker", ASKER, manifest={"permissions": ["ReadCostData"]})
    grants = {"asker": ["capability:ReadCostData"]}
    async with PluginManager(state_dir=state_dir, grants=grants) as manager:
        manager.register_service("costs.read", seven, capability="ReadCostData")
        await manager.register_plugin(folder)
        await manager.start_plugin("asker")
        assert await manager.call("asker", "ask", "costs.read") == 7
        await manager.stop_plugin("asker")
        await manager.remove_plugin("asker")
    entries = read(state_dir)
    assert [entry.action for entry in entries] == [
        Action.AUDIT_OPENED,
        Action.GRANT_GIVEN,
        Action.RELEASE_REGISTERED,
        Action.PERMISSION_DECIDED,
        Action.POLICY_APPLIED,
        Action.INSTANCE_LOADED,
        Action.INSTANCE_STARTED,
        Action.CAPABILITY_CALLED,
        Action.INSTANCE_STOPPED,
        Action.INSTANCE_UNLOADED,
        Action.RELEASE_REMOVED,
        Action.AUDIT_CHECKPOINT,
    ]
    (decided,) = of(entries, Action.PERMISSION_DECIDED)
    assert (decided.allowed, decided.plugin, decided.instance) == (True, "asker", "asker")
    assert decided.fields == {
        "grant": "capability:ReadCostData",
        "optional": False,
        "permission": "capability:ReadCostData",
    }
    (loaded,) = of(entries, Action.INSTANCE_LOADED)
    assert "system_call_filter=enforced" in str(loaded.fields["layers"])
    (called,) = of(entries, Action.CAPABILITY_CALLED)
    assert (called.actor, called.fields["service"], called.allowed) == ("plugin", "costs.read", True)


async def test_the_log_of_a_manager_can_be_verified(write_plugin: WritePlugin, state_dir: Path) -> None:
    write_plugin("asker", ASKER)
    for _ in range(2):
        async with PluginManager(plugin_paths=[state_dir.parent / "plugins"], state_dir=state_dir):
            pass
    with open_log(state_dir / "audit") as log:
        report = verify_log(log.lines(), kept=log.kept)
    assert report.faults == []
    assert report.unsigned == 0


async def test_what_was_not_granted_is_recorded_with_the_reason(write_plugin: WritePlugin, state_dir: Path) -> None:
    folder = write_plugin("asker", ASKER, manifest={"permissions": ["network:api.example.com:443"]})
    async with PluginManager(state_dir=state_dir) as manager:
        await manager.register_plugin(folder)
        with pytest.raises(Refused):
            await manager.start_plugin("asker")
    entries = read(state_dir)
    (decided,) = of(entries, Action.PERMISSION_DECIDED)
    assert decided.allowed is False
    assert "is not granted" in decided.reason
    (refused,) = of(entries, Action.INSTANCE_REFUSED)
    assert (refused.allowed, refused.fields["code"]) == (False, "permission_missing")


async def test_a_refused_service_event_and_subscription_are_recorded(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    folder = write_plugin("asker", ASKER)
    kept = MemoryAuditor()
    async with PluginManager(state_dir=state_dir, audit=kept) as manager:
        manager.register_service("costs.read", seven, capability="ReadCostData")
        await manager.register_plugin(folder)
        await manager.start_plugin("asker")
        with pytest.raises(PluginFault, match="not granted"):
            await manager.call("asker", "ask", "costs.read")
        await manager.call("asker", "publish", "plugin.started")
        with pytest.raises(PluginFault, match="cannot subscribe"):
            await manager.call("asker", "subscribe", "a b")
        await manager.call("asker", "subscribe", "plugin.*")
        manager.publish("plugin.crashed", {"instance": "other"})
        manager.publish("plugin.crashed", {"instance": "other"})
        await until(lambda: len(kept.of(Action.EVENT_REFUSED)) == 2)
    assert not (state_dir / "audit").exists()
    (refused,) = kept.of(Action.CAPABILITY_REFUSED)
    assert (refused.plugin, refused.allowed, refused.fields["service"]) == ("asker", False, "costs.read")
    (subscription,) = kept.of(Action.SUBSCRIPTION_REFUSED)
    assert subscription.fields["pattern"] == "a b"
    published, unheard = kept.of(Action.EVENT_REFUSED)
    assert (published.actor, published.fields["event"]) == ("plugin", "plugin.started")
    assert "ObservePlugins" in unheard.reason


async def test_a_crash_and_its_recovery_are_recorded(write_plugin: WritePlugin, state_dir: Path) -> None:
    folder = write_plugin("asker", ASKER)
    kept = MemoryAuditor()
    async with PluginManager(state_dir=state_dir, audit=kept) as manager:
        await manager.register_plugin(folder)
        await manager.start_plugin("asker")
        pid = manager.plugin_info("asker").instances[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await until(lambda: bool(kept.of(Action.INSTANCE_RESTARTED)))
    (crashed,) = kept.of(Action.INSTANCE_CRASHED)
    assert crashed.fields["pid"] == pid
    assert "exit_reason" in crashed.fields
    assert kept.of(Action.INSTANCE_RESTARTED)[0].fields["restarts"] == 1


async def test_a_package_that_was_changed_is_recorded_and_so_is_its_new_registration(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    folder = write_plugin("asker", ASKER)
    kept = MemoryAuditor()
    async with PluginManager(state_dir=state_dir, audit=kept) as manager:
        await manager.register_plugin(folder)
        (folder / "asker.py").write_text("class Main: pass")
        with pytest.raises(Refused):
            await manager.start_plugin("asker")
        await manager.register_plugin(folder)
        await manager.register_plugin(folder)
    (changed,) = kept.of(Action.RELEASE_CHANGED)
    assert changed.allowed is False
    first, second = kept.of(Action.RELEASE_REGISTERED)
    assert second.fields["digest_before"] == first.fields["digest"]


async def test_a_package_that_is_none_is_recorded_by_where_its_faults_are(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    folder = write_plugin("asker", ASKER, manifest={"priority": "secret-value"})
    kept = MemoryAuditor()
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, audit=kept) as manager:
        with pytest.raises(InvalidDocument):
            await manager.register_plugin(folder)
    found, registered = kept.of(Action.RELEASE_REFUSED)
    for event in (found, registered):
        assert (event.allowed, event.fields["path"]) == (False, str(folder))
        assert event.fields["paths"] == ["priority"]
        assert "secret-value" not in repr(event)


async def test_a_plugin_without_walls_is_recorded(write_plugin: WritePlugin, state_dir: Path) -> None:
    folder = write_plugin("asker", ASKER)
    kept = MemoryAuditor()
    config = {"plugins": {"asker": {"enabled": True, "isolation": "unconfined"}}}
    async with PluginManager(config, state_dir=state_dir, audit=kept) as manager:
        await manager.register_plugin(folder)
        with pytest.warns(UnconfinedWarning):
            await manager.start_plugin("asker")
    (event,) = kept.of(Action.INSTANCE_UNCONFINED)
    assert event.actor == "operator"


async def test_an_instance_and_its_grants_are_recorded_and_its_config_is_not(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    folder = write_plugin("asker", ASKER, manifest={"permissions": ["ReadCostData"]})
    async with PluginManager(state_dir=state_dir) as manager:
        await manager.register_plugin(folder)
        instance = await manager.create_instance(
            "asker", {"api_key": "hunter2"}, label="eu", grants=["capability:ReadCostData"]
        )
        await manager.start_instance(instance)
        with pytest.raises(PluginFault):
            await manager.call(instance, "fail")
        await manager.remove_instance(instance)
    entries = read(state_dir)
    (given,) = of(entries, Action.GRANT_GIVEN)
    assert (given.instance, given.fields["grants"]) == ("asker/eu", ["capability:ReadCostData"])
    assert of(entries, Action.INSTANCE_CREATED)
    assert of(entries, Action.INSTANCE_REMOVED)
    log = b"".join(file.read_bytes() for file in (state_dir / "audit").glob("log-*"))
    assert b"hunter2" not in log


async def test_a_plugin_that_fails_while_it_starts_is_recorded_without_its_words(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    code = """
        class Main:
            def start(self):
                raise RuntimeError("the password is hunter2")
    """
    folder = write_plugin("broken", code)
    kept = MemoryAuditor()
    async with PluginManager(state_dir=state_dir, audit=kept) as manager:
        await manager.register_plugin(folder)
        with pytest.raises(PluginFault, match="hunter2"):
            await manager.start_plugin("broken")
        assert manager.get_plugin_status("broken") is PluginState.ERROR
    (failed,) = kept.of(Action.INSTANCE_FAILED)
    assert "hunter2" not in repr(failed)


async def test_a_look_at_a_plan_is_no_decision(write_plugin: WritePlugin, state_dir: Path) -> None:
    folder = write_plugin("asker", ASKER)
    kept = MemoryAuditor()
    async with PluginManager(state_dir=state_dir, audit=kept) as manager:
        await manager.register_plugin(folder)
        before = len(kept.events)
        manager.plan("asker")
        assert len(kept.events) == before


async def test_auditing_is_off_only_where_that_is_said(
    write_plugin: WritePlugin, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_plugin("asker", ASKER)
    async with PluginManager(state_dir=state_dir, audit=False) as manager:
        await manager.register_plugin(folder)
    assert not (state_dir / "audit").exists()
    assert "auditing is switched off" in caplog.text
    async with PluginManager({"audit": False}, state_dir=state_dir) as manager:
        await manager.register_plugin(folder)
    assert not (state_dir / "audit").exists()
    shutil.rmtree(state_dir)
    async with PluginManager(state_dir=state_dir) as manager:
        await manager.register_plugin(folder)
        own: Any = AuditEvent(action=Action.POLICY_APPLIED, reason="the embedding program may record too")
        manager.audit.record(own)
    assert of(read(state_dir), Action.POLICY_APPLIED)
