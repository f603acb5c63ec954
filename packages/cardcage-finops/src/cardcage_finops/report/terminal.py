"""An analysis for a person at a terminal. Text from bills and plugins is shown with its controls spelled out."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cardcage_finops.models import CostAnomaly, PolicyVerdict
from cardcage_finops.pipeline.amounts import ZERO, amount_for_people
from cardcage_finops.pipeline.result import Analysis, CurrencyResult, KeyTotal, PluginRun, Recommendation
from cardcage_finops.report.figures import change_text, days_of
from cardcage_finops.report.glyphs import bar, sparkline
from cardcage_finops.report.untrusted import cell, visible

LINES_MAX: Final = 10
"""Of each table; the JSON and the HTML report have the rest."""

_BAR_WIDTH: Final = 18
_SPARK_WIDTH: Final = 24
_STATUS_STYLE: Final = {"ok": "green", "warn": "yellow", "breach": "bold red"}


def print_report(analysis: Analysis, console: Console) -> None:
    """Print the whole report."""
    ascii_only = not console.encoding.lower().startswith("utf")
    console.print(Group(*_parts(analysis, ascii_only=ascii_only)), highlight=False)


def _parts(analysis: Analysis, *, ascii_only: bool) -> Iterable[RenderableType]:
    yield _heading(analysis)
    main = analysis.main
    if main is not None:
        yield _totals(analysis, main)
        yield from _daily(analysis, ascii_only=ascii_only)
        yield from _breakdown("Services", main.service, _by_key(analysis, "service"), ascii_only=ascii_only)
        yield from _breakdown("Accounts", main.account, _by_key(analysis, "account"), ascii_only=ascii_only)
        yield from _currencies(analysis)
    yield from _anomalies(analysis.anomalies)
    yield from _recommendations(analysis)
    yield from _policies(analysis)
    yield from _rows(analysis)
    yield from _plugins(analysis)


def _heading(analysis: Analysis) -> Text:
    text = Text("Cloud cost  ", style="bold")
    text.append_text(cell(analysis.bill.name, "bold cyan"))
    period = f"{analysis.period_start} to {analysis.period_end}" if analysis.period_start else "no charges"
    form = f"{analysis.bill.format} {analysis.bill.version}".strip()
    text.append(f"\n{period} · {analysis.rows.taken:,} rows · {visible(form)} · {analysis.seconds:.1f} s\n", "dim")
    return text


def _title(text: str, note: str = "") -> Text:
    return Text.assemble((f"\n{text}", "bold"), (f"  {note}" if note else "", "dim"))


def _table(*columns: str) -> Table:
    """A table without lines. A column whose name ends in `>` is aligned to the right."""
    table = Table(box=None, show_header=True, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        right = column.endswith(">")
        name = column.rstrip(">")
        table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def _add(table: Table, *cells: str | Text) -> None:
    """Add a row in which no text is read as markup."""
    table.add_row(*(one if isinstance(one, Text) else Text(visible(one)) for one in cells))


def _inset(content: RenderableType) -> Padding:
    return Padding(content, (0, 0, 0, 2))


def _totals(analysis: Analysis, main: CurrencyResult) -> RenderableType:
    table = _table("", ">", "")
    table.show_header = False
    totals = main.totals
    _add(table, "Billed", Text(amount_for_people(totals.billed, main.currency), "bold"), "")
    _add(table, "Effective", Text(amount_for_people(totals.effective, main.currency), "bold"), "")
    _add(table, "At list price", amount_for_people(totals.list, main.currency), _discount(main))
    if analysis.monthly_savings > 0:
        saved = amount_for_people(analysis.monthly_savings, main.currency)
        count = len(analysis.recommendations)
        _add(table, "Could be saved", Text(saved, "bold green"), f"a month, {count} recommendations")
    return _inset(table)


def _discount(main: CurrencyResult) -> str:
    listed = main.totals.list
    share = float((listed - main.totals.effective) / listed) if listed else 0.0
    return f"{abs(share):.1%} {'below' if share >= 0 else 'above'} it is paid".replace("%", " %") if listed else ""


def _daily(analysis: Analysis, *, ascii_only: bool) -> Iterable[RenderableType]:
    daily = next((one for one in analysis.daily if one.currency == analysis.currency), None)
    if daily is None or len(daily.amounts) < 2:
        return
    days = days_of(daily)
    low, high = min(daily.amounts), max(daily.amounts)
    yield _title("Day by day", f"{days[0]} to {days[-1]}")
    yield _inset(Text(sparkline(daily.amounts, 60, ascii_only=ascii_only), "cyan"))
    facts = f"least {amount_for_people(low)} on {days[daily.amounts.index(low)]}, "
    facts += f"most {amount_for_people(high)} on {days[daily.amounts.index(high)]}"
    yield _inset(Text(facts, "dim"))


def _by_key(analysis: Analysis, dimension: str) -> dict[str, list[Decimal]]:
    """The daily amounts of each service or account."""
    found: dict[str, list[Decimal]] = {}
    for one in analysis.series:
        key = one.service if dimension == "service" else one.account
        known = found.get(key)
        found[key] = [a + b for a, b in zip(known, one.amounts, strict=True)] if known else list(one.amounts)
    return found


def _breakdown(
    title: str, rows: list[KeyTotal], daily: dict[str, list[Decimal]], *, ascii_only: bool
) -> Iterable[RenderableType]:
    if not rows:
        return
    whole = sum((row.totals.effective for row in rows), ZERO)
    greatest = max(row.totals.effective.copy_abs() for row in rows)
    yield _title(title, f"{len(rows):,}, by effective cost")
    table = _table("", "effective>", "share>", "", "days")
    for row in rows[:LINES_MAX]:
        amount = row.totals.effective
        share = f"{float(amount / whole):.1%}" if whole else ""
        drawn = bar(float(amount.copy_abs() / greatest) if greatest else 0.0, _BAR_WIDTH, ascii_only=ascii_only)
        line = sparkline(daily.get(row.key) or daily.get(row.name, []), _SPARK_WIDTH, ascii_only=ascii_only)
        name = cell(row.name or row.key, chars_max=40)
        colour = "blue" if amount >= 0 else "green"
        _add(table, name, amount_for_people(amount), share, Text(drawn, colour), Text(line, "cyan"))
    yield _inset(table)
    yield from _more(len(rows))


def _more(count: int) -> Iterable[RenderableType]:
    if count > LINES_MAX:
        yield _inset(Text(f"and {count - LINES_MAX:,} more", "dim"))


def _currencies(analysis: Analysis) -> Iterable[RenderableType]:
    if len(analysis.currencies) < 2:
        return
    yield _title("Currencies", f"never added together; the rest of this report is in {visible(analysis.currency)}")
    table = _table("", "rows>", "billed>", "effective>")
    for one in analysis.currencies[:LINES_MAX]:
        billed, effective = amount_for_people(one.totals.billed), amount_for_people(one.totals.effective)
        _add(table, cell(one.currency), f"{one.rows:,}", billed, effective)
    yield _inset(table)


def _anomalies(anomalies: list[CostAnomaly]) -> Iterable[RenderableType]:
    yield _title("Unusual days", "" if anomalies else "none stood out")
    if not anomalies:
        return
    table = _table("days", "scope", "too much>", "change>", "why")
    for one in anomalies[:LINES_MAX]:
        days = one.first_day if one.last_day == one.first_day else f"{one.first_day} to {one.last_day}"
        scope = cell(one.service or "all services", chars_max=40)
        if one.account:
            scope.append_text(cell(f" {one.account}", "dim", 30))
        excess = Text(amount_for_people(one.impact, visible(one.currency)), "red")
        _add(table, cell(days), scope, excess, change_text(one.change), cell(one.reason))
    yield _inset(table)
    yield from _more(len(anomalies))


def _recommendations(analysis: Analysis) -> Iterable[RenderableType]:
    found = analysis.recommendations
    if not found:
        because = (
            "none" if analysis.metrics_resources else "none; without metrics nothing can be called idle or too large"
        )
        yield _title("Recommendations", because)
        return
    yield _title("Recommendations", "savings of a month, net of commitments")
    table = _table("saves>", "sure>", "do", "resource", "why")
    for one in found[:LINES_MAX]:
        chosen = one.chosen
        saved = Text(amount_for_people(chosen.estimated_savings, visible(chosen.currency)), "green")
        _add(table, saved, f"{chosen.confidence:.0%}", cell(chosen.action), _resource(one), cell(chosen.reason))
    yield _inset(table)
    yield from _more(len(found))


def _resource(one: Recommendation) -> Text:
    text = cell(one.chosen.resource_name or one.chosen.resource_id, chars_max=60)
    if one.alternatives:
        text.append(f" (+{len(one.alternatives)} alternative{'' if len(one.alternatives) == 1 else 's'})", "dim")
    return text


def _policies(analysis: Analysis) -> Iterable[RenderableType]:
    if not analysis.policies and not analysis.alerts:
        return
    yield _title("Policies")
    table = _table("", "policy", "finding")
    for one in sorted(analysis.policies, key=_severity)[:LINES_MAX]:
        _add(table, Text(one.status, _STATUS_STYLE[one.status]), cell(one.policy, chars_max=40), cell(one.message))
    for alert in analysis.alerts[:LINES_MAX]:
        details = ", ".join(f"{key} {value}" for key, value in alert.details.items())
        _add(table, Text("alert", "bold red"), cell(alert.name, chars_max=40), cell(f"{alert.source}: {details}"))
    yield _inset(table)
    yield from _more(len(analysis.policies))


def _severity(verdict: PolicyVerdict) -> int:
    return ("breach", "warn", "ok").index(verdict.status)


def _rows(analysis: Analysis) -> Iterable[RenderableType]:
    rows = analysis.rows
    yield _title(
        "Rows", f"{rows.read:,} read, {rows.taken:,} taken, {rows.corrected:,} corrected, {rows.refused:,} refused"
    )
    if not analysis.issues.counts:
        return
    table = _table("times>", "done", "issue", "first seen")
    for one in analysis.issues.counts[:LINES_MAX]:
        first = next(
            (each for each in analysis.issues.listed if (each.code, each.action) == (one.code, one.action)), None
        )
        where = f"row {first.row}: {first.message}" if first and first.row else first.message if first else ""
        _add(table, f"{one.count:,}", cell(one.action), cell(one.code, chars_max=40), cell(where, "dim", 120))
    yield _inset(table)
    yield from _more(len(analysis.issues.counts))


def _plugins(analysis: Analysis) -> Iterable[RenderableType]:
    yield _title("Plugins")
    table = _table("", "part", "isolation", "seconds>", "")
    for run in analysis.plugins:
        outcome = cell(run.error, "red") if run.error else Text(visible(run.walls), "dim")
        name = cell(f"{run.name} {run.version}", chars_max=60)
        _add(table, name, cell(run.role), _isolation(run), f"{run.seconds:.3f}", outcome)
    yield _inset(table)
    for warning in analysis.warnings[:LINES_MAX]:
        yield _inset(cell(f"warning: {warning}", "yellow"))
    for notice in analysis.notices:
        done = "delivered" if notice.delivery.delivered else f"not delivered: {notice.delivery.detail}"
        yield _inset(cell(f"message to {notice.target}: {done}"))


def _isolation(run: PluginRun) -> Text:
    return cell(run.isolation, "bold red" if run.isolation == "unconfined" else "")
