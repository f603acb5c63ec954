"""What detectors, policies and hooks see of a ledger: daily series without gaps, and the analysis context. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from decimal import Decimal, localcontext
from typing import Final

from cardcage_finops.models import AnalysisContext, DailyCost
from cardcage_finops.pipeline.amounts import EXACT, ZERO
from cardcage_finops.pipeline.ledger import OVERFLOW_KEY, USAGE, Ledger, SeriesKey, totals_of

PERIOD_DAYS_MAX: Final = 1200
"""Series are dense, so one row dated in the year 1 would make 700,000 days of each. Three years and a quarter are kept,
the latest; sums are not touched by it."""

SERIES_MAX: Final = 2000
"""Series handed to detectors, the costliest; the rest is one series `(other)`. 2000 x 90 days are some 5 MiB a call."""

AMOUNTS_MAX: Final = 400_000
"""Days of all series together, so that a context fits the wire (some 5 MiB of the 16 that a frame may hold) however
many days a bill spans."""

PARTS_MAX: Final = 12
"""Keys of a dimension kept in a series' `parts`, those with the greatest day; the rest is `(other)`."""


def main_currency(ledger: Ledger) -> str:
    """The currency with the greatest billed cost (then the most rows): the one that a report is about."""
    ranked = sorted(ledger.currencies.items(), key=lambda item: (-item[1].total[0], -item[1].rows, item[0]))
    return ranked[0][0] if ranked else ""


def period(ledger: Ledger) -> tuple[str, str]:
    """The first and last day with a charge, in any currency; two empty strings where there is none."""
    days = [day for one in ledger.currencies.values() for day in one.by_day if day != OVERFLOW_KEY]
    return (min(days), max(days)) if days else ("", "")


def days_between(first: str, last: str) -> list[str]:
    """Every day from `first` to `last`, both included; the latest `PERIOD_DAYS_MAX` of them."""
    if not first:
        return []
    end = date.fromisoformat(last)
    count = min((end - date.fromisoformat(first)).days + 1, PERIOD_DAYS_MAX)
    return [(end - timedelta(days=back)).isoformat() for back in range(count - 1, -1, -1)]


def period_days(ledger: Ledger) -> int:
    """How many days the bill spans, at least 1."""
    first, last = period(ledger)
    return (date.fromisoformat(last) - date.fromisoformat(first)).days + 1 if first else 1


def whole_cost(ledger: Ledger) -> list[DailyCost]:
    """EffectiveCost by day of everything, one series a currency."""
    days = days_between(*period(ledger))
    return [
        DailyCost(currency=currency, first_day=days[0], amounts=[_effective(one.by_day.get(day)) for day in days])
        for currency, one in sorted(ledger.currencies.items())
        if days
    ]


def service_account_costs(ledger: Ledger) -> list[DailyCost]:
    """EffectiveCost by day of each service and account, the costliest first, with the parts that may be causes."""
    days = days_between(*period(ledger))
    if not days:
        return []
    with localcontext(EXACT):
        weights = {key: sum(map(abs, cells.values()), ZERO) for key, cells in ledger.cells.items()}
        ranked = sorted(ledger.cells, key=lambda key: (-weights[key], key))
        bound = max(1, min(SERIES_MAX, AMOUNTS_MAX // len(days)))
        kept = [_series(ledger, key, days) for key in ranked[:bound]]
        return kept + _folded(ledger, ranked[bound:], days)


def analysis_context(ledger: Ledger) -> AnalysisContext:
    """The context as it is before any plugin has added to it."""
    first, last = period(ledger)
    currency = main_currency(ledger)
    daily = whole_cost(ledger)
    spike, spike_day = daily_spike(next((one for one in daily if one.currency == currency), None))
    return AnalysisContext(
        period_start=first,
        period_end=last,
        currency=currency,
        daily_spike=spike,
        daily_spike_day=spike_day,
        totals={name: totals_of(one.total) for name, one in sorted(ledger.currencies.items())},
        daily=daily,
        series=[_without_parts(one) for one in service_account_costs(ledger)],
    )


def daily_spike(series: DailyCost | None) -> tuple[float, str]:
    """The greatest growth from one day to the next as a fraction, and the day it led to; (0, "") where nothing grew."""
    if series is None:
        return 0.0, ""
    days = days_between(series.first_day, _last_day(series))
    grown = [
        (float((after - before) / before), day)
        for before, after, day in zip(series.amounts, series.amounts[1:], days[1:], strict=False)
        if before > 0 and after > before
    ]
    return max(grown, default=(0.0, ""))


def _last_day(series: DailyCost) -> str:
    return (date.fromisoformat(series.first_day) + timedelta(days=len(series.amounts) - 1)).isoformat()


def _effective(sums: list[Decimal] | None) -> Decimal:
    return sums[1] if sums else ZERO


def _series(ledger: Ledger, key: SeriesKey, days: list[str]) -> DailyCost:
    currency, service, account = key
    cells = ledger.cells[key]
    parts = {
        "ChargeCategory": _categories(ledger, key, days),
        "RegionId": _parts(ledger.region_cells.get(key, {}), days),
        "ResourceId": _parts(ledger.resource_cells.get(key, {}), days),
    }
    return DailyCost(
        service=service,
        account=account,
        currency=currency,
        first_day=days[0],
        amounts=[cells.get(day, ZERO) for day in days],
        parts={dimension: found for dimension, found in parts.items() if found},
    )


def _categories(ledger: Ledger, key: SeriesKey, days: list[str]) -> dict[str, list[Decimal]]:
    """The series by charge category; empty where all of it is usage, as it mostly is."""
    fees = ledger.fee_cells.get(key)
    if not fees:
        return {}
    cells = ledger.cells[key]
    ranked = sorted(fees, key=lambda category: (-max(map(abs, fees[category].values())), category))
    parts = {category: [fees[category].get(day, ZERO) for day in days] for category in ranked[:PARTS_MAX]}
    others = [sum((fees[category].get(day, ZERO) for category in fees), ZERO) for day in days]
    return {USAGE: [cells.get(day, ZERO) - other for day, other in zip(days, others, strict=True)], **parts}


def _parts(by_key: Mapping[str, Mapping[str, Decimal]], days: list[str]) -> dict[str, list[Decimal]]:
    ranked = sorted((key for key in by_key if key), key=lambda key: (-max(by_key[key].values()), key))
    return {key: [by_key[key].get(day, ZERO) for day in days] for key in ranked[:PARTS_MAX]}


def _folded(ledger: Ledger, keys: Iterable[SeriesKey], days: list[str]) -> list[DailyCost]:
    sums: dict[str, dict[str, Decimal]] = {}
    for key in keys:
        days_of = sums.setdefault(key[0], {})
        for day, amount in ledger.cells[key].items():
            days_of[day] = days_of.get(day, ZERO) + amount
    return [
        DailyCost(
            service=OVERFLOW_KEY,
            account=OVERFLOW_KEY,
            currency=currency,
            first_day=days[0],
            amounts=[cells.get(day, ZERO) for day in days],
        )
        for currency, cells in sorted(sums.items())
    ]


def _without_parts(series: DailyCost) -> DailyCost:
    return DailyCost(
        service=series.service,
        account=series.account,
        currency=series.currency,
        first_day=series.first_day,
        amounts=series.amounts,
    )
