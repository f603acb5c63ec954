"""Idle and right-sizing: what is found, what is spared, and what is said about it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage_finops.instance_types import INSTANCE_TYPES
from cardcage_finops.interfaces import OptimizerPluginBase
from cardcage_finops.models import CloudResource, OptimizationRecommendation, ResourceWithMetrics

if TYPE_CHECKING:
    from .conftest import Shipped


def resource(size: str = "", cost: str | None = "100") -> CloudResource:
    return CloudResource(id="r-1", name="one", provider="Example Cloud", size=size, monthly_cost=cost)


def summary(days: float = 14, **levels: float) -> dict[str, float]:
    """A metric summary in which every percentile of a metric is the same."""
    found: dict[str, float] = {}
    for name, level in levels.items():
        found |= {name: level, f"{name}_max": level, f"{name}_p95": level, f"{name}_p99_5": level}
        found |= {f"{name}_days": days, f"{name}_samples": days * 24}
    return found


class TestIdle:
    @pytest.fixture
    def idle(self, shipped: Shipped) -> OptimizerPluginBase:
        return shipped.make("idle-resource-optimizer", OptimizerPluginBase, {})

    @pytest.mark.parametrize(
        ("metrics", "action"),
        [
            (summary(connections=0), "stop"),
            (summary(requests=0), "delete"),
            (summary(disk_ops=0), "delete"),
            (summary(cpu_peak=4.9, network_bytes=5e4), "stop"),
            (summary(connections=0, cpu_peak=80), "stop"),
        ],
    )
    def test_what_nobody_uses_saves_all_that_it_costs(
        self, idle: OptimizerPluginBase, metrics: dict[str, Any], action: str
    ) -> None:
        (found,) = idle.analyze(resource(cost="31.25"), metrics)
        assert (found.action, found.estimated_savings, found.confidence) == (action, Decimal("31.25"), 0.95)
        assert found.reason.endswith("in 14 days")

    @pytest.mark.parametrize(
        "metrics",
        [
            {},
            summary(connections=1),
            summary(requests=1),
            summary(disk_ops=3),
            summary(cpu_peak=5.1, network_bytes=5e4),
            summary(cpu_peak=2, network_bytes=5e9),
            summary(cpu_peak=2),
            summary(days=6, cpu_peak=2, network_bytes=0),
            summary(memory_usage=1),
        ],
    )
    def test_what_is_used_or_not_known_enough_is_spared(
        self, idle: OptimizerPluginBase, metrics: dict[str, Any]
    ) -> None:
        assert idle.analyze(resource(), metrics) == []

    def test_what_costs_nothing_is_not_worth_a_word(self, idle: OptimizerPluginBase) -> None:
        assert idle.analyze(resource(cost=None), summary(requests=0)) == []
        assert idle.analyze(resource(cost="0"), summary(requests=0)) == []

    def test_confidence_grows_with_days_and_is_less_without_peaks(self, idle: OptimizerPluginBase) -> None:
        found = [idle.analyze(resource(), summary(days=days, requests=0))[0].confidence for days in (7, 10, 14, 60)]
        assert found == sorted(found)
        assert (found[0], found[-1]) == (0.7, 0.95)
        assert idle.analyze(resource(), summary(cpu_usage=1, network_bytes=0))[0].confidence == 0.75


class TestRightsizing:
    @pytest.fixture
    def size(self, shipped: Shipped) -> OptimizerPluginBase:
        return shipped.make("rightsizing-optimizer", OptimizerPluginBase, {})

    @pytest.mark.parametrize(
        ("present", "cpu", "memory", "target"),
        [
            ("general.4xlarge", 15.0, 15.0, "general.xlarge"),
            ("general.4xlarge", 15.0, 4.0, "compute.xlarge"),
            ("general.4xlarge", 15.0, 90.0, "memory.2xlarge"),
            ("memory.2xlarge", 15.0, 90.0, None),
            ("memory.4xlarge", 15.0, 15.0, "memory.xlarge"),
            ("m5.4xlarge", 20.0, 20.0, "m5.xlarge"),
            ("r5.2xlarge", 40.0, 20.0, "m5.xlarge"),
            ("general.large", 1.0, 1.0, "compute.large"),
            ("compute.large", 1.0, 1.0, None),
        ],
    )
    def test_the_cheapest_type_that_fits_is_proposed(
        self, size: OptimizerPluginBase, present: str, cpu: float, memory: float, target: str | None
    ) -> None:
        found = size.analyze(resource(present), summary(cpu_peak=cpu, memory_peak=memory))
        assert [one.details["to"] for one in found] == ([target] if target else [])

    def test_memory_is_never_shrunk_where_it_is_not_measured(self, size: OptimizerPluginBase) -> None:
        (found,) = size.analyze(resource("general.4xlarge"), summary(cpu_peak=35.0))
        target = INSTANCE_TYPES[found.details["to"]]
        assert (target.name, target.memory_gib) == ("memory.2xlarge", 64)
        assert found.confidence == 0.75
        assert found.details["doubts"] == ["no memory metric"]
        assert "memory unknown and kept" in found.reason

    def test_savings_are_at_what_is_paid_not_at_list_price(self, size: OptimizerPluginBase) -> None:
        (found,) = size.analyze(resource("general.4xlarge", "403.20"), summary(cpu_peak=30.0, memory_peak=30.0))
        assert found.details["to"] == "general.2xlarge"
        assert found.estimated_savings == Decimal("201.60")

    def test_peaks_count_before_means(self, size: OptimizerPluginBase) -> None:
        metrics = summary(cpu_usage=5.0, memory_usage=5.0) | summary(cpu_peak=80.0, memory_peak=80.0)
        assert size.analyze(resource("general.4xlarge"), metrics) == []
        (found,) = size.analyze(resource("general.4xlarge"), summary(cpu_usage=5.0, memory_usage=5.0))
        assert (found.confidence, found.details["doubts"]) == (0.8, ["interval means, no peaks"])

    @pytest.mark.parametrize(
        ("size_name", "metrics"),
        [
            ("", summary(cpu_peak=1, memory_peak=1)),
            ("unheard.of", summary(cpu_peak=1, memory_peak=1)),
            ("general.4xlarge", {}),
            ("general.4xlarge", summary(memory_peak=1)),
            ("general.4xlarge", summary(days=6, cpu_peak=1, memory_peak=1)),
        ],
    )
    def test_what_is_not_known_enough_is_left_alone(
        self, size: OptimizerPluginBase, size_name: str, metrics: dict[str, Any]
    ) -> None:
        assert size.analyze(resource(size_name), metrics) == []

    def test_few_days_lower_the_confidence(self, size: OptimizerPluginBase) -> None:
        metrics = summary(days=7, cpu_peak=5, memory_peak=5)
        assert size.analyze(resource("general.4xlarge"), metrics)[0].confidence == 0.75

    def test_headroom_and_percentile_can_be_set(self, shipped: Shipped) -> None:
        config = {"cpu_headroom": 1.0, "percentile": "max"}
        plugin = shipped.make("rightsizing-optimizer", OptimizerPluginBase, config)
        metrics = summary(cpu_peak=1.0, memory_peak=10.0) | {"cpu_peak_max": 40.0}
        assert plugin.analyze(resource("general.4xlarge"), metrics)[0].details["need_vcpus"] == 12.8


@settings(deadline=None)
@given(
    st.sampled_from(sorted(INSTANCE_TYPES)),
    st.floats(0, 100),
    st.none() | st.floats(0, 100),
    st.decimals(min_value=1, max_value=10_000, places=2),
)
def test_whatever_is_proposed_fits_is_cheaper_and_saves_less_than_the_cost(
    project_root: Path, present: str, cpu: float, memory: float | None, cost: Decimal
) -> None:
    from importlib import import_module
    from sys import path

    folder = str(project_root / "plugins" / "rightsizing-optimizer")
    path.insert(0, folder) if folder not in path else None
    plugin = import_module("rightsizing_optimizer").RightsizingOptimizer()
    plugin.load({})
    metrics = summary(cpu_peak=cpu) | ({} if memory is None else summary(memory_peak=memory))
    one = CloudResource(id="r", size=present, monthly_cost=cost)
    for found in plugin.analyze(one, metrics):
        now, then = INSTANCE_TYPES[present], INSTANCE_TYPES[found.details["to"]]
        assert then.provider == now.provider
        assert then.hourly < now.hourly
        assert then.vcpus >= now.vcpus * cpu / 100 * 1.2 - 1e-9
        assert then.memory_gib >= (
            now.memory_gib if memory is None else now.memory_gib * min(1, memory / 100 * 1.2) - 1e-9
        )
        assert 0 < found.estimated_savings < cost


@pytest.mark.parametrize("name", ["idle-resource-optimizer", "rightsizing-optimizer"])
def test_a_served_optimizer_gives_the_same_as_an_imported_one(shipped: Shipped, tmp_path: Path, name: str) -> None:
    items = [
        ResourceWithMetrics(
            resource=resource("general.4xlarge"), metrics=summary(cpu_peak=2, network_bytes=1, memory_peak=2)
        ),
        ResourceWithMetrics(resource=resource("general.4xlarge"), metrics={}),
    ]
    expected = shipped.make(name, OptimizerPluginBase, {}).analyze_many(items)
    assert len(expected) == 1
    with shipped.serve(name, {}, tmp_path) as served:
        assert served.call(list[OptimizationRecommendation], "analyze_many", items) == expected
        one = served.call(list[OptimizationRecommendation], "analyze", items[0].resource, items[0].metrics)
    assert one == expected
