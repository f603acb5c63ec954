"""The finished analysis: one frozen tree that the JSON, the terminal report and the HTML page are all made from."""

from __future__ import annotations

from decimal import Decimal

from msgspec import Struct

from cardcage_finops.models import (
    CloudResource,
    CostAnomaly,
    DailyCost,
    Delivery,
    OptimizationRecommendation,
    PolicyVerdict,
    RowIssue,
    Totals,
)


class Bill(Struct, frozen=True, kw_only=True):
    """The file that was read."""

    name: str
    size_bytes: int
    sha256: str
    format: str
    version: str
    source: str
    """The plugin that read it."""


class Rows(Struct, frozen=True, kw_only=True):
    """What became of the rows: read = taken + refused; corrected ones are among the taken."""

    read: int
    taken: int
    corrected: int
    refused: int


class KeyTotal(Struct, frozen=True, kw_only=True):
    """The four costs of one service, account, day or region."""

    key: str
    name: str
    """What people call the key, where the bill says so; else empty."""
    totals: Totals


class CurrencyResult(Struct, frozen=True, kw_only=True):
    """Everything in one currency. Currencies are never added to each other."""

    currency: str
    rows: int
    totals: Totals
    service: list[KeyTotal]
    account: list[KeyTotal]
    day: list[KeyTotal]
    region: list[KeyTotal]


class Issue(Struct, frozen=True, kw_only=True):
    """How many issues of one kind were met."""

    code: str
    action: str
    count: int


class Issues(Struct, frozen=True, kw_only=True):
    """Every issue is counted; the first of each kind are listed."""

    total: int
    counts: list[Issue]
    listed: list[RowIssue]
    listed_per_kind_max: int


class Recommendation(Struct, frozen=True, kw_only=True):
    """What stands for one resource, with what stood back for it."""

    chosen: OptimizationRecommendation
    alternatives: list[OptimizationRecommendation]
    resource: CloudResource | None
    """The resource as the bill shows it; None where the plugin named one that the bill has not."""


class Alert(Struct, frozen=True, kw_only=True):
    """An alert that a plugin raised through the host."""

    name: str
    source: str
    details: dict[str, str]


class PluginRun(Struct, frozen=True, kw_only=True):
    """One plugin's part in the analysis."""

    name: str
    version: str
    role: str
    isolation: str
    seconds: float
    """Time spent waiting for its answers, its start included."""
    calls: int
    digest: str = ""
    walls: str = ""
    """How many layers of its walls are enforced, such as `11 of 11`."""
    error: str | None = None
    error_code: str | None = None


class Notice(Struct, frozen=True, kw_only=True):
    """What became of the message to one channel."""

    target: str
    delivery: Delivery


class Analysis(Struct, frozen=True, kw_only=True):
    """A finished analysis. `currencies` begins with the main one; `series` are the costliest, in the main currency."""

    bill: Bill
    created_at: str
    seconds: float
    period_start: str
    period_end: str
    currency: str
    rows: Rows
    issues: Issues
    currencies: list[CurrencyResult]
    daily_spike: float
    daily_spike_day: str
    daily: list[DailyCost]
    series: list[DailyCost]
    resources: int
    metrics_resources: int
    """How many of the resources had metrics."""
    anomalies: list[CostAnomaly]
    recommendations: list[Recommendation]
    monthly_savings: Decimal
    policies: list[PolicyVerdict]
    alerts: list[Alert] = []
    notices: list[Notice] = []
    plugins: list[PluginRun] = []
    warnings: list[str] = []
    """What was put aside and why, such as a recommendation that can't be true."""

    @property
    def main(self) -> CurrencyResult | None:
        """The result in the main currency; None where no row was taken."""
        return self.currencies[0] if self.currencies else None
