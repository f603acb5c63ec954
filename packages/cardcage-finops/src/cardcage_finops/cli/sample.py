"""`cardcage finops sample`: a labelled synthetic estate."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cardcage.cli.text import print_json, write_line
from cardcage.foundation.errors import Misuse
from cardcage_finops.cli.progress import watching
from cardcage_finops.sample import generate


def sample_command(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write bill.csv, metrics.csv, truth.json.")],
    rows: Annotated[int | None, typer.Option(min=1, help="At least so many rows; a resource has one an hour.")] = None,
    resources: Annotated[int | None, typer.Option(min=1, help="How many resources, in place of --rows.")] = None,
    days: Annotated[int, typer.Option(min=1, max=3660, help="How many days the bill spans.")] = 60,
    seed: Annotated[int, typer.Option(help="The same seed gives the same bytes.")] = 1,
    metrics_days: Annotated[int, typer.Option(min=1, max=3660, help="Days of metrics, the last ones.")] = 14,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as JSON.")] = False,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="The bar on stderr.")] = True,
) -> None:
    """Make up an estate: a FOCUS 1.2 bill, metrics, and the truth about both. All of it is synthetic."""
    try:
        with watching(wanted=progress) as watcher:
            watcher.stage("writing the estate")
            made = generate(
                directory,
                rows=rows,
                resources=resources,
                days=days,
                seed=seed,
                metrics_days=metrics_days,
                progress=lambda done, whole: watcher.advance(done / whole if whole else 1.0, done),
            )
    except ValueError as error:
        raise Misuse(f"the estate cannot be made: {error}", code="sample_invalid") from error
    except OSError as error:
        raise Misuse(f'"{directory}" cannot be written: {error.strerror}', code="sample_unwritable") from error
    if as_json:
        print_json({name: str(value) if isinstance(value, Path) else value for name, value in asdict(made).items()})
        return
    write_line(sys.stdout, f"{made.bill}  {made.rows:,} rows of {made.resources:,} resources over {made.days} days")
    write_line(sys.stdout, f"{made.metrics}  {made.metric_rows:,} rows")
    write_line(sys.stdout, f"{made.truth}  what is true of them; all of it is synthetic")
