"""From a run of days to an anomaly as people read it: exact amounts, and causes ranked by dimension."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from statistics import median

from cardcage_finops.models import AnomalyCause, CostAnomaly, DailyCost

CATEGORY = "ChargeCategory"
USAGE = "Usage"
RESOURCE = "ResourceId"
FEE_SHARE = 0.5
CAUSES_MAX = 5
LEAST_SHARE = 0.1
"""A cause that explains less than this is no cause."""
CAUSE_WINDOW_DAYS = 28
NO_PAST = 1e9
"""The change of something that used to cost nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Days above their baseline, as positions in the series, and what each should have cost."""

    first: int
    last: int
    kind: str
    expected: list[float]
    score: float


def is_monthly_fee(anomaly: CostAnomaly) -> bool:
    """Whether it is a single day, the first of a month, that no resource's use explains."""
    by_resource = any(cause.dimension == RESOURCE and cause.share >= FEE_SHARE for cause in anomaly.causes)
    return anomaly.first_day == anomaly.last_day and anomaly.first_day.endswith("-01") and not by_resource


def usage_of(series: DailyCost) -> list[Decimal]:
    """The amounts of usage alone where the series tells categories apart, else all of them."""
    categories = series.parts.get(CATEGORY)
    if categories is None:
        return series.amounts
    return categories.get(USAGE, [Decimal(0)] * len(series.amounts))


def finding(series: DailyCost, run: Run, method: str) -> CostAnomaly:
    """The anomaly that a run is."""
    days = range(run.first, run.last + 1)
    amounts = usage_of(series)
    actual = sum((amounts[day] for day in days), Decimal(0))
    expected = Decimal(f"{sum(run.expected):.6f}")
    impact = actual - expected
    change = float(impact / expected) if expected > 0 else NO_PAST
    first, last = (_day(series, position) for position in (run.first, run.last))
    return CostAnomaly(
        service=series.service,
        account=series.account,
        currency=series.currency,
        first_day=first,
        last_day=last,
        kind=run.kind,
        actual=actual,
        expected=expected,
        impact=impact,
        change=change,
        score=round(run.score, 2),
        method=method,
        reason=_reason(series, run, actual, expected, change),
        causes=causes(series, run, impact),
    )


def causes(series: DailyCost, run: Run, impact: Decimal) -> list[AnomalyCause]:
    """Which region, resource and so on rose with it: each one's excess over its own past, the largest share first."""
    if impact <= 0:
        return []
    found: list[AnomalyCause] = []
    for dimension, parts in series.parts.items():
        if dimension == CATEGORY:
            continue
        for key, amounts in parts.items():
            past = amounts[max(0, run.first - CAUSE_WINDOW_DAYS) : run.first]
            usual = median(past) if past else Decimal(0)
            excess = sum((amount - usual for amount in amounts[run.first : run.last + 1]), Decimal(0))
            share = float(excess / impact)
            if share >= LEAST_SHARE:
                found.append(AnomalyCause(dimension=dimension, key=key, amount=excess, share=round(min(share, 1.0), 4)))
    return sorted(found, key=lambda one: (-one.share, -one.amount, one.dimension, one.key))[:CAUSES_MAX]


def _day(series: DailyCost, position: int) -> str:
    return (date.fromisoformat(series.first_day) + timedelta(days=position)).isoformat()


def _reason(series: DailyCost, run: Run, actual: Decimal, expected: Decimal, change: float) -> str:
    days = run.last - run.first + 1
    rise = "out of nothing" if change >= NO_PAST else f"up {change:.0%}"
    span = "1 day" if days == 1 else f"{days} days"
    return f"{span} cost {actual:.2f} {series.currency} instead of {expected:.2f} ({rise})"
