"""The extension points of the FinOps pack, as the host calls them. Host side only: plugins use `interfaces`.

`post_cost_analysis` is no extension point but an ordered hook, over `AnalysisContext`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final, Protocol

from cardcage.contracts import extension_point
from cardcage_finops.models import (
    AnalysisContext,
    BillProfile,
    ChargeBatch,
    CloudResource,
    CostAnomaly,
    DailyCost,
    Delivery,
    MetricBatch,
    MetricSummary,
    Notification,
    OptimizationRecommendation,
    PolicyVerdict,
    ResourceWithMetrics,
)


@extension_point("cost_source", version=1)
class CostSource(Protocol):
    """Reads a bill and gives it as FOCUS 1.2 columns."""

    async def probe(self) -> BillProfile:
        """Look at the head of the bill."""
        ...

    def read(self, columns: list[str]) -> AsyncIterator[ChargeBatch]:
        """Stream the whole bill, only these columns."""
        ...


@extension_point("metrics_collector", version=1)
class MetricsCollector(Protocol):
    """Brings in the metrics of resources. An empty list of ids or names asks for all."""

    def collect(self, resource_ids: list[str], names: list[str]) -> AsyncIterator[MetricBatch]:
        """Stream the samples themselves."""
        ...

    def summarize(self, resource_ids: list[str]) -> AsyncIterator[MetricSummary]:
        """Stream one summary for each resource that has samples."""
        ...


@extension_point("optimizer", version=1)
class Optimizer(Protocol):
    """Finds what could cost less."""

    async def analyze(self, resource: CloudResource, metrics: dict[str, Any]) -> list[OptimizationRecommendation]:
        """What to do about one resource."""
        ...

    async def analyze_many(self, items: list[ResourceWithMetrics]) -> list[OptimizationRecommendation]:
        """The same for many resources in one call."""
        ...


@extension_point("policy", version=1)
class Policy(Protocol):
    """Judges an analysis by rules."""

    async def evaluate(self, context: AnalysisContext) -> list[PolicyVerdict]:
        """One verdict for each rule and scope."""
        ...


@extension_point("notification_channel", version=1)
class NotificationChannel(Protocol):
    """Carries messages to people or systems."""

    async def send(self, notification: Notification) -> Delivery:
        """Deliver one message."""
        ...


@extension_point("anomaly_detector", version=1)
class AnomalyDetector(Protocol):
    """Finds days that cost more than they should."""

    async def detect(self, series: list[DailyCost]) -> list[CostAnomaly]:
        """The anomalies of these series, the greatest impact first."""
        ...


@extension_point("resource_scanner", version=1)
class ResourceScanner(Protocol):
    """Lists resources that a bill does not show."""

    def scan(self) -> AsyncIterator[list[CloudResource]]:
        """Stream the resources, some at a time."""
        ...


OptimizationEngine = Optimizer
AlertHandler = NotificationChannel

EXTENSION_POINTS: Final[tuple[type, ...]] = (
    CostSource,
    MetricsCollector,
    Optimizer,
    Policy,
    NotificationChannel,
    AnomalyDetector,
    ResourceScanner,
)

PLUGIN_TYPES: Final[dict[str, str]] = {
    "cost_source": "cost_source@1",
    "metrics_collector": "metrics_collector@1",
    "optimizer": "optimizer@1",
    "policy": "policy@1",
    "policy_module": "policy@1",
    "notifier": "notification_channel@1",
    "notification_channel": "notification_channel@1",
    "anomaly_detector": "anomaly_detector@1",
    "resource_scanner": "resource_scanner@1",
}
"""What a manifest's `type` says it provides, where it has no `provides`."""

CAPABILITIES: Final[dict[str, str]] = {
    "ReadCostData": "read the charges and totals of an analysis",
    "ReadInstanceMetrics": "read the metrics of resources",
    "WriteRecommendations": "add recommendations to an analysis",
    "AlertManagement": "raise alerts, which are reported with the analysis",
}
"""What plugins of this pack may ask the host for, by name."""

LIBRARIES: Final[tuple[str, ...]] = ("cardcage_finops",)
"""Python packages that plugins of this pack see inside their walls."""
