"""Base classes that plugins of the FinOps pack are written on, one for each extension point.

Each is CloudMind's four-method lifecycle (`load`, `validate`, `capabilities`, `shutdown`) and the methods of its
extension point, typed. A plugin may as well be any other class with these methods: the host goes by names and types.
Nothing here imports the host, because this runs inside the plugin's walls. The host's side is `extension_points`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

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
from cardcage_sdk import CloudMindPluginBase

__all__ = [
    "AlertHandler",
    "AnomalyDetectorPlugin",
    "CostAnalysisHook",
    "CostSourcePlugin",
    "MetricsCollectorPlugin",
    "NotificationChannelPlugin",
    "OptimizationEngine",
    "OptimizerPlugin",
    "OptimizerPluginBase",
    "PolicyModulePlugin",
    "ResourceScanner",
]


class OptimizerPluginBase(CloudMindPluginBase):
    """Finds what could cost less (`optimizer@1`): implement `analyze` for one resource, or `analyze_many` for all."""

    @abstractmethod
    def analyze(self, resource: CloudResource, metrics: dict[str, Any]) -> list[OptimizationRecommendation]:
        """What to do about this resource. `metrics` has the keys of `MetricSummary.values`; a metric may be missing."""

    def analyze_many(self, items: list[ResourceWithMetrics]) -> list[OptimizationRecommendation]:
        """The same for many resources in one call, so that a large estate costs few calls."""
        return [found for item in items for found in self.analyze(item.resource, dict(item.metrics))]


class MetricsCollectorPlugin(CloudMindPluginBase):
    """Brings in the metrics of resources (`metrics_collector@1`). An empty list of ids or names asks for all."""

    @abstractmethod
    def collect(self, resource_ids: list[str], names: list[str]) -> Iterator[MetricBatch]:
        """Stream the samples themselves."""

    @abstractmethod
    def summarize(self, resource_ids: list[str]) -> Iterator[MetricSummary]:
        """Stream one summary for each resource that has samples."""


class CostSourcePlugin(CloudMindPluginBase):
    """Reads a bill and gives it as FOCUS 1.2 columns (`cost_source@1`)."""

    @abstractmethod
    def probe(self) -> BillProfile:
        """Look at the head of the bill: its format, version, and the columns it can give."""

    @abstractmethod
    def read(self, columns: list[str]) -> Iterator[ChargeBatch]:
        """Stream the whole bill, only these columns, in batches. No row is left out without a `RowIssue`."""


class NotificationChannelPlugin(CloudMindPluginBase):
    """Carries messages to people or systems (`notification_channel@1`)."""

    @abstractmethod
    def send(self, notification: Notification) -> Delivery:
        """Deliver one message."""


class PolicyModulePlugin(CloudMindPluginBase):
    """Judges an analysis by rules (`policy@1`)."""

    @abstractmethod
    def evaluate(self, context: AnalysisContext) -> list[PolicyVerdict]:
        """One verdict for each rule and scope, `ok` ones included."""


class AnomalyDetectorPlugin(CloudMindPluginBase):
    """Finds days that cost more than they should (`anomaly_detector@1`)."""

    @abstractmethod
    def detect(self, series: list[DailyCost]) -> list[CostAnomaly]:
        """The anomalies of these series, the greatest impact first."""


class CostAnalysisHook(CloudMindPluginBase):
    """A step after each cost analysis. Mark the method with `@hook("post_cost_analysis")`."""

    def post_cost_analysis(self, context: AnalysisContext) -> AnalysisContext | None:
        """See, and perhaps change, what the hooks and reports after this one get. None leaves it as it is."""
        return None


OptimizerPlugin = OptimizerPluginBase
OptimizationEngine = OptimizerPluginBase
AlertHandler = NotificationChannelPlugin


class ResourceScanner(CloudMindPluginBase):
    """Lists resources that a bill does not show (`resource_scanner@1`)."""

    @abstractmethod
    def scan(self) -> Iterator[list[CloudResource]]:
        """Stream the resources, some at a time."""
