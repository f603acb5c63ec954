"""`cardcage finops analyze`: a bill in, a report out."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TextIO

import typer
from rich.console import Console

from cardcage.cli.text import write_line
from cardcage.foundation.errors import Misuse
from cardcage.manager import Problem
from cardcage_finops.cli.exits import BREACHED, FAILED
from cardcage_finops.cli.host import finops_manager, outside_plugins, parse_grants
from cardcage_finops.cli.progress import watching
from cardcage_finops.pipeline.analysis import Progress, analyze
from cardcage_finops.pipeline.request import AnalysisRequest, input_file, parse_budget, parse_target
from cardcage_finops.pipeline.result import Analysis
from cardcage_finops.report.document import analysis_json
from cardcage_finops.report.html import html_report
from cardcage_finops.report.terminal import print_report

PIPED_WIDTH = 120
"""Where the output is no terminal there is no width to fit."""


class DetectorName(StrEnum):
    """How unusual days are found."""

    ROBUST = "robust"
    RULE25 = "rule25"


class Isolation(StrEnum):
    """The walls around plugins."""

    PROCESS = "process"
    UNCONFINED = "unconfined"


class FailOn(StrEnum):
    """What makes the exit status 5."""

    NEVER = "never"
    BREACH = "breach"
    WARN = "warn"


def analyze_command(
    bill: Annotated[str, typer.Argument(metavar="BILL", help="The bill: FOCUS or AWS CUR, CSV or gzipped CSV.")],
    metrics: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Metrics of the resources: CSV, or as the collector plugins read them."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, amounts to the last digit.")] = False,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report as one HTML file.")] = None,
    notify: Annotated[
        list[str] | None, typer.Option(metavar="TARGET", help="Send a message: file:PATH or webhook:URL. Repeatable.")
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="BUDGET", help="A budget, such as 1000 or 'team=1200 USD/month@Service'. Repeatable."),
    ] = None,
    detector: Annotated[
        DetectorName, typer.Option(help="How unusual days are found: robust, or the rule of 25 % a day.")
    ] = DetectorName.ROBUST,
    plugins: Annotated[
        list[Path] | None, typer.Option(metavar="DIR", help="A folder of further plugins. Repeatable.")
    ] = None,
    grant: Annotated[
        list[str] | None,
        typer.Option(metavar="PLUGIN=PERMISSION", help="Grant a further plugin this. Repeatable."),
    ] = None,
    isolation: Annotated[
        Isolation, typer.Option(help="unconfined takes the walls away from every plugin.")
    ] = Isolation.PROCESS,
    fail_on: Annotated[
        FailOn, typer.Option(help="End with status 5 where a policy is breached, or already at a warning.")
    ] = FailOn.NEVER,
    progress: Annotated[bool, typer.Option("--progress/--no-progress", help="The bar on stderr.")] = True,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bar and no report; --json and --html stay.")] = False,
) -> None:
    """Analyse a cloud bill: totals, unusual days, recommendations, policies. Every plugin runs in its own walls."""
    request = AnalysisRequest(
        bill=input_file(bill, "bill"),
        metrics=input_file(metrics, "metrics file") if metrics is not None else None,
        detector=detector.value,
        budgets=[parse_budget(text) for text in budget or ()],
        notify=[parse_target(text) for text in notify or ()],
        report=_writable(html) if html is not None else None,
    )
    folders = [_folder(path) for path in plugins or ()]
    grants = parse_grants(grant or ())
    with watching(wanted=progress and not quiet) as watcher:
        analysis = asyncio.run(_analyze(request, folders, grants, isolation.value, watcher))
    if request.report is not None:
        _write(request.report, html_report(analysis))
    if as_json:
        write_line(sys.stdout, analysis_json(analysis).rstrip("\n"))
    elif not quiet:
        print_report(analysis, console_for(sys.stdout))
        if request.report is not None:
            write_line(sys.stdout, f"\nHTML report: {request.report}")
    status = exit_status(analysis, fail_on)
    if status:
        raise typer.Exit(status)


async def _analyze(
    request: AnalysisRequest, folders: list[Path], grants: dict[str, list[str]], isolation: str, watcher: Progress
) -> Analysis:
    async with finops_manager(plugins=folders, grants=grants, isolation=isolation) as manager:
        _refuse_problems(manager.problems())
        _refuse_strangers(grants, manager.list_plugins())
        return await analyze(manager, replace(request, hooks=outside_plugins(manager)), watcher)


def _refuse_problems(problems: Sequence[Problem]) -> None:
    """A package that the operator named and that can't be registered is an error now, not a gap in the report."""
    if problems:
        raise problems[0].error


def _refuse_strangers(grants: Iterable[str], known: Sequence[str]) -> None:
    """A grant to a name that no plugin has is a slip of the pen, and would end as a refusal far from its cause."""
    for name in grants:
        if name not in known:
            raise Misuse(
                f'--grant names the plugin "{name}", which is not there (there are: {", ".join(sorted(known))})',
                code="grant_invalid",
                hint="name the folder of further plugins: --plugins DIR",
            )


def exit_status(analysis: Analysis, fail_on: FailOn) -> int:
    """0, 1 where a plugin failed, or 5 where a policy is broken and that was asked to be told."""
    statuses = {one.status for one in analysis.policies}
    if "breach" in statuses and fail_on is not FailOn.NEVER:
        return BREACHED
    if "warn" in statuses and fail_on is FailOn.WARN:
        return BREACHED
    return FAILED if any(run.error is not None for run in analysis.plugins) else 0


def console_for(stream: TextIO) -> Console:
    """Where a report is printed: in colour on a terminal only, and not where NO_COLOR is set."""
    width = None if stream.isatty() or os.environ.get("COLUMNS") else PIPED_WIDTH
    return Console(file=stream, markup=False, emoji=False, highlight=False, width=width)


def _folder(path: Path) -> Path:
    resolved = _resolved(path)
    if not resolved.is_dir():
        raise Misuse(f'the plugin folder "{path}" is not there', code="plugins_missing")
    return resolved


def _writable(path: Path) -> Path:
    """The absolute path of a report, refused now rather than after the whole analysis."""
    resolved, what = _resolved(path), ""
    if resolved.is_dir():
        what = "is a folder"
    elif not resolved.parent.is_dir():
        what = f"is in {resolved.parent}, which is no folder"
    elif resolved.exists() and not resolved.is_file():
        what = "is a device, a pipe or a socket, and would be replaced by a file"
    elif not os.access(resolved.parent, os.W_OK):
        what = f"is in {resolved.parent}, where this user may not write"
    if what:
        raise Misuse(
            f'the HTML report "{path}" {what}', code="report_unwritable", hint="name a file in a folder that is there"
        )
    return resolved


def _resolved(path: Path) -> Path:
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, an unknown ~user, a NUL
        raise Misuse(f'the path "{path}" leads nowhere: {error}', code="path_invalid") from error


def _write(path: Path, text: str) -> None:
    """Write the report beside its place and move it there, so that a reader never sees half of it."""
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(text, "utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise Misuse(
            f'the HTML report "{path}" cannot be written: {error.strerror}', code="report_unwritable"
        ) from error
