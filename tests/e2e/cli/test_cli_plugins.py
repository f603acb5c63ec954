"""The life of a plugin told in commands: validate, load, look, call, start, stop, logs, remove."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

GREETER = """
from cardcage_sdk import Plugin


class Main(Plugin):
    def start(self) -> None:
        print("hello from stdout")
        self.logger.warning("ready for %s", self.config.get("who"))

    def greet(self, name: str, loud: bool = False) -> str:
        text = f"{self.config.get('greeting', 'Good day')}, {name}."
        return text.upper() if loud else text

    def answer(self) -> dict:
        return {"pi": 3.25, "names": ["Zoë"], "none": None, "raw": b"\\x00"}
"""
CONFIG = """
config_schema:
  greeting: {type: string, default: Good day}
  who: {type: string, default: nobody}
"""
READER = """
from pathlib import Path

from cardcage_sdk import Plugin


class Main(Plugin):
    def size(self) -> int:
        return Path(self.config["path"]).stat().st_size
"""
READER_MANIFEST = """
permissions:
  files:
    read: ["${config.path}"]
config_schema:
  path: {type: string, required: true}
"""


@pytest.fixture
def greeter(cli: Any) -> Path:
    package: Path = cli.plugin("greeter", GREETER, manifest=CONFIG)
    loaded = cli("plugin", "load", package)
    assert loaded.code == 0, loaded.err
    return package


def test_validate_runs_nothing_and_registers_nothing(cli: Any) -> None:
    package = cli.plugin("greeter", "raise SystemExit('ran')", manifest=READER_MANIFEST)
    ran = cli("plugin", "validate", package)
    assert ran.code == 0
    assert "greeter 1.2.3 is valid" in ran.out
    assert "read:${config.path}" in ran.out
    as_json = cli("plugin", "validate", package, "--json").json
    assert as_json["valid"] is True
    assert as_json["permissions"][0]["means"] == "reading ${config.path}"
    assert len(as_json["digest"]) == 64
    assert cli("plugin", "list", "--json").json == []


def test_load_registers_a_package_and_proves_that_it_loads(cli: Any) -> None:
    package = cli.plugin("greeter", GREETER, manifest=CONFIG)
    ran = cli("plugin", "load", package, "--json").json
    assert (ran["name"], ran["version"], ran["state"], ran["isolation"]) == ("greeter", "1.2.3", "loaded", "process")
    assert "enforced" in ran["walls"]
    assert ran["digest"] == cli("plugin", "validate", package, "--json").json["digest"]
    listed = cli("plugin", "list", "--json").json
    assert [(each["name"], each["state"], each["enabled"]) for each in listed] == [("greeter", "unloaded", True)]


def test_nothing_of_a_load_keeps_running(cli: Any) -> None:
    pid = cli("plugin", "load", cli.plugin("greeter", GREETER), "--json").json["pid"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_register_only_registers(cli: Any) -> None:
    package = cli.plugin("greeter", "raise SystemExit('ran')")
    ran = cli("plugins", "register", package)
    assert ran.code == 0
    assert "registered greeter 1.2.3" in ran.out
    assert "greeter" in cli("plugins", "list").out


def test_info_and_status_tell_what_is_known(cli: Any, greeter: Path) -> None:
    info = cli("plugin", "info", "greeter")
    assert info.code == 0
    assert str(greeter) in info.out
    assert "sha256:" in info.out
    assert "asks for no permissions" in info.out
    as_json = cli("plugin", "info", "greeter", "--json").json
    assert as_json["manifest"]["entrypoint"]["raw"] == "greeter:Main"
    status = cli("plugin", "status", "greeter", "--json").json
    assert (status["state"], status["enabled"]) == ("unloaded", True)


def test_a_call_prints_the_result_as_json(cli: Any, greeter: Path) -> None:
    assert cli("plugin", "call", "greeter", "greet", "Ada").json == "Good day, Ada."
    assert cli("plugin", "call", "greeter", "greet", "Ada", "true").json == "GOOD DAY, ADA."
    assert cli("plugin", "call", "greeter", "greet", '"7"', "--json").json == {"result": "Good day, 7."}
    answer = cli("plugin", "call", "greeter", "answer")
    assert answer.json == {"pi": 3.25, "names": ["Zoë"], "none": None, "raw": "AA=="}


def test_a_config_of_a_call_is_for_that_call_alone(cli: Any, greeter: Path) -> None:
    call = ("plugin", "call", "greeter", "greet", "Ada")
    assert cli(*call, "--config", '{"greeting": "Hi"}').json == "Hi, Ada."
    assert cli(*call).json == "Good day, Ada."
    (cli.folder / "config.yaml").write_text("greeting: Ahoy\n")
    assert cli(*call, "--config", cli.folder / "config.yaml").json == "Ahoy, Ada."


def test_a_start_proves_itself_says_that_it_ended_and_remembers_the_config(cli: Any, greeter: Path) -> None:
    ran = cli("plugin", "start", "greeter", "--config", '{"greeting": "Hi"}')
    assert ran.code == 0, ran.err
    assert "greeter 1.2.3 is active: process" in ran.out
    assert "a plugin runs only while a host runs" in ran.out
    assert cli("plugin", "call", "greeter", "greet", "Ada").json == "Hi, Ada."
    (instance,) = cli("plugin", "instances", "greeter", "--json").json
    assert (instance["id"], instance["config"], instance["desired"]) == ("greeter", {"greeting": "Hi"}, "started")


def test_a_labelled_instance_has_a_config_of_its_own(cli: Any, greeter: Path) -> None:
    started = cli("plugin", "start", "greeter/eu", "--config", '{"greeting": "Salut"}', "--json").json
    assert (started["instance"], started["state"]) == ("greeter/eu", "active")
    assert cli("plugin", "call", "greeter/eu", "greet", "Ada").json == "Salut, Ada."
    assert cli("plugin", "call", "greeter", "greet", "Ada").json == "Good day, Ada."
    assert "greeter/eu" in cli("plugin", "instances").out
    assert cli("plugin", "remove", "greeter/eu").code == 0
    assert "greeter/eu" not in cli("plugin", "instances").out
    assert cli("plugin", "info", "greeter").code == 0


def test_stop_disables_and_start_enables(cli: Any, greeter: Path) -> None:
    assert "is disabled" in cli("plugin", "stop", "greeter").out
    assert cli("plugin", "status", "greeter", "--json").json["enabled"] is False
    assert cli("plugin", "start", "greeter").code == 0
    assert cli("plugin", "status", "greeter", "--json").json["enabled"] is True


def test_the_logs_of_earlier_runs_stay(cli: Any, greeter: Path) -> None:
    cli("plugin", "start", "greeter", "--config", '{"who": "Ada"}')
    lines = cli("plugin", "logs", "greeter", "--json").json
    said = {(line["source"], line["level"], line["text"]) for line in lines}
    assert ("stdout", "info", "hello from stdout") in said
    assert ("log", "warning", "ready for Ada") in said
    assert "ready for Ada" in cli("plugin", "logs", "greeter", "-n", "50").out
    assert len(cli("plugin", "logs", "greeter", "-n", "1").out.splitlines()) == 1


def test_a_foreground_start_shows_the_log_and_ends_at_ctrl_c(cli: Any, greeter: Path) -> None:
    process = cli.popen("plugin", "start", "greeter", "--foreground")
    seen: list[str] = []
    for line in process.stdout:
        seen.append(line)
        if "is active" in line:
            break
    process.send_signal(signal.SIGINT)
    rest, err = process.communicate(timeout=60)
    assert "[plugin:greeter]" in "".join(seen) + rest
    assert "hello from stdout" in "".join(seen) + rest
    assert process.returncode == 130
    assert "Traceback" not in err
    pid = int("".join(seen).split("process ")[1].split(",")[0])
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_missing_grant_is_refused_with_what_to_do_and_a_given_one_works(cli: Any) -> None:
    bill = cli.folder / "bill.csv"
    bill.write_text("12345")
    config = ("--config", json.dumps({"path": str(bill)}))
    assert cli("plugins", "register", cli.plugin("reader", READER, manifest=READER_MANIFEST)).code == 0
    refused = cli("plugin", "call", "reader", "size", *config)
    assert refused.code == 3
    assert 'plugin "reader" 1.2.3 needs what it was not granted' in refused.err
    assert f"hint: grant it: --grant read:{bill}" in refused.err
    granted = cli("plugin", "call", "reader", "size", *config, "--grant", f"read:{bill}")
    assert (granted.code, granted.out.strip()) == (0, "5")
    assert cli("plugin", "call", "reader", "size", *config).code == 3, "the grant was for that call alone"


def test_plan_shows_the_walls_without_starting_anything(cli: Any) -> None:
    bill = cli.folder / "bill.csv"
    bill.write_text("12345")
    cli("plugins", "register", cli.plugin("reader", READER, manifest=READER_MANIFEST))
    asked = ("plan", "reader", "--config", json.dumps({"path": str(bill)}), "--grant", f"read:{bill}")
    plan = cli(*asked, "--json").json
    assert plan["isolation"] == "process"
    assert str(bill) in {mount["target"] for mount in plan["mounts"]}
    shown = cli(*asked)
    assert shown.code == 0
    assert "sees these files, and no others" in shown.out
    assert str(bill) in shown.out
    in_a_machine = cli(*asked, "--isolation", "vm", "--json")
    assert in_a_machine.code == 3, "it would not start either"
    # Without QEMU, or without namespaces for it, that is what is told.
    assert in_a_machine.error["code"] in ("vm_grant_impossible", "vm_unavailable", "isolation_unavailable")
    assert cli("plugin", "instances", "--json").json == []


def test_a_package_that_was_changed_does_not_start(cli: Any, greeter: Path) -> None:
    with (greeter / "greeter.py").open("a") as file:
        file.write("\n# changed\n")
    ran = cli("plugin", "call", "greeter", "greet", "Ada", "--json")
    assert (ran.code, ran.error["code"]) == (3, "digest_mismatch")
    assert cli("plugin", "load", greeter).code == 0
    assert cli("plugin", "call", "greeter", "greet", "Ada").code == 0


def test_an_older_release_is_refused_until_the_operator_says_otherwise(cli: Any) -> None:
    package: Path = cli.plugin("polite", "class Main:\n    pass\n")
    manifest = package / "plugin.yaml"
    text = manifest.read_text()
    assert "version: 1.2.3" in text
    manifest.write_text(text.replace("1.2.3", "1.3.0"))
    assert cli("plugins", "register", package).code == 0
    manifest.write_text(text)
    refused = cli("plugins", "register", package)
    assert refused.code == 3
    assert 'plugin "polite" 1.2.3 was not registered: 1.3.0 is, and this is older' in refused.err
    assert "--allow-older" in refused.err
    assert cli("plugins", "register", package, "--allow-older").code == 0
    assert cli("plugin", "info", "polite", "--json").json["version"] == "1.2.3"


def test_removing_forgets_the_plugin_and_keeps_its_data(cli: Any, greeter: Path) -> None:
    cli("plugin", "start", "greeter")
    ran = cli("plugin", "remove", "greeter", "--json").json
    assert Path(ran["data_dir"]).is_dir()
    assert cli("plugin", "list", "--json").json == []
    assert cli("plugin", "call", "greeter", "greet", "Ada").code == 2


def test_an_unknown_plugin_is_named_with_those_that_are_known(cli: Any, greeter: Path) -> None:
    for command in ("info", "status", "start", "stop", "remove", "logs"):
        ran = cli("plugin", command, "gretter", "--json")
        assert (ran.code, ran.error["code"]) == (2, "unknown_plugin"), command
        assert "greeter" in ran.error["message"]
    assert cli("plugin", "call", "gretter", "greet", "--json").error["code"] == "unknown_plugin"
    assert cli("plan", "gretter").code == 2


def test_running_without_walls_is_said_in_capitals(cli: Any, greeter: Path) -> None:
    ran = cli("plugin", "call", "greeter", "greet", "Ada", "--isolation", "unconfined")
    assert (ran.code, json.loads(ran.out)) == (0, "Good day, Ada.")
    assert "UNCONFINED" in ran.err
    assert "WITHOUT WALLS" in ran.err
    assert "UNCONFINED" not in cli("plugin", "call", "greeter", "greet", "Ada").err


def test_what_a_manifest_and_a_plugin_say_cannot_drive_the_terminal(cli: Any) -> None:
    code = GREETER.replace("hello from stdout", "\\x1b[31mred\\x1b]0;title\\x07 [bold]x[/bold]")
    package = cli.plugin("greeter", code, manifest='description: "\\x1b[31m[red]evil[/red]\\u202e"\n')
    shown = [cli("plugin", "load", package), cli("plugin", "start", "greeter")]
    shown += [cli("plugin", "list"), cli("plugin", "info", "greeter"), cli("plugin", "logs", "greeter")]
    for ran in shown:
        assert "\x1b" not in ran.out + ran.err
        assert "\u202e" not in ran.out + ran.err
    if shown[0].code == 0:
        assert "[bold]x[/bold]" in shown[-1].out


def test_doctor_says_what_holds_and_answers_with_its_status(cli: Any) -> None:
    ran = cli("doctor")
    machine = cli("doctor", "--json")
    assert ran.code == machine.code == (0 if machine.json["strict"] else 1)
    assert {"user_namespace", "system_call_filter"} <= {layer["name"] for layer in machine.json["layers"]}
    for layer in machine.json["layers"]:
        assert layer["name"] in ran.out
    if machine.json["strict"] and shutil.which("crun"):
        (crun,) = (trial for trial in machine.json["containers"] if trial["name"] == "crun")
        assert (crun["works"], crun["detail"]) == (True, "every layer of the plan was seen to hold inside")
        assert crun["path"] in ran.out
