"""The progress bar of an analysis, on stderr, where a person watches."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from cardcage_finops.pipeline.analysis import Progress as Watcher
from cardcage_finops.pipeline.analysis import Quiet


@dataclass(slots=True)
class _Bar:
    progress: Progress
    task: TaskID

    def stage(self, name: str) -> None:
        self.progress.update(self.task, description=name)

    def advance(self, done: float, rows: int) -> None:
        self.progress.update(self.task, completed=min(max(done, 0.0), 1.0), rows=f"{rows:,} rows")


@contextmanager
def watching(*, wanted: bool) -> Generator[Watcher, None, None]:
    """A progress bar while the block runs; none where stderr is no terminal, or where it is not wanted."""
    if not wanted or not sys.stderr.isatty():
        yield Quiet()
        return
    console = Console(stderr=True, markup=False)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=32),
        TextColumn("{task.fields[rows]}", markup=False),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield _Bar(progress=progress, task=progress.add_task("starting", total=1.0, rows=""))
