"""`cardcage policy ...` and what a policy does to the commands that start plugins."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

GREETER = """
from cardcage_sdk import Plugin

class Main(Plugin):
    def greet(self, name):
        return f"Good day, {name}."

    def mine(self):
        return [list(self.context.permissions), list(self.context.missing_permissions)]
"""
ASKING = """
permissions:
  network: ["*.example.com:443"]
  read: [{path: /srv/extra/, optional: true}]
limits: {memory: 2GiB}
"""


@pytest.fixture
def greeter(cli: Any) -> Path:
    package: Path = cli.plugin("greeter", GREETER)
    assert cli("plugins", "register", package).code == 0
    return package


def write(folder: Path, text: str, name: str = "policy.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_policy_file_is_checked_with_every_fault(cli: Any, tmp_path: Path) -> None:
    good = write(tmp_path, "level: strict\nrules: [{when: {plugin: x}, then: {deny: true}}]")
    ran = cli("policy", "check", good, "--json")
    assert (ran.code, ran.json["valid"], ran.json["level"]) == (0, True, "strict")
    assert ran.json["rules"][-1]["position"] == f"{good}, line 2"
    assert "is a valid policy" in cli("policy", "check", good).out
    bad = write(tmp_path, "level: strikt\nrules: [{then: {floor: landlok_files}}]", "bad.yaml")
    ran = cli("policy", "check", bad, "--json")
    assert (ran.code, ran.error["code"]) == (2, "policy_invalid")
    assert [fault["path"] for fault in ran.error["faults"]] == ["level", "rules[0].then.floor"]
    assert "did you mean landlock_files?" in cli("policy", "check", bad).err
    assert cli("policy", "check", tmp_path / "none.yaml", "--json").error["code"] == "policy_unreadable"


def test_a_policy_that_others_can_write_is_refused_with_how_to_mend_it(cli: Any, greeter: Path, tmp_path: Path) -> None:
    path = write(tmp_path, "level: permissive")
    path.chmod(0o662)
    for command in (["policy", "check", path], ["plugin", "call", "greeter", "greet", "Ada", "--policy", path]):
        ran = cli(*command, "--json")
        assert (ran.code, ran.error["code"], ran.error["hint"]) == (2, "policy_unsafe", f"chmod go-w {path}")
    folder = tmp_path / "open"
    folder.mkdir()
    inner = write(folder, "level: permissive")
    folder.chmod(0o777)
    assert cli("policy", "check", inner, "--json").error["code"] == "policy_unsafe"
    folder.chmod(0o1777)
    assert cli("policy", "check", inner).code == 0
    assert "is no file" in cli("policy", "check", folder).err
    folder.chmod(0o777)
    link = folder / "link.yaml"
    link.symlink_to(write(tmp_path, "level: strict", "mine.yaml"))
    assert cli("policy", "check", link, "--json").error["code"] == "policy_unsafe"


def test_the_levels_are_shown_as_the_rules_they_stand_for(cli: Any) -> None:
    shown = {level: cli("policy", "show", "--policy", level, "--json").json for level in ("strict", "standard")}
    assert shown["strict"]["rules"][0]["then"]["floor_where_possible"]
    assert [rule["name"] for rule in shown["standard"]["rules"]] == ["standard/walls", "standard/unconfined-by-name"]
    assert cli("policy", "show", "--json").json["origin"] == "default"
    assert "unconfined: named" in cli("policy", "show").out
    ran = cli("policy", "show", "--policy", "strikt")
    assert (ran.code, "did you mean strict?" in ran.err) == (2, True)


def test_the_policy_is_that_of_the_command_else_of_the_environment_else_of_the_state_folder(
    cli: Any, greeter: Path, tmp_path: Path
) -> None:
    write(cli.home, "level: permissive")
    named = write(tmp_path, "level: strict")
    assert cli("policy", "show", "--json").json["origin"] == "state folder"
    env = {"CARDCAGE_POLICY": str(named)}
    assert cli("policy", "show", "--json", env=env).json["level"] == "strict"
    assert cli("policy", "show", "--json", "--policy", "standard", env=env).json["level"] == "standard"


def test_explain_names_the_rule_the_place_and_every_answer(cli: Any, tmp_path: Path) -> None:
    package = cli.plugin("greeter", GREETER, manifest=ASKING)
    assert cli("plugins", "register", package).code == 0
    policy = write(
        tmp_path,
        "rules:\n"
        "- {name: no wildcards, reason: ask the network people, when: {broad: network}, then: {deny: true}}\n"
        "- {name: small, when: {limits: {memory: '> 1GiB'}}, then: {caps: {memory: 128MiB}}}\n",
    )
    ran = cli("policy", "explain", "greeter", "--policy", policy, "--json")
    assert (ran.code, ran.json["starts"]) == (3, False)
    judged = ran.json["policy"]
    assert judged["limits"]["memory"] == 128 * 2**20
    assert [(each["rule"], each["position"]) for each in judged["denials"]] == [("no wildcards", f"{policy}, line 2")]
    answers = {each["permission"]: each for each in ran.json["permissions"]}
    assert answers["read:/srv/extra/"]["optional"]
    assert "ask the network people" in answers["network:*.example.com:443"]["reason"]
    shown = cli("policy", "explain", "greeter", "--policy", policy)
    assert "would NOT start" in shown.out
    assert "memory=128MiB" in shown.out
    granted = cli("policy", "explain", "greeter", "--grant", "network:*.example.com:443", "--json")
    assert (granted.code, granted.json["starts"]) == (0, True)


def test_a_denial_refuses_the_start_and_a_grant_of_the_policy_is_a_grant(cli: Any, tmp_path: Path) -> None:
    package = cli.plugin("greeter", GREETER, manifest=ASKING)
    folder = tmp_path / "srv"
    folder.mkdir()
    assert cli("plugins", "register", package).code == 0
    granting = write(
        tmp_path, 'rules: [{name: ours, when: {plugin: greeter}, then: {grant: "network:*.example.com:443"}}]'
    )
    ran = cli("plugin", "call", "greeter", "mine", "--policy", granting)
    assert ran.code == 0, ran.err
    assert json.loads(ran.out) == [["network:*.example.com:443"], ["read:/srv/extra/"]]
    ran = cli("plugin", "call", "greeter", "mine", "--policy", "strict", "--json")
    assert (ran.code, ran.error["code"], ran.error["rule"]) == (3, "policy_denied", "strict/nothing-broad")
    assert ran.error["permissions"] == ["network:*.example.com:443"]


def test_a_policy_keeps_plugins_from_running_unconfined(cli: Any, greeter: Path, tmp_path: Path) -> None:
    words = ("plugin", "call", "greeter", "greet", "Ada", "--isolation", "unconfined", "--json")
    assert cli(*words).code == 0
    ran = cli(*words, "--policy", "strict")
    assert (ran.code, ran.error["code"], ran.error["position"]) == (3, "unconfined_refused", "level strict")


def test_an_unknown_capability_is_refused_with_those_that_the_host_has(cli: Any) -> None:
    package = cli.plugin("greeter", GREETER, manifest="permissions: [ObservePlugin]\n")
    ran = cli("plugin", "load", package, "--grant", "capability:ObservePlugin", "--json")
    assert (ran.code, ran.error["code"]) == (3, "capability_unknown")
    assert "did you mean ObservePlugins?" in ran.error["message"]
    assert "ObservePlugins" in ran.error["hint"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_policy_of_another_user_is_refused(cli: Any, tmp_path: Path) -> None:
    path = write(tmp_path, "level: permissive")
    os.chown(path, 65534, 65534)
    ran = cli("policy", "check", path, "--json")
    assert (ran.error["code"], ran.error["hint"]) == ("policy_unsafe", f"chown 0 {path}")
