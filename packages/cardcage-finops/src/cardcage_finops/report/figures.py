"""What charts are drawn from: the daily cost split by service and by account, rounded to floats. Pure.

Floats are for drawing only; every amount that is printed beside a chart comes from the exact sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from cardcage_finops.models import CostAnomaly, DailyCost
from cardcage_finops.pipeline.amounts import ZERO, amount_for_people
from cardcage_finops.pipeline.result import Analysis

STACK_MAX: Final = 9
"""Colours that an eye can tell apart; the rest is drawn as one grey part, `other`."""

DETAILS_MAX: Final = 60
"""Anomalies drawn one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The daily cost by one dimension: a label and its amounts by day, the costliest first; `other` is its index."""

    labels: list[str]
    values: list[list[Decimal]]
    other: int | None


def days_of(series: DailyCost) -> list[str]:
    """The days of a series."""
    first = date.fromisoformat(series.first_day)
    return [(first + timedelta(days=at)).isoformat() for at in range(len(series.amounts))]


def split_by(series: Sequence[DailyCost], label: Callable[[DailyCost], str], days: int) -> Split:
    """The series added up by label: the `STACK_MAX` costliest, and the rest as `other`."""
    sums: dict[str, list[Decimal]] = {}
    for one in series:
        amounts = sums.setdefault(label(one), [ZERO] * days)
        for at, amount in enumerate(one.amounts):
            amounts[at] += amount
    ranked = sorted(sums, key=lambda name: (-sum(sums[name], ZERO), name))
    shown, rest = ranked[:STACK_MAX], ranked[STACK_MAX:]
    labels, values = list(shown), [sums[name] for name in shown]
    if rest:
        labels.append(f"other ({len(rest)})")
        values.append([sum((sums[name][at] for name in rest), ZERO) for at in range(days)])
    return Split(labels=labels, values=values, other=len(shown) if rest else None)


def by_service(analysis: Analysis) -> Split:
    """The daily cost by service."""
    return split_by(analysis.series, lambda one: one.service, _day_count(analysis))


def by_account(analysis: Analysis) -> Split:
    """The daily cost by account."""
    return split_by(analysis.series, lambda one: one.account, _day_count(analysis))


def main_days(analysis: Analysis) -> list[str]:
    """The days of the charts."""
    found = next((one for one in analysis.daily if one.currency == analysis.currency), None)
    return days_of(found) if found else []


def chart_data(analysis: Analysis) -> dict[str, Any]:
    """All that the page's script draws, as plain data."""
    days = main_days(analysis)
    index = {day: at for at, day in enumerate(days)}
    anomalies = charted_anomalies(analysis)
    return {
        "currency": analysis.currency,
        "dayLabels": days,
        "days": [int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()) for day in days],
        "groups": {"service": _floats(by_service(analysis)), "account": _floats(by_account(analysis))},
        "marks": [{"day": index[one.first_day], "text": headline(one)} for one in anomalies],
        "details": [_detail(analysis, one, index) for one in anomalies],
    }


def charted_anomalies(analysis: Analysis) -> list[CostAnomaly]:
    """The anomalies that the charts show: those of the main currency within the charted days, the greatest first."""
    days = set(main_days(analysis))
    fitting = (one for one in analysis.anomalies if one.currency == analysis.currency and one.first_day in days)
    return list(fitting)[:DETAILS_MAX]


def headline(anomaly: CostAnomaly) -> str:
    """One line for a tooltip: `Amazon EC2: +42.10 USD (3.1x what was expected)`."""
    what = anomaly.service or anomaly.account or "all services"
    sign = "+" if anomaly.impact >= 0 else ""
    return f"{what}: {sign}{amount_for_people(anomaly.impact, anomaly.currency)} ({change_text(anomaly.change)})"


def change_text(change: float) -> str:
    """A growth as people say it: `+25 %`, `4.2 times as much`, `new`."""
    if change >= 1e6:
        return "new cost"
    return f"{1 + change:,.1f} times as much" if change >= 2 else f"{change:+.0%}".replace("%", " %")


def series_of(analysis: Analysis, anomaly: CostAnomaly) -> list[Decimal]:
    """The daily amounts of the scope that an anomaly is about."""
    days = _day_count(analysis)
    amounts = [ZERO] * days
    for one in analysis.series:
        if anomaly.service in ("", one.service) and anomaly.account in ("", one.account):
            for at, amount in enumerate(one.amounts):
                amounts[at] += amount
    return amounts


def _detail(analysis: Analysis, anomaly: CostAnomaly, index: dict[str, int]) -> dict[str, Any]:
    first = index[anomaly.first_day]
    last = index.get(anomaly.last_day, first)
    length = last - first + 1
    scope = " · ".join(part for part in (anomaly.service, anomaly.account) if part) or "all services"
    return {
        "label": scope,
        "values": [float(amount) for amount in series_of(analysis, anomaly)],
        "marks": [
            {"first": first, "last": last, "expected": float(anomaly.expected / length), "text": headline(anomaly)}
        ],
    }


def _floats(split: Split) -> dict[str, Any]:
    values = [[float(amount) for amount in amounts] for amounts in split.values]
    return {"labels": split.labels, "values": values, "other": split.other}


def _day_count(analysis: Analysis) -> int:
    return len(main_days(analysis))
