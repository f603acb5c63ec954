"""Optimizers and hooks in the CloudMind and CloudSage styles run with only their import lines changed."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cardcage_finops.models import AnalysisContext, CloudResource, OptimizationRecommendation, ResourceWithMetrics

if TYPE_CHECKING:
    from .conftest import Shipped

COST_AWARE_DOWNSIZER = """
from cardcage_finops.interfaces import OptimizerPluginBase
from cardcage_finops.models import CloudResource, OptimizationRecommendation

class CostAwareDownsizer(OptimizerPluginBase):
    def load(self, config: dict) -> None:
        self.threshold = config.get("cpu_threshold", 25)

    def analyze(self, resource: CloudResource, metrics: dict) -> list[OptimizationRecommendation]:
        recs = []
        cpu = metrics.get("cpu_usage")
        if cpu is not None and cpu < self.threshold:
            recs.append(OptimizationRecommendation(
                resource_id=resource.id,
                resource_name=resource.name,
                provider=resource.provider,
                action="downsize",
                reason=f"CPU {cpu}% < {self.threshold}%",
                estimated_savings=42.0,
                confidence=0.8,
            ))
        return recs
"""

EC2_OPTIMIZER = """
from cardcage_finops.optimizers import BaseOptimizer
from cardcage_finops.models import OptimizationRecommendation

class EC2Optimizer(BaseOptimizer):
    def analyze(self, instances):
        return [self._check_rightsizing(i) for i in instances]

    def _check_rightsizing(self, instance):
        if instance.metrics.get("cpu_usage", 100) > 10:
            return None
        return OptimizationRecommendation(resource_id=instance.id, estimated_savings=10, confidence=0.5)
"""

ANOMALY_HOOK = """
from cardcage_finops.hooks import hook, trigger_alert

@hook('post_cost_analysis')
def detect_anomalies(context):
    if context.daily_spike > 0.25:
        trigger_alert('CostSpikeDetected')
"""


def run(source: str) -> dict[str, Any]:
    """The names that an example defines."""
    names: dict[str, Any] = {"__name__": "example"}
    exec(source, names)
    return names


def resource(name: str) -> CloudResource:
    return CloudResource(id=f"i-{name}", name=name, provider="aws")


def test_the_cost_aware_downsizer_recommends_below_its_threshold_only() -> None:
    plugin = run(COST_AWARE_DOWNSIZER)["CostAwareDownsizer"]()
    plugin.load({"cpu_threshold": 30})
    (found,) = plugin.analyze(resource("quiet"), {"cpu_usage": 12})
    assert (found.resource_id, found.estimated_savings, found.reason) == ("i-quiet", Decimal("42.0"), "CPU 12% < 30%")
    assert plugin.analyze(resource("busy"), {"cpu_usage": 30}) == []
    assert plugin.analyze(resource("unknown"), {}) == []


def test_the_cost_aware_downsizer_serves_batches_through_its_base_class() -> None:
    plugin = run(COST_AWARE_DOWNSIZER)["CostAwareDownsizer"]()
    plugin.load({})
    items = [
        ResourceWithMetrics(resource=resource("a"), metrics={"cpu_usage": 3.0}),
        ResourceWithMetrics(resource=resource("b"), metrics={"cpu_usage": 90.0}),
    ]
    assert [one.resource_id for one in plugin.analyze_many(items)] == ["i-a"]


def test_the_ec2_optimizer_answers_an_entry_for_each_instance_none_included() -> None:
    plugin = run(EC2_OPTIMIZER)["EC2Optimizer"]()
    quiet = CloudResource(id="i-quiet", metrics={"cpu_usage": 2.0})
    found = plugin.analyze([quiet, resource("busy")])
    assert [one and one.resource_id for one in found] == ["i-quiet", None]


def test_the_ec2_optimizer_serves_the_extension_point_one_by_one_and_in_batches() -> None:
    plugin = run(EC2_OPTIMIZER)["EC2Optimizer"]()
    assert [one.resource_id for one in plugin.analyze(resource("a"), {"cpu_usage": 1.0})] == ["i-a"]
    assert plugin.analyze(resource("a"), {"cpu_usage": 99.0}) == []
    items = [
        ResourceWithMetrics(resource=resource(name), metrics={"cpu_usage": cpu})
        for name, cpu in [("a", 1.0), ("b", 50.0)]
    ]
    assert [one.resource_id for one in plugin.analyze_many(items)] == ["i-a"]


def test_the_anomaly_hook_is_marked_and_stays_silent_below_its_threshold() -> None:
    function = run(ANOMALY_HOOK)["detect_anomalies"]
    assert function(AnalysisContext(daily_spike=0.25)) is None


def package(folder: Path, source: str, attribute: str = "") -> Path:
    """A plugin package of one module."""
    folder.mkdir()
    (folder / "optimizer.py").write_text(source, "utf-8")
    (folder / "plugin.yaml").write_text(f'entrypoint: "optimizer:{attribute}"', "utf-8")
    return folder


QUIET_AND_BUSY = [
    ResourceWithMetrics(resource=resource("quiet"), metrics={"cpu_usage": 1.0}),
    ResourceWithMetrics(resource=resource("busy"), metrics={"cpu_usage": 99.0}),
]


def test_the_cost_aware_downsizer_is_served_with_typed_arguments(shipped: Shipped, tmp_path: Path) -> None:
    folder = package(tmp_path / "downsizer", COST_AWARE_DOWNSIZER, "CostAwareDownsizer")
    with shipped.serve_folder(folder, {"cpu_threshold": 30}, tmp_path) as served:
        (one,) = served.call(list[OptimizationRecommendation], "analyze", resource("a"), {"cpu_usage": 12.5})
        many = served.call(list[OptimizationRecommendation], "analyze_many", QUIET_AND_BUSY)
    assert (one.resource_id, one.estimated_savings, one.reason) == ("i-a", Decimal("42.0"), "CPU 12.5% < 30%")
    assert [found.resource_id for found in many] == ["i-quiet"]


def test_the_ec2_optimizer_is_served_by_resource_by_list_and_in_batches(shipped: Shipped, tmp_path: Path) -> None:
    folder = package(tmp_path / "ec2", EC2_OPTIMIZER, "EC2Optimizer")
    with shipped.serve_folder(folder, {}, tmp_path) as served:
        one = served.call(list[OptimizationRecommendation], "analyze", resource("a"), {"cpu_usage": 1})
        listed = served.call(list[OptimizationRecommendation | None], "analyze", [resource("busy")])
        many = served.call(list[OptimizationRecommendation], "analyze_many", QUIET_AND_BUSY)
    assert [found.resource_id for found in one] == ["i-a"]
    assert listed == [None]
    assert [found.resource_id for found in many] == ["i-quiet"]


def test_the_anomaly_hook_is_served_and_raises_its_alert_above_25_percent(shipped: Shipped, tmp_path: Path) -> None:
    folder = package(tmp_path / "hook", ANOMALY_HOOK)
    with shipped.serve_folder(folder, {}, tmp_path) as served:
        for growth in (0.25, 0.26):
            context = AnalysisContext(daily_spike=growth)
            assert served.call(Any, "cardcage.hook", "post_cost_analysis", "detect_anomalies", context) is None
        assert served.asked == [("alerts.trigger", ["CostSpikeDetected", {}])]
