"""A manager under a policy: every way to start asks it, its file is read anew, and its decisions are recorded."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from cardcage import PluginManager
from cardcage.audit import Action, MemoryAuditor
from cardcage.foundation.errors import InvalidDocument, Misuse, Refused
from cardcage.manager import PolicyWarning, UnconfinedWarning
from cardcage.policy import Level, parse_policy
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.plan import STRICT_FLOOR

PLAIN = """
from cardcage_sdk import Plugin

class Main(Plugin):
    def mine(self):
        return [list(self.context.permissions), self.context.has_permission("secret:S")]
"""


def policy_file(folder: Path, text: str) -> Path:
    path = folder / "policy.yaml"
    path.write_text(text)
    path.chmod(0o600)
    return path


async def test_every_way_to_start_asks_the_policy(write_plugin: Any, plugins_dir: Path, state_dir: Path) -> None:
    write_plugin("plain", PLAIN)
    write_plugin("needy", PLAIN, manifest={"dependencies": ["plain"]})
    policy = parse_policy("rules: [{name: not this one, when: {plugin: plain}, then: {deny: true}}]")
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, policy=policy) as manager:
        problems = {each.path: each.error for each in manager.problems()}
        assert 'rule "not this one" (policy.yaml, line 1) denies plugin "plain"' in problems["plain"].message
        assert "needs plain, which did not start" in problems["needy"].message
        for start in (
            manager.load_plugin("plain"),
            manager.start_plugin("plain"),
            manager.start_instance("plain"),
            manager.create_instance("plain", label="two"),
            manager.start_plugin("needy"),
        ):
            with pytest.raises(Refused) as caught:
                await start
            assert (caught.value.code, caught.value.fields["rule"]) == ("policy_denied", "not this one")
        with pytest.raises(Refused):
            manager.plan("plain")


async def test_a_policy_file_is_read_anew_at_each_start_and_refuses_while_it_is_invalid(
    write_plugin: Any, plugins_dir: Path, state_dir: Path, tmp_path: Path
) -> None:
    write_plugin("plain", PLAIN)
    path = policy_file(tmp_path, "level: standard")
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, policy=path) as manager:
        assert await manager.call("plain", "mine") == [[], False]
        await manager.unload_plugin("plain")
        path.write_text("level: standard\nrules: [{then: {denny: true}}]")
        with pytest.raises(Refused) as caught:
            await manager.start_plugin("plain")
        assert caught.value.code == "policy_invalid"
        assert caught.value.fields["faults"] == [
            "rules[0].then.denny: no such key; did you mean deny? (line 2)",
        ]
        path.write_text("rules: [{name: r, when: {plugin: plain}, then: {deny: true}}]")
        with pytest.raises(Refused, match='rule "r"'):
            await manager.start_plugin("plain")
        path.chmod(0o666)
        with pytest.raises(Refused, match="may be written by others"):
            await manager.start_plugin("plain")
        path.unlink()
        with pytest.raises(Refused) as caught:
            await manager.start_plugin("plain")
        assert caught.value.code == "policy_unreadable"
        policy_file(tmp_path, "level: standard")
        assert await manager.start_plugin("plain")


async def test_a_manager_does_not_open_with_a_policy_that_it_cannot_use(state_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument):
        async with PluginManager(state_dir=state_dir, policy=policy_file(tmp_path, "level: none")):
            pass
    with pytest.raises(Misuse, match="cannot be read"):
        async with PluginManager(state_dir=state_dir, policy=tmp_path / "missing.yaml"):
            pass
    with pytest.raises(Misuse, match="did you mean strict"):
        async with PluginManager(state_dir=state_dir, policy="strikt"):
            pass


async def test_strict_asks_for_every_layer_that_this_machine_was_seen_to_enforce(
    write_plugin: Any, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("plain", PLAIN)
    seen = await asyncio.to_thread(examine)
    if seen.below(STRICT_FLOOR):
        pytest.skip("this machine does not enforce the strict floor")
    async with PluginManager(
        plugin_paths=[plugins_dir], state_dir=state_dir, policy=Level.STRICT, auto_start=False
    ) as manager:
        plan = manager.plan("plain")
        wanted = {"landlock_files", "landlock_network", "cgroup_limits"}
        assert set(plan.floor) & wanted == {name for name in wanted if seen.status(name) == "enforced"}
        assert plan.limits.memory_bytes == 256 * 2**20
        await manager.start_plugin("plain")
        report = manager.report("plain")
        assert report is not None
        assert report.below([*plan.floor, "encryption"]) == ()


async def test_what_the_policy_says_is_recorded_and_so_is_what_it_warns_of(
    write_plugin: Any, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("plain", PLAIN)
    write_plugin("other", PLAIN)
    policy = parse_policy(
        "rules: [{name: no, when: {plugin: other}, then: {deny: true}}, "
        "{name: care, when: {plugin: plain}, then: {warn: take care, caps: {memory: 64MiB}}}]"
    )
    auditor = MemoryAuditor()
    manager = PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, policy=policy, audit=auditor)
    with pytest.warns(PolicyWarning, match="take care"):
        async with manager:
            assert manager.plan("plain").limits.memory_bytes == 64 * 2**20
    (applied,) = [event for event in auditor.of(Action.POLICY_APPLIED) if event.plugin == "plain"]
    assert applied.allowed
    assert "care" in applied.reason
    (refused,) = auditor.of(Action.POLICY_REFUSED)
    assert (refused.plugin, refused.fields["rule"], refused.fields["source"]) == ("other", "no", "policy.yaml, line 1")


async def test_a_plugin_sees_which_optional_permissions_it_got(
    write_plugin: Any, plugins_dir: Path, state_dir: Path
) -> None:
    asked = {"secrets": [{"name": "S", "optional": True}], "capabilities": [{"name": "Unheard", "optional": True}]}
    write_plugin("plain", PLAIN, manifest={"permissions": asked})
    nothing: list[str] = []
    for grants, seen in ((nothing, [nothing, False]), (["secret:S", "capability:Unheard"], [["secret:S"], True])):
        async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, grants={"plain": grants}) as manager:
            assert await manager.call("plain", "mine") == seen


async def test_all_plugins_run_unconfined_only_where_no_policy_is_against_it(
    write_plugin: Any, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("plain", PLAIN)
    manager = PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, isolation="unconfined", policy="standard")
    async with contextlib.AsyncExitStack() as stack:
        with pytest.warns(UnconfinedWarning):
            await stack.enter_async_context(manager)
        (problem,) = manager.problems()
        assert problem.error.code == "unconfined_refused"
        assert "plain" in problem.error.message


async def test_the_environment_of_the_host_is_what_rules_ask_for(
    write_plugin: Any, plugins_dir: Path, state_dir: Path, tmp_path: Path
) -> None:
    write_plugin("plain", PLAIN)
    path = policy_file(tmp_path, "rules: [{name: p, when: {environment: production}, then: {deny: true}}]")
    for environment, denied in (("production", True), ("staging", False)):
        config = {"policy": str(path), "environment": environment}
        async with PluginManager(config, plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
            assert bool(manager.problems()) is denied
