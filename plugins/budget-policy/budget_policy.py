"""Judges budgets by scope and period, with a forecast to the end of the month."""

from __future__ import annotations

from calendar import monthrange
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from cardcage_finops.interfaces import PolicyModulePlugin
from cardcage_finops.models import AnalysisContext, Budget, DailyCost, PolicyVerdict

FORECAST_DAYS = 7
"""A whole week, so that weekends count as much as they do."""
CENT = Decimal("0.01")


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """What was spent in one period of a budget, and what may be in the end."""

    label: str
    spent: Decimal
    forecast: Decimal | None = None


class BudgetPolicy(PolicyModulePlugin):
    """One verdict for each budget and period."""

    def load(self, config: dict[str, Any]) -> None:
        """Take the budgets. Raises `ValueError` where an amount is no number."""
        self.budgets = [msgspec.convert(budget, Budget) for budget in config.get("budgets", [])]

    def evaluate(self, context: AnalysisContext) -> list[PolicyVerdict]:
        """Judge every budget against the analysis."""
        return [
            verdict(budget, period) for budget in self.budgets for period in periods(budget, days_of(budget, context))
        ]


def days_of(budget: Budget, context: AnalysisContext) -> dict[date, Decimal]:
    """What each day cost within the budget's scope and currency."""
    scoped = bool(budget.service or budget.account)
    found: dict[date, Decimal] = {}
    for series in context.series if scoped else context.daily:
        if series.currency == budget.currency and _within(budget, series):
            first = date.fromisoformat(series.first_day)
            for position, amount in enumerate(series.amounts):
                day = first + timedelta(days=position)
                found[day] = found.get(day, Decimal(0)) + amount
    return found


def _within(budget: Budget, series: DailyCost) -> bool:
    return budget.service in ("", series.service) and budget.account in ("", series.account)


def periods(budget: Budget, days: dict[date, Decimal]) -> list[Period]:
    """The periods that a budget is judged over."""
    if not days:
        return [Period(label="", spent=Decimal(0))]
    match budget.period:
        case "total":
            return [Period(label=f"{min(days)} to {max(days)}", spent=sum(days.values(), Decimal(0)))]
        case "day":
            dearest = max(days, key=lambda day: (days[day], day))
            return [Period(label=dearest.isoformat(), spent=days[dearest])]
        case "month":
            months = sorted({(day.year, day.month) for day in days})
            return [_month(days, year, month, last=(year, month) == months[-1]) for year, month in months]


def _month(days: dict[date, Decimal], year: int, month: int, *, last: bool) -> Period:
    spent = sum((amount for day, amount in days.items() if (day.year, day.month) == (year, month)), Decimal(0))
    left = monthrange(year, month)[1] - max(days).day if last else 0
    label = f"{year:04d}-{month:02d}"
    if left <= 0:
        return Period(label=label, spent=spent)
    recent = [days[day] for day in sorted(days)[-FORECAST_DAYS:]]
    forecast = spent + sum(recent, Decimal(0)) / len(recent) * left
    return Period(label=label, spent=spent, forecast=forecast.quantize(CENT))


def verdict(budget: Budget, period: Period) -> PolicyVerdict:
    """What the numbers say."""
    amount, spent, forecast = budget.amount, period.spent, period.forecast
    status = "ok"
    if spent > amount:
        status = "breach"
    elif spent >= amount * Decimal(str(budget.warn_at)) or (forecast is not None and forecast > amount):
        status = "warn"
    return PolicyVerdict(
        policy=f"budget {budget.name}",
        status=status,
        message=_message(budget, period),
        scope=" / ".join(part for part in (budget.account, budget.service) if part) or "everything",
        currency=budget.currency,
        spent=spent,
        forecast=forecast,
        limit=amount,
        period=period.label,
    )


def _message(budget: Budget, period: Period) -> str:
    if not period.label:
        return f"no charges in {budget.currency} are in its scope"
    share = f", {period.spent / budget.amount:.0%}" if budget.amount > 0 else ""
    text = f"{period.spent:.2f} of {budget.amount:.2f} {budget.currency} spent in {period.label}{share}"
    return text if period.forecast is None else f"{text}; {period.forecast:.2f} forecast by the month's end"
