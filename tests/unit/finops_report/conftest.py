"""An analysis to show: three services over forty days, one unusual day, and names that mean harm."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from decimal import Decimal

import pytest

from cardcage_finops.models import (
    AnomalyCause,
    ChargeBatch,
    CostAnomaly,
    Delivery,
    OptimizationRecommendation,
    PolicyVerdict,
    RowIssue,
)
from cardcage_finops.pipeline.ledger import Ledger
from cardcage_finops.pipeline.resources import cloud_resources
from cardcage_finops.pipeline.result import Alert, Analysis, Bill, Notice, PluginRun, Recommendation
from cardcage_finops.pipeline.series import analysis_context
from cardcage_finops.pipeline.summary import currency_results, issues_result, rows_result

HOSTILE = (
    "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>"
    "\x1b[31m\x1b]0;owned\x07\u202e[bold]evil[/]"
)
"""Ends elements, starts scripts, colours a terminal, sets its title, turns text round, and is markup to rich."""

DAYS = 40
SERVICES = ("Amazon Elastic Compute Cloud", "Object storage", HOSTILE)


def build_analysis(currency: str = "USD", second_currency: str | None = None) -> Analysis:
    """The analysis, out of a real ledger."""
    ledger = Ledger()
    ledger.add(_batch(currency, second_currency))
    context = analysis_context(ledger)
    resources = {one.id: one for one in cloud_resources(ledger, context.currency)}
    recommendations = [
        Recommendation(
            chosen=OptimizationRecommendation(
                resource_id="i-1",
                estimated_savings="21.5",
                confidence=0.92,
                action="stop",
                reason=f"idle for 14 days {HOSTILE}",
                source="idle-resource-optimizer",
            ),
            alternatives=[_downsize("i-1", "9", 0.8)],
            resource=resources["i-1"],
        ),
        Recommendation(
            chosen=_downsize("i-2", "300", 0.4),
            alternatives=[],
            resource=resources["i-2"],
        ),
    ]
    return Analysis(
        bill=Bill(
            name=f"bill {HOSTILE}.csv",
            size_bytes=12345,
            sha256="ab" * 32,
            format="focus",
            version="1.2",
            source="s",
        ),
        created_at="2024-10-11 12:00:00 UTC",
        seconds=1.25,
        period_start=context.period_start,
        period_end=context.period_end,
        currency=context.currency,
        rows=rows_result(ledger),
        issues=issues_result(ledger.issues),
        currencies=currency_results(ledger),
        daily_spike=context.daily_spike,
        daily_spike_day=context.daily_spike_day,
        daily=context.daily,
        series=[one for one in context.series if one.currency == context.currency],
        resources=len(resources),
        metrics_resources=2,
        anomalies=[
            CostAnomaly(
                service=SERVICES[0],
                account="a1",
                currency=context.currency,
                first_day="2024-09-20",
                last_day="2024-09-21",
                actual=Decimal("180.6"),
                expected=Decimal("60.2"),
                impact=Decimal("120.4"),
                change=2.0,
                reason=f"twice {HOSTILE}",
                causes=[AnomalyCause(dimension="ResourceId", key=HOSTILE, amount=Decimal("120.4"), share=1.0)],
            )
        ],
        recommendations=recommendations,
        monthly_savings=Decimal("321.5"),
        policies=[
            PolicyVerdict(policy=HOSTILE, status="breach", message=HOSTILE, spent=Decimal(120), limit=Decimal(100)),
            PolicyVerdict(policy="fine", status="ok", message="within", spent=Decimal(20), limit=Decimal(100)),
        ],
        alerts=[Alert(name=HOSTILE, source="p", details={HOSTILE: HOSTILE})],
        notices=[Notice(target="file:/x", delivery=Delivery(delivered=False, detail=HOSTILE))],
        plugins=[
            PluginRun(
                name="focus-cost-source", version="1.0.0", role="cost source", isolation="process", seconds=0.5, calls=2
            ),
            PluginRun(
                name="webhook-notifier",
                version="1.0.0",
                role="notification channel",
                isolation="unconfined",
                seconds=0.1,
                calls=1,
                error=f"it failed {HOSTILE}",
                error_code="plugin_error",
            ),
        ],
        warnings=[HOSTILE],
    )


def _downsize(resource: str, savings: str, confidence: float) -> OptimizationRecommendation:
    return OptimizationRecommendation(
        resource_id=resource, estimated_savings=savings, confidence=confidence, action="downsize"
    )


def _batch(currency: str, second_currency: str | None) -> ChargeBatch:
    columns: dict[str, list[str | None]] = {}
    first = date(2024, 9, 1)
    for day in range(DAYS):
        for at, service in enumerate(SERVICES):
            cost = Decimal(30 - 9 * at) * (3 if at == 0 and day in (19, 20) else 1) + Decimal(day) / 7
            text = str(round(cost, 10))
            row = {
                "BilledCost": text,
                "EffectiveCost": text,
                "ListCost": str(round(cost * 2, 10)),
                "ContractedCost": text,
                "BillingCurrency": second_currency if second_currency and day % 5 == 4 else currency,
                "ChargePeriodStart": f"{first + timedelta(days=day)}T00:00:00Z",
                "ServiceName": service,
                "SubAccountId": f"a{1 + at % 2}",
                "SubAccountName": ("Team one", HOSTILE)[at % 2],
                "RegionId": "eu-west-1",
                "ResourceId": f"i-{1 + at}",
                "ResourceName": (HOSTILE, "plain", "other")[at],
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    taken = len(columns["BilledCost"])
    issues = [RowIssue(row=7, column=HOSTILE, code="bad_date", message=HOSTILE, action="refused")]
    return ChargeBatch(columns=columns, first_row=1, read=taken + 1, taken=taken, refused=1, corrected=2, issues=issues)


@pytest.fixture
def hostile() -> str:
    """The text that is in every name."""
    return HOSTILE


@pytest.fixture
def make_analysis() -> Callable[..., Analysis]:
    """Builds the analysis, in one currency or in two."""
    return build_analysis


@pytest.fixture
def analysis() -> Analysis:
    """The analysis in dollars."""
    return build_analysis()
