"""The group of commands."""

from __future__ import annotations

import typer

from cardcage_finops.cli.analyze import analyze_command
from cardcage_finops.cli.exits import EPILOG
from cardcage_finops.cli.plugins import plugins_command
from cardcage_finops.cli.sample import sample_command

app = typer.Typer(
    name="finops",
    help="Cloud cost: analyse a bill with sandboxed plugins.",
    epilog=EPILOG,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("analyze")(analyze_command)
app.command("sample")(sample_command)
app.command("plugins")(plugins_command)
