"""The tree of commands. Packs hang their own groups into it, which are imported only when they are used."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from inspect import cleandoc
from typing import Any, Final

import typer
from typer.core import TyperGroup

from cardcage.cli import auditing, learning, machine, plugins, policy, registering, running, scaffolding, using
from cardcage.cli.exits import MEANINGS
from cardcage.foundation.errors import Misuse

# `cardcage.contracts.pack.ENTRY_POINT_GROUP`, written again: importing it here would make `--help` slow.
_PACKS: Final = "cardcage.packs"


class WholeSentences(TyperGroup):
    """A list of commands that says the first sentence of each in full, over as many lines as it takes."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, with its first sentence as its line in a list."""
        command = super().get_command(ctx, cmd_name)
        if command is not None and not command.short_help:
            command.short_help = _first_sentence(command.help or "")
        return command


def _first_sentence(text: str) -> str:
    paragraph = " ".join(cleandoc(text).partition("\n\n")[0].split())
    return paragraph.partition(". ")[0].removesuffix(".") + "."


class PackGroup(WholeSentences):
    """The root of all commands: those below, and one group for each installed pack, under the pack's name."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Our own commands, then the packs."""
        own = super().list_commands(ctx)
        return [*own, *(entry.name for entry in _packs() if entry.name not in own)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command as far as help needs it: a pack's own code is not imported for its line in a list."""
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        entry = _pack(cmd_name)
        return None if entry is None else TyperGroup(name=cmd_name, help=_summary(entry), short_help=_summary(entry))

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that is to run; now a pack's code is imported."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is None or super().get_command(ctx, name) is not None:
            return name, command, rest
        entry = _pack(name)
        return name, command if entry is None else _load(entry), rest


def _packs() -> list[EntryPoint]:
    return sorted(entry_points(group=_PACKS), key=lambda entry: entry.name)


def _pack(name: str) -> EntryPoint | None:
    return next((entry for entry in _packs() if entry.name == name), None)


def _summary(entry: EntryPoint) -> str:
    metadata = entry.dist.metadata if entry.dist is not None else None
    return (metadata["Summary"] if metadata is not None else None) or f"Commands of the pack {entry.name}."


def _load(entry: EntryPoint) -> Any:
    from importlib import import_module

    from cardcage.contracts.pack import Pack

    try:
        pack = entry.load()
        where = pack.cli if isinstance(pack, Pack) else None
        module, _, attribute = (where or "").partition(":")
        mounted = getattr(import_module(module), attribute) if where else None
    except ImportError as error:
        raise Misuse(
            f"the pack {entry.name!r} ({entry.value}) cannot be imported: {error}", code="pack_broken"
        ) from error
    if mounted is None:
        raise Misuse(
            f"the pack {entry.name!r} has no commands", code="no_commands", hint="cardcage --help lists what has"
        )
    group = typer.main.get_group(mounted)
    group.name = entry.name
    return group


# The mark keeps the lines as they are.
_EPILOG: Final = "\b\nExit status:\n" + "\n".join(f"{code.value:>5}  {meaning}" for code, meaning in MEANINGS.items())

app = typer.Typer(
    cls=PackGroup,
    name="cardcage",
    help="A frame for plugins: verified, walled, limited, supervised, and called through typed interfaces.",
    epilog=_EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _group(name: str, help_text: str) -> typer.Typer:
    return typer.Typer(cls=WholeSentences, name=name, help=help_text, no_args_is_help=True, rich_markup_mode=None)


plugin_app = _group("plugin", "Look at, register, start, call and stop plugins.")
audit_app = _group("audit", "The record of every decision, and whether it is whole.")
plugins_app = _group("plugins", "The registry of plugins.")
policy_app = _group("policy", "What an operator lays down for all plugins.")

for command in (
    plugins.list_,
    plugins.info,
    plugins.status,
    plugins.instances,
    plugins.logs,
    registering.validate,
    registering.load,
    registering.remove,
    learning.learn,
    running.start,
    running.stop,
    running.call,
    using.top,
):
    plugin_app.command(name=command.__name__.rstrip("_"))(command)
plugin_app.command(name="create")(scaffolding.create)
plugins_app.command(name="register")(registering.register)
plugins_app.command(name="list")(plugins.list_)

app.add_typer(plugin_app)
for command in (policy.check, policy.explain, policy.show):
    policy_app.command(name=command.__name__)(command)

app.add_typer(plugins_app)
for command in (auditing.tail, auditing.verify, auditing.export, auditing.key):
    audit_app.command(name=command.__name__)(command)
app.add_typer(audit_app)
app.add_typer(policy_app)
app.command()(machine.doctor)
app.command()(machine.plan)
app.command()(machine.version)
app.command()(machine.completion)
