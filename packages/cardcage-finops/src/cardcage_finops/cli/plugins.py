"""`cardcage finops plugins`: what could take part in an analysis."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Annotated

import typer

from cardcage.cli.text import console, print_json, safe, table
from cardcage.contracts import extension_point_of
from cardcage.manager import PluginView, Problem
from cardcage_finops.cli.host import finops_manager
from cardcage_finops.extension_points import EXTENSION_POINTS


def plugins_command(
    plugins: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of further plugins. Repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the plugins that can take part in an analysis, with what each asks for. None of them is started."""
    views, problems = asyncio.run(_find(plugins or []))
    if as_json:
        print_json({"plugins": [view.to_json() for view in views], "problems": [one.to_json() for one in problems]})
        return
    shown = table("plugin", "version", "provides", "asks for")
    for view in views:
        refs = ", ".join(str(ref) for ref in view.provides)
        shown.add_row(safe(view.name), safe(view.version), safe(refs), safe(", ".join(view.permissions) or "nothing"))
    console().print(shown)
    for problem in problems:
        print(safe(problem), file=sys.stderr)


async def _find(folders: list[Path]) -> tuple[list[PluginView], list[Problem]]:
    wanted = {extension_point_of(point).ref for point in EXTENSION_POINTS}
    async with finops_manager(plugins=folders) as manager:
        views = [manager.plugin_info(name) for name in manager.list_plugins()]
        return [view for view in views if wanted.intersection(view.provides)], manager.problems()
