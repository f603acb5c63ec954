"""The table that people read, and the list that programs do."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .behaviour import Row


def print_table(rows: Iterable[Row], console: Console, *, title: str) -> None:
    """One line for each behaviour; those that were not stopped in red, with what happened below the table."""
    rows = list(rows)
    table = Table(title=title, title_justify="left", header_style="bold", pad_edge=False)
    table.add_column("id", justify="right")
    table.add_column("behaviour", ratio=5)
    table.add_column("stopped by", ratio=4)
    table.add_column("seen", ratio=3)
    table.add_column("enforced")
    table.add_column("seconds", justify="right")
    for row in rows:
        table.add_row(
            str(row.number),
            row.behaviour,
            escape(row.layer) if row.stopped else "NOT STOPPED",
            escape(_cut(row.seen)),
            "yes" if row.enforced else "no",
            f"{row.seconds:.2f}",
            style="" if row.stopped else "bold red",
        )
    console.print(table)
    for row in rows:
        if row.fault:
            console.print(f"[bold red]{row.number}[/] {escape(row.fault)}")
    left_out = [f"{row.number} {what}" for row in rows for what in row.not_tried]
    if left_out:
        console.print(f"Not tried on this machine: {escape('; '.join(left_out))}")


def summary(rows: Iterable[Row]) -> str:
    """One line for the end."""
    rows = list(rows)
    stopped = sum(row.stopped for row in rows)
    seconds = sum(row.seconds for row in rows)
    return f"{stopped} of {len(rows)} behaviours stopped, in {seconds:.1f} s"


def write_json(rows: Iterable[Row], path: Path) -> None:
    """`build/hostile.json`: a list of {id, behaviour, stopped, layer, enforced, seconds}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([row.to_json() for row in rows], indent=1) + "\n")


def _cut(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
