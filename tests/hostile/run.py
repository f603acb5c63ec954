"""`make hostile`: lets every behaviour of the catalogue loose, and prints which layer stopped it."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import warnings
from pathlib import Path

from hostile_suite import CATALOGUE, Arena, Behaviour, Row
from hostile_suite.table import print_table, summary, write_json
from hostile_suite.weaken import GROUPS, layers_of
from rich.console import Console

from cardcage import CardcageError
from cardcage.sandbox.mode import detect_mode
from cardcage.sandbox.report import LayerName, Mode

BUILD = Path(__file__).parent.parent.parent / "build"


def main() -> int:
    """0 where everything was stopped, 1 where something was not, 2 where nothing could be tried."""
    options = arguments()
    # What plugins log is theirs to say, and flooding is what some of them do.
    logging.getLogger("cardcage").addHandler(logging.NullHandler())
    logging.getLogger("cardcage").propagate = False
    warnings.simplefilter("ignore", UserWarning)  # the control runs without walls, which is said for each plugin
    console = Console(width=160 if not sys.stdout.isatty() else None)
    behaviours = wanted(options.only)
    try:
        rows = asyncio.run(run(behaviours, options.isolation, layers_of(options.without), console))
    except CardcageError as error:
        console.print(f"hostile: {error.message}", style="red", markup=False)
        if error.hint:
            console.print(f"hint: {error.hint}", markup=False)
        return 2
    walls = f"{options.isolation} isolation, as {'root' if detect_mode() is Mode.ROOT else 'an ordinary user'}"
    without = f", without {', '.join(options.without)}" if options.without else ""
    print_table(rows, console, title=f"Hostile plugins: {walls}{without}")
    console.print(summary(rows))
    write_json(rows, options.json)
    console.print(f"Written to {options.json}")
    return 0 if all(row.stopped for row in rows) else 1


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(prog="make hostile", description=main.__doc__)
    parser.add_argument("--only", default="", metavar="IDS", help="numbers and ranges, such as 1,7,26-28")
    parser.add_argument("--isolation", default="process", choices=["process", "container", "vm", "fallback"])
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="LAYER",
        choices=[*GROUPS, *map(str, LayerName)],
        help=f"switch a layer off, to see rows turn red: {', '.join(GROUPS)}, or one by its name",
    )
    parser.add_argument("--json", type=Path, default=BUILD / "hostile.json", metavar="FILE")
    return parser.parse_args()


def wanted(only: str) -> list[Behaviour]:
    """The behaviours of these numbers; all of them where none is named."""
    if not only:
        return list(CATALOGUE)
    numbers: set[int] = set()
    for part in only.split(","):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return [behaviour for behaviour in CATALOGUE if behaviour.number in numbers]


async def run(behaviours: list[Behaviour], isolation: str, without: frozenset[str], console: Console) -> list[Row]:
    """Each in turn, with its name on the screen while it runs."""
    rows: list[Row] = []
    async with Arena(isolation=isolation, without=without) as arena:
        with console.status("letting them loose") as status:
            for behaviour in behaviours:
                if behaviour.root_only and not arena.as_root:
                    continue
                status.update(f"{behaviour.number} {behaviour.title}")
                rows.append(await arena.run(behaviour))
    return rows


if __name__ == "__main__":
    sys.exit(main())
