"""The command line itself: help, completion, errors of usage, and how fast it answers."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest


def test_help_names_every_group_and_the_installed_packs(cli: Any) -> None:
    ran = cli("--help")
    assert ran.code == 0
    for word in ("plugin", "plugins", "doctor", "plan", "version", "completion", "finops"):
        assert f"  {word} " in ran.out


def test_help_imports_neither_the_manager_nor_a_pack(cli: Any) -> None:
    code = (
        "import sys, json\n"
        "from cardcage.cli import main\n"
        "main(['--help'])\n"
        "heavy = ('cardcage.manager', 'cardcage_finops', 'sqlalchemy', 'pydantic', 'rich', 'yaml', 'asyncio')\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=cli.environment(), capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_commands_of_a_pack_stand_under_its_name(cli: Any) -> None:
    ran = cli("finops", "--help")
    assert ran.code == 0
    assert "cardcage finops" in ran.out
    assert "analyze" in ran.out


def test_no_arguments_show_the_help_in_lines_as_a_misuse(cli: Any) -> None:
    for words in ((), ("plugin",)):
        ran = cli(*words)
        assert (ran.code, ran.out) == (2, "")
        assert "\nCommands:\n" in ran.err


def test_the_option_version_is_the_command(cli: Any) -> None:
    assert cli("--version").out == cli("version").out
    assert cli("--version", "--json").json["cardcage"]


def test_a_word_that_is_not_utf8_is_a_misuse(cli: Any) -> None:
    ran = cli.spawn("plugin", "info", "\udcff\udcfe", "--json")
    assert (ran.code, ran.error["code"]) == (2, "usage")


def test_an_output_that_takes_nothing_is_one_sentence(cli: Any) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            cli.command("version", "--json"),
            env=cli.environment(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr == "cardcage: the output cannot be written: No space left on device\n"


def test_closed_streams_change_neither_status_nor_quiet(cli: Any) -> None:
    shut = "import os, sys; os.close(1); os.close(2); os.execv(sys.argv[1], sys.argv[1:])"
    command = [sys.executable, "-c", shut, *cli.command("version")]
    assert subprocess.run(command, env=cli.environment(), check=False, timeout=60).returncode == 0


def test_an_unknown_command_is_a_usage_error_with_a_hint(cli: Any) -> None:
    ran = cli.spawn("plugin", "lisst")
    assert (ran.code, ran.out) == (2, "")
    assert "No such command 'lisst'" in ran.err
    assert "hint: cardcage plugin --help" in ran.err


@pytest.mark.parametrize(
    "args",
    [["plugin", "call"], ["plugin", "info"], ["plugin", "list", "--nope"], ["plugin", "logs", "x", "-n", "o"]],
)
def test_a_wrong_command_line_is_one_sentence_or_json(cli: Any, args: list[str]) -> None:
    plain, as_json = cli(*args), cli(*args, "--json")
    assert plain.code == as_json.code == 2
    assert "Traceback" not in plain.err
    assert as_json.error["code"] == "usage"
    assert as_json.error["message"] in plain.err


def test_version_tells_the_packs_too(cli: Any) -> None:
    assert cli("version").out.startswith("cardcage ")
    assert set(cli("version", "--json").json) == {"cardcage", "python", "packs"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_offered_for_three_shells(cli: Any, shell: str) -> None:
    assert f"source_{shell}" in cli("completion", shell).out
    script = cli(env={"_CARDCAGE_COMPLETE": f"source_{shell}"})
    assert "_CARDCAGE_COMPLETE" in script.out
    assert cli("--show-completion", env={"SHELL": f"/bin/{shell}"}).code in (0, 1)


def test_bash_completes_commands_and_those_of_packs(cli: Any) -> None:
    def complete(words: str) -> list[str]:
        asked = {
            "_CARDCAGE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split(" ")) - 1),
        }
        return cli(env=asked).out.split()

    assert complete("cardcage plu") == ["plugin", "plugins"]
    assert "validate" in complete("cardcage plugin ")
    assert "analyze" in complete("cardcage finops an")


def test_an_unusable_state_folder_is_a_usage_error(cli: Any) -> None:
    (cli.folder / "file").write_text("")
    ran = cli("plugin", "list", "--state-dir", cli.folder / "file", "--json")
    assert (ran.code, ran.error["code"]) == (2, "state_dir_unusable")


def test_a_state_folder_that_others_may_write_is_refused_with_the_remedy(cli: Any) -> None:
    loose = cli.folder / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    ran = cli("plugin", "list", "--state-dir", loose)
    assert ran.code == 2
    assert f"hint: chmod go-w {loose}" in ran.err


def test_a_reader_that_goes_away_is_no_error_to_talk_about(cli: Any) -> None:
    process = cli.popen("plugin", "list", "--json")
    process.stdout.close()
    err = process.stderr.read()
    process.wait(timeout=60)
    assert "Traceback" not in err
    assert "Exception" not in err


def test_a_debugging_operator_sees_the_trace_and_others_do_not(cli: Any) -> None:
    assert "Traceback" not in cli("plugin", "info", "nope").err
    assert "Traceback" in cli("plugin", "info", "nope", env={"CARDCAGE_DEBUG": "1"}).err
