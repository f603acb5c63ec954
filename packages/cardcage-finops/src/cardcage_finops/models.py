"""What the extension points of the FinOps pack speak in: resources, charges, costs, findings.

Every model is a frozen msgspec struct. Money is `Decimal`, on the wire and in JSON a decimal string, never a float: a
plugin may hand in `42.0` or `"42.00"`, and it is made exact at the door. Columns of charges are named as in FOCUS 1.2;
our own carry the prefix `x_`. Light on purpose: plugins import this module inside their walls.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta, Struct, field
from msgspec.structs import force_setattr

MoneyLike = Decimal | float | str
"""What may be handed in where money is asked for. It is kept as an exact `Decimal`."""

Share = Annotated[float, Meta(ge=0, le=1)]
"""A number from 0 to 1, such as a confidence. Never money."""


def money(value: MoneyLike) -> Decimal:
    """The exact amount: a float counts as the digits it prints (42.1 is 42.1), not as its binary neighbour.

    Raises `ValueError` where it is no finite number.
    """
    if type(value) is not Decimal:
        try:
            value = Decimal(value if isinstance(value, (str, int, Decimal)) else repr(value))
        except (InvalidOperation, TypeError, ValueError):
            raise ValueError(f"money must be a number, but found {value!r}") from None
    if not value.is_finite():
        raise ValueError(f"money must be finite, but found {value}")
    return value


def _make_exact(struct: Struct, *names: str) -> None:
    for name in names:
        value = getattr(struct, name)
        if value is not None:
            force_setattr(struct, name, money(value))


class CloudResource(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that costs money: an instance, a volume, a bucket. Costs are of one month."""

    id: str
    name: str = ""
    provider: str = ""
    resource_type: str = ""
    """The kind, in the provider's own words: `instance`, `volume`, `bucket`."""
    service: str = ""
    region: str = ""
    account: str = ""
    size: str = ""
    """The type or size that is rented, such as `m5.xlarge`; empty where the kind has none."""
    tags: dict[str, str] = {}
    attributes: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    """Its metric summary where the caller has joined it; the keys are those of `MetricSummary.values`."""
    monthly_cost: Decimal | None = None
    """EffectiveCost of 30 days: what it really costs, net of commitments already paid."""
    monthly_list_cost: Decimal | None = None
    currency: str = "USD"

    def __post_init__(self) -> None:
        _make_exact(self, "monthly_cost", "monthly_list_cost")

    @property
    def type(self) -> str:
        """The same as `resource_type`."""
        return self.resource_type

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            id: str,  # noqa: A002 - every provider calls it so
            name: str = "",
            provider: str = "",
            resource_type: str = "",
            service: str = "",
            region: str = "",
            account: str = "",
            size: str = "",
            tags: dict[str, str] = ...,
            attributes: dict[str, Any] = ...,
            metrics: dict[str, float] = ...,
            monthly_cost: MoneyLike | None = None,
            monthly_list_cost: MoneyLike | None = None,
            currency: str = "USD",
        ) -> None: ...


class ResourceWithMetrics(Struct, frozen=True, kw_only=True):
    """A resource and its metric summary: what a batch of an optimizer is made of."""

    resource: CloudResource
    metrics: dict[str, float] = {}


class OptimizationRecommendation(Struct, frozen=True, kw_only=True):
    """Something to do to one resource, what it would save in a month, and how sure the plugin is."""

    resource_id: str
    estimated_savings: Decimal
    confidence: Share
    resource_name: str = ""
    provider: str = ""
    action: str = ""
    """One word: `stop`, `delete`, `downsize`, ..."""
    reason: str = ""
    """One sentence with the numbers that led to it."""
    currency: str = "USD"
    period: str = "month"
    """What `estimated_savings` is for."""
    source: str = ""
    """The plugin that said so; the host fills it in."""
    details: dict[str, Any] = {}

    def __post_init__(self) -> None:
        _make_exact(self, "estimated_savings")
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence must be between 0 and 1, but found {self.confidence}")

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            resource_id: str,
            estimated_savings: MoneyLike,
            confidence: float,
            resource_name: str = "",
            provider: str = "",
            action: str = "",
            reason: str = "",
            currency: str = "USD",
            period: str = "month",
            source: str = "",
            details: dict[str, Any] = ...,
        ) -> None: ...


class RowIssue(Struct, frozen=True, kw_only=True):
    """Something wrong with one row of a bill, and what was done about it.

    `corrected`: the row was taken with one value mended; `refused`: the row was not taken; `noted`: it was taken as it
    stands, but is worth a look. Row 1 is the first row under the header; row 0 means the file as a whole.
    """

    row: int
    column: str
    code: str
    """A stable word: `bad_decimal`, `bad_date`, `missing_value`, `wrong_width`, `negative_usage`, `mixed_currency`."""
    message: str
    action: Literal["corrected", "refused", "noted"]


class Charge(Struct, frozen=True, kw_only=True):
    """One row of a bill: FOCUS 1.2 column names to text; decimals and dates are text too."""

    row: int
    values: dict[str, str | None]


class ChargeBatch(Struct, frozen=True, kw_only=True):
    """Some rows of a bill, by column: only the columns asked for, each as long as `taken`.

    Decimals are decimal strings, dates `2024-09-18T22:00:00Z`, tags one JSON object, an absent value None.
    read = taken + refused, and corrected counts rows among the taken.
    """

    columns: dict[str, list[str | None]]
    first_row: int
    read: int
    taken: int
    corrected: int = 0
    refused: int = 0
    issues: list[RowIssue] = []
    rows: list[int] = []
    """Row numbers of the taken rows; empty where they simply count up from `first_row`."""
    done: Share = 0.0
    """How much of the file has been read, for a progress bar."""

    def __len__(self) -> int:
        return self.taken

    def charges(self) -> list[Charge]:
        """The same, row by row. Handy in tests and small plugins; slow on a big bill."""
        names = list(self.columns)
        numbers = self.rows or list(range(self.first_row, self.first_row + self.taken))
        cells: list[tuple[str | None, ...]] = list(zip(*self.columns.values(), strict=True)) or [()] * self.taken
        return [
            Charge(row=number, values=dict(zip(names, row, strict=True)))
            for number, row in zip(numbers, cells, strict=True)
        ]


class BillProfile(Struct, frozen=True, kw_only=True):
    """What a cost source found at the head of a bill, before reading it."""

    format: str
    """`focus` or `aws-cur`."""
    version: str = ""
    columns: list[str] = []
    """The FOCUS 1.2 (and `x_`) columns it can give."""
    issues: list[RowIssue] = []
    """What was mended or ignored for the whole file (row 0)."""
    size_bytes: int = 0


class MetricSample(Struct, frozen=True, kw_only=True, array_like=True):
    """One value of one metric of one resource at one time (`2024-09-18T22:00:00Z`)."""

    resource_id: str
    name: str
    time: str
    value: float


class MetricBatch(Struct, frozen=True, kw_only=True):
    """Some samples, and what was wrong with the rows they came from."""

    samples: list[MetricSample] = []
    issues: list[RowIssue] = []


class MetricSeries(Struct, frozen=True, kw_only=True):
    """One metric of one resource over time; `times` and `values` are of one length."""

    resource_id: str
    name: str
    times: list[str]
    values: list[float]


class MetricSummary(Struct, frozen=True, kw_only=True):
    """What an optimizer needs to know of a resource's metrics.

    For a metric `cpu_usage` the keys are `cpu_usage` (mean), `cpu_usage_p50`, `cpu_usage_p95`, `cpu_usage_p99_5`,
    `cpu_usage_max`, `cpu_usage_samples`, `cpu_usage_days` (days with at least one sample). Percentages run from 0 to
    100. A name ending in `_peak` holds the greatest value of each interval.
    """

    resource_id: str
    values: dict[str, float]
    issues: list[RowIssue] = []


class DailyCost(Struct, frozen=True, kw_only=True):
    """One series of cost, a value a day without gaps, of one service, account and currency.

    An empty `service` or `account` means all of them. `parts` splits the same amounts by dimension, so that causes can
    be ranked: {"RegionId": {"eu-west-1": [...]}, "ResourceId": {...}}; each list is as long as `amounts`. With the
    dimension `ChargeCategory` detectors look at usage alone, so that fees, taxes and credits raise no alarm.
    """

    service: str = ""
    account: str = ""
    currency: str = "USD"
    first_day: str
    """`2024-09-01`"""
    amounts: list[Decimal]
    parts: dict[str, dict[str, list[Decimal]]] = {}


class AnomalyCause(Struct, frozen=True, kw_only=True):
    """One value of one dimension, and how much of an anomaly's excess it explains."""

    dimension: str
    key: str
    amount: Decimal
    share: float


class CostAnomaly(Struct, frozen=True, kw_only=True):
    """A run of days that cost more than the series' own past says they should."""

    service: str = ""
    account: str = ""
    currency: str = "USD"
    first_day: str
    last_day: str
    kind: str = "spike"
    """`spike` (back to normal after some days), `step` (a new level), `drift` (a slow rise)."""
    actual: Decimal
    """Cost of these days."""
    expected: Decimal
    """What the baseline said they would cost."""
    impact: Decimal
    """actual - expected"""
    change: float
    """impact / expected; 0.25 is 25 %. Infinity is written as 1e9."""
    score: float = 0.0
    """How many robust deviations the worst day lies above its baseline."""
    method: str = ""
    reason: str = ""
    causes: list[AnomalyCause] = []
    source: str = ""


class Totals(Struct, frozen=True, kw_only=True):
    """The four costs of FOCUS, of one currency. Currencies are never added to each other."""

    billed: Decimal = Decimal(0)
    effective: Decimal = Decimal(0)
    list: Decimal = Decimal(0)
    contracted: Decimal = Decimal(0)


class Budget(Struct, frozen=True, kw_only=True):
    """An amount that a scope may cost in a period. An empty scope field means all."""

    name: str
    amount: Decimal
    currency: str = "USD"
    period: Literal["day", "month", "total"] = "month"
    service: str = ""
    account: str = ""
    warn_at: float = 0.8
    """The share of the amount at which spent or forecast cost becomes a warning."""

    def __post_init__(self) -> None:
        _make_exact(self, "amount")

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            name: str,
            amount: MoneyLike,
            currency: str = "USD",
            period: Literal["day", "month", "total"] = "month",
            service: str = "",
            account: str = "",
            warn_at: float = 0.8,
        ) -> None: ...


class PolicyVerdict(Struct, frozen=True, kw_only=True):
    """What one rule says about one scope, with the numbers."""

    policy: str
    status: Literal["ok", "warn", "breach"]
    message: str
    scope: str = ""
    currency: str = "USD"
    spent: Decimal | None = None
    forecast: Decimal | None = None
    limit: Decimal | None = None
    period: str = ""
    source: str = ""


class Notification(Struct, frozen=True, kw_only=True):
    """A message for people, with the facts beside it."""

    title: str
    text: str = ""
    severity: Literal["info", "warning", "critical"] = "info"
    kind: str = ""
    """A past-tense word: `analysis_finished`, `cost_spiked`, `budget_breached`."""
    time: str = ""
    data: dict[str, Any] = {}


class Delivery(Struct, frozen=True, kw_only=True):
    """What became of a notification."""

    delivered: bool
    channel: str = ""
    detail: str = ""


class CostPeriod(Struct, frozen=True, kw_only=True):
    """What a bill covers: its first and last day, and its currencies, the main one first."""

    first_day: str
    last_day: str
    currency: str
    currencies: list[str] = []


class RaisedAlert(Struct, frozen=True, kw_only=True):
    """An alert as the host took it."""

    name: str
    details: dict[str, str] = {}


class AnalysisContext(Struct, frozen=True, kw_only=True):
    """What the hook `post_cost_analysis`, policies and detectors see of a finished analysis."""

    period_start: str = ""
    """First day with a charge."""
    period_end: str = ""
    """Last day with a charge, included."""
    currency: str = "USD"
    """The currency with the greatest billed cost; `daily_spike` is about this one."""
    daily_spike: float = 0.0
    """The greatest growth of the whole cost from one day to the next, as a fraction: 0.25 is 25 %."""
    daily_spike_day: str = ""
    totals: dict[str, Totals] = {}
    """By currency."""
    daily: list[DailyCost] = []
    """The whole cost by day, one series a currency."""
    series: list[DailyCost] = []
    """Cost by service and account, one series each."""
    anomalies: list[CostAnomaly] = []
    recommendations: list[OptimizationRecommendation] = []
    verdicts: list[PolicyVerdict] = []
    data: dict[str, Any] = field(default_factory=dict[str, Any])
    """Room for hooks to leave something for the hooks after them."""
