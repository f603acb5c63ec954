"""The reference of all commands, written from the commands themselves: `python -m cardcage.cli.reference`."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import typer

from cardcage.cli import environment, exits
from cardcage.cli.app import app

_HEAD: Final = """# The `cardcage` command

Generated from the commands themselves; `python -m cardcage.cli.reference` prints it anew.

Every command takes `--help`. Commands that answer with data take `--json`; their errors are JSON then too, as
`{"error": {"code": ..., "message": ..., "hint": ...}}` on standard output. Otherwise an error is one sentence on
standard error, with a hint below it. Installed packs add groups of their own, such as `cardcage finops`.
"""

_SHARED_BY: Final = 3


def reference() -> str:
    """The whole reference as Markdown."""
    commands = dict(_commands(typer.main.get_group(app), "cardcage"))
    shared = _shared(commands.values())
    described = [_command(command, path, shared) for path, command in commands.items()]
    return "\n".join([_HEAD, _exit_codes(), _environment(), _shared_options(shared), *described])


def _exit_codes() -> str:
    rows = [f"| {code.value} | {meaning} |" for code, meaning in exits.MEANINGS.items()]
    return "\n".join(["## Exit status", "", "| status | meaning |", "|--:|---|", *rows, ""])


def _environment() -> str:
    rows = [f"| `{name}` | {meaning} |" for name, meaning in environment.MEANINGS.items()]
    return "\n".join(["## Environment", "", "| variable | meaning |", "|---|---|", *rows, ""])


def _commands(group: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def _shared(commands: Iterable[Any]) -> dict[str, Any]:
    """The options that at least three commands have, by name."""
    options = [each for command in commands for each in command.params if each.param_type_name == "option"]
    names = Counter(each.opts[0] for each in options)
    return {each.opts[0]: each for each in options if names[each.opts[0]] >= _SHARED_BY}


def _shared_options(shared: Mapping[str, Any]) -> str:
    rows = [f"| `{_name(each)}` | {_help(each)} |" for _, each in sorted(shared.items())]
    return "\n".join(["## Options that several commands share", "", "| | |", "|---|---|", *rows, ""])


def _command(command: Any, path: str, shared: Mapping[str, Any]) -> str:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option"]
    usage = " ".join([path, *(["[OPTIONS]"] if options else []), *(_argument(each) for each in arguments)])
    lines = [f"## {path}", "", inspect.cleandoc(command.help or ""), "", f"    {usage}", ""]
    own = [*arguments, *(each for each in options if each.opts[0] not in shared)]
    if own:
        lines += ["| | |", "|---|---|", *(f"| `{_name(each)}` | {_help(each)} |" for each in own), ""]
    if also := [f"`{each.opts[0]}`" for each in options if each.opts[0] in shared]:
        lines += [f"And {', '.join(also)}.", ""]
    return "\n".join(lines)


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).strip("[]").upper()
    return name if parameter.required else f"[{name}]" + ("..." if parameter.nargs == -1 else "")


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _argument(parameter).replace("|", "\\|")
    takes = "" if getattr(parameter, "is_flag", False) else f" {parameter.metavar or _kind(parameter)}"
    return (", ".join(parameter.opts) + takes).replace("|", "\\|")


def _kind(parameter: Any) -> str:
    return {"int": "N", "float": "NUMBER"}.get(type(parameter.default).__name__, "WORD")


def _help(parameter: Any) -> str:
    notes = [(parameter.help or "").replace("|", "\\|")]
    if parameter.param_type_name == "option" and parameter.default not in (None, False) and parameter.show_default:
        notes.append(f"Default: `{parameter.default}`.")
    if parameter.envvar:
        notes.append(f"Environment: `{parameter.envvar}`.")
    return " ".join(note for note in notes if note)


if __name__ == "__main__":
    print(reference(), end="")
