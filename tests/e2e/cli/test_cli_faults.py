"""Bad packages and bad plugins: each ends in one sentence that says who, which version, what was expected and found."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cardcage.storage import SqlStore

GOOD = """
from cardcage_sdk import Plugin


class Main(Plugin):
    def greet(self, name: str) -> str:
        return f"Good day, {name}."
"""

METHODS = """
import os
import sys
import time

from cardcage_sdk import Plugin


class Main(Plugin):
    def raises(self) -> str:
        raise ValueError("no more ink")

    def sleeps(self) -> str:
        time.sleep(3600)
        return "never"

    def leaves(self) -> str:
        os._exit(7)

    def exits(self) -> str:
        sys.exit("enough")

    def prints(self) -> str:
        print("in the middle of an answer", flush=True)
        os.write(1, b"\\x00\\x00\\x00\\x05raw\\n")
        return "printed"

    def scribbles(self) -> str:
        for name in os.listdir("/proc/self/fd"):
            try:
                if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                    os.write(int(name), b"\\x00\\x00\\x00\\x06GET / ")
            except OSError:
                pass
        return "scribbled"

    def takes(self, count: int) -> int:
        return count
"""


def register(cli: Any, name: str, code: str, manifest: str = "") -> None:
    ran = cli("plugins", "register", cli.plugin(name, code, manifest=manifest))
    assert ran.code == 0, ran.err


def nothing_is_registered(cli: Any) -> bool:
    """Whether the registry itself, if a command made one, holds neither a plugin nor an instance."""
    if not (cli.home / "registry.db").exists():
        return True
    store = SqlStore(cli.home / "registry.db")
    try:
        return not store.plugins() and not store.instances()
    finally:
        store.close()


@pytest.mark.parametrize(
    ("manifest", "fault"),
    [
        ("name: [unclosed", ""),
        ("name: Bad Name\nversion: one\nentrypoint: bad:Main\n", "name"),
        ("name: bad\nname: bad\nversion: 1.0.0\nentrypoint: bad:Main\n", "name"),
        ("version: 1.0.0\n", "entrypoint"),
        ("name: bad\nversion: 1.0.0\nentrypoint: bad:Main\nrequires: {cardcage: '>=99'}\n", "requires.cardcage"),
        ("name: bad\nversion: 1.0.0\nentrypoint: bad:Main\npermissions: {network: ['no port here!']}\n", "permissions"),
    ],
)
def test_a_malformed_manifest_is_refused_with_every_fault_and_its_path(cli: Any, manifest: str, fault: str) -> None:
    package = cli.plugin("bad", GOOD)
    (package / "plugin.yaml").write_text(manifest)
    for command in (("plugin", "validate"), ("plugin", "load"), ("plugins", "register")):
        ran = cli(*command, package, "--json")
        assert ran.code == 2
        assert ran.error["code"] in ("manifest_invalid", "package_invalid")
        assert any(fault in each["path"] for each in ran.error["faults"]), ran.error["faults"]
    plain = cli("plugin", "load", package)
    assert plain.code == 2
    assert plain.err.startswith("cardcage: ")
    assert "Traceback" not in plain.err
    assert nothing_is_registered(cli)


def test_every_fault_of_a_manifest_has_its_own_line(cli: Any) -> None:
    package = cli.plugin("bad", GOOD)
    (package / "plugin.yaml").write_text("name: Bad Name\nversion: one\npriority: 500\n")
    lines = cli("plugin", "validate", package).err.splitlines()
    assert len(lines) >= 4
    assert "faults):" in lines[0]
    assert all(line.startswith("  ") for line in lines[1:])


def test_an_entry_point_that_is_not_in_the_package_is_found_before_it_runs(cli: Any) -> None:
    package = cli.plugin("bad", GOOD)
    (package / "bad.py").rename(package / "badd.py")
    ran = cli("plugin", "load", package)
    assert ran.code == 2
    assert "'bad:Main' needs bad.py" in ran.err
    assert "badd" in ran.err
    assert nothing_is_registered(cli)


def test_a_missing_class_is_told_with_those_that_are_there(cli: Any) -> None:
    ran = cli("plugin", "load", cli.plugin("bad", GOOD.replace("class Main", "class Other")))
    assert ran.code == 1
    assert 'plugin "bad" 1.2.3' in ran.err
    assert '"Main"' in ran.err
    assert "Other" in ran.err
    assert nothing_is_registered(cli)


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("raise ValueError('at import')", "ValueError"),
        ("import sys; sys.exit(3)", "sys.exit(3)"),
        ("import requests_that_nobody_has", "requests_that_nobody_has"),
        ("def broken(:", "SyntaxError"),
    ],
)
def test_a_plugin_that_fails_at_import_is_named_and_not_registered(cli: Any, line: str, found: str) -> None:
    ran = cli("plugin", "load", cli.plugin("bad", line + GOOD))
    assert ran.code == 1
    assert 'plugin "bad" 1.2.3' in ran.err
    assert found in ran.err
    assert "Traceback" not in ran.err
    assert nothing_is_registered(cli)


def test_a_plugin_that_ends_its_process_at_import_is_told_with_its_status(cli: Any) -> None:
    ran = cli("plugin", "load", cli.plugin("bad", "import os; os._exit(7)"))
    assert ran.code == 1
    assert 'plugin "bad" 1.2.3' in ran.err
    assert "exit status 7" in ran.err
    assert nothing_is_registered(cli)


def test_a_plugin_that_hangs_at_import_misses_the_deadline(cli: Any) -> None:
    ran = cli("plugin", "load", cli.plugin("bad", "import time; time.sleep(3600)"), "--timeout", "0.5", "--json")
    assert ran.code == 1
    assert ran.error["code"] == "deadline_exceeded"
    assert 'plugin "bad" 1.2.3' in ran.error["message"]
    assert nothing_is_registered(cli)


def test_a_failed_load_leaves_the_release_that_was_there(cli: Any) -> None:
    package = cli.plugin("bad", GOOD)
    assert cli("plugin", "load", package).code == 0
    before = cli("plugin", "list", "--json").json
    (package / "bad.py").write_text("raise ValueError('at import')")
    assert cli("plugin", "load", package).code == 1
    assert cli("plugin", "list", "--json").json == before


def test_a_lifecycle_step_that_says_no_is_the_plugins_own_word(cli: Any) -> None:
    code = GOOD + "\n    def initialize(self) -> bool:\n        return False\n"
    ran = cli("plugin", "load", cli.plugin("bad", code), "--json")
    assert (ran.code, ran.error["code"]) == (1, "initialize_failed")
    assert nothing_is_registered(cli)


@pytest.mark.parametrize("config", ['{"dpi": "many"}', '{"dpi": 0}', '{"unknown": 1}', "{}"])
def test_a_wrong_config_is_refused_with_its_path(cli: Any, config: str) -> None:
    schema = "config_schema:\n  dpi: {type: integer, minimum: 1, required: true}\n"
    register(cli, "bad", GOOD, schema)
    for command in (("plugin", "call", "bad", "greet", "Ada"), ("plugin", "start", "bad"), ("plan", "bad")):
        ran = cli(*command, "--config", config, "--json")
        assert (ran.code, ran.error["code"]) == (2, "config_invalid"), command
        assert 'plugin "bad" 1.2.3' in ran.error["message"]
        assert ran.error["faults"]
    assert cli("plugin", "instances", "--json").json == []


@pytest.mark.parametrize(
    ("method", "code", "words"),
    [
        ("raises", "plugin_error", ["ValueError", "no more ink"]),
        ("sleeps", "deadline_exceeded", ["sleeps"]),
        ("leaves", "crashed", ["exit status 7", "leaves"]),
    ],
)
def test_a_call_that_goes_wrong_names_plugin_version_and_what_was_found(
    cli: Any, method: str, code: str, words: list[str]
) -> None:
    register(cli, "bad", METHODS)
    ran = cli("plugin", "call", "bad", method, "--timeout", "1", "--json")
    assert ran.code == 1
    assert ran.error["code"] == code
    assert 'plugin "bad" 1.2.3' in ran.error["message"]
    assert (ran.error["plugin"], ran.error["version"]) == ("bad", "1.2.3")
    for word in words:
        assert word in ran.error["message"]
    plain = cli("plugin", "call", "bad", method, "--timeout", "1")
    assert plain.code == 1
    assert "Traceback" not in plain.err
    assert len(plain.err.strip().splitlines()) <= 2


def test_a_method_that_the_plugin_has_not_is_the_callers_mistake_as_wrong_arguments_are(cli: Any) -> None:
    register(cli, "bad", METHODS)
    ran = cli("plugin", "call", "bad", "missing", "--json")
    assert (ran.code, ran.error["code"]) == (2, "method_not_found")
    assert (ran.error["plugin"], ran.error["version"]) == ("bad", "1.2.3")
    assert 'plugin "bad" 1.2.3 has no method missing' in ran.error["message"]
    assert "raises" in ran.error["message"], "what it has is said"
    arguments = cli("plugin", "call", "bad", "raises", "one", "two", "--json")
    assert (arguments.code, arguments.error["code"]) == (2, "invalid_params")


def test_a_plugin_that_asks_to_exit_fails_that_call(cli: Any) -> None:
    register(cli, "bad", METHODS)
    ran = cli("plugin", "call", "bad", "exits", "--json")
    assert ran.code == 1
    assert 'plugin "bad" 1.2.3' in ran.error["message"]


def test_what_a_plugin_prints_goes_to_its_log_and_never_into_the_answer(cli: Any) -> None:
    register(cli, "bad", METHODS)
    ran = cli("plugin", "call", "bad", "prints")
    assert (ran.code, json.loads(ran.out)) == (0, "printed")
    assert "in the middle of an answer" in cli("plugin", "logs", "bad").out


def test_garbage_on_the_wire_is_the_plugins_fault_and_named_so(cli: Any) -> None:
    register(cli, "bad", METHODS)
    ran = cli("plugin", "call", "bad", "scribbles", "--timeout", "5", "--json")
    assert ran.code == 1
    assert 'plugin "bad" 1.2.3' in ran.error["message"]
    assert ran.error["code"] in ("protocol_error", "connection_lost", "crashed")


def test_an_argument_of_the_wrong_type_is_told(cli: Any) -> None:
    register(cli, "bad", METHODS)
    ran = cli("plugin", "call", "bad", "takes", "many", "--json")
    assert ran.code in (1, 2)
    assert "int" in ran.error["message"]
    assert 'plugin "bad" 1.2.3' in ran.error["message"]


def test_a_plugin_that_lacks_what_it_says_it_provides_does_not_load(cli: Any) -> None:
    ran = cli("plugin", "load", cli.plugin("bad", GOOD, manifest="provides: [optimizer@1]\n"), "--json")
    assert (ran.code, ran.error["code"]) == (1, "contract_broken")
    assert 'plugin "bad" 1.2.3' in ran.error["message"]
    assert "analyze" in ran.error["message"]
    assert nothing_is_registered(cli)


def test_metadata_in_code_that_contradicts_the_manifest_does_not_load(cli: Any) -> None:
    code = """
from cardcage_sdk import BasePlugin, PluginMetadata


class Main(BasePlugin):
    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata(name="other", version="9.9.9", description="", author="", license="")
"""
    ran = cli("plugin", "load", cli.plugin("bad", code), "--json")
    assert (ran.code, ran.error["code"]) == (1, "contract_broken")
    assert "9.9.9" in ran.error["message"]
    assert nothing_is_registered(cli)


def test_a_result_of_the_wrong_shape_is_told_with_its_path(cli: Any) -> None:
    code = """
from cardcage_sdk import Plugin


class Main(Plugin):
    def analyze(self, resource: dict, metrics: dict) -> list:
        return [{"resource_id": resource["id"], "estimated_savings": "1.50", "confidence": metrics["confidence"]}]

    def analyze_many(self, items: list) -> list:
        return []
"""
    register(cli, "bad", code, "provides: [optimizer@1]\n")
    call = ("plugin", "call", "bad", "analyze", '{"id": "i-1"}')
    assert cli(*call, '{"confidence": 0.5}').json[0]["resource_id"] == "i-1"
    ran = cli(*call, '{"confidence": "high"}', "--json")
    assert (ran.code, ran.error["code"]) == (1, "invalid_result")
    assert 'plugin "bad" 1.2.3' in ran.error["message"]
    assert "Expected `float`, got `str` - at `$[0].confidence`" in ran.error["message"]
