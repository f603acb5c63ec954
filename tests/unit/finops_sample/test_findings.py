"""The shipped plugins on sample estates: what is there is found, and what is not there is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cardcage_finops.models import ChargeBatch, CloudResource, OptimizationRecommendation, ResourceWithMetrics
from cardcage_finops.sample import generate

Load = Callable[..., Any]

STATED_CONFIDENCE = 0.7
"""A recommendation of at least this confidence must be right."""


def resources_of(batches: list[ChargeBatch], days: int) -> dict[str, CloudResource]:
    """The resources of a bill, with what 30 days of them cost."""
    costs: dict[str, Decimal] = {}
    details: dict[str, str] = {}
    for batch in batches:
        columns = batch.columns
        cells = zip(columns["ResourceId"], columns["EffectiveCost"], columns["SkuPriceDetails"], strict=True)
        for name, cost, detail in cells:
            if name:
                costs[name] = costs.get(name, Decimal(0)) + Decimal(cost or 0)
                details[name] = detail or "{}"
    return {
        name: CloudResource(
            id=name,
            size=json.loads(details[name]).get("InstanceType", ""),
            monthly_cost=cost * 30 / days,
        )
        for name, cost in costs.items()
    }


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_idle_and_oversized_resource_is_found_and_nothing_else(
    load_plugin: Load, tmp_path: Path, seed: int
) -> None:
    files = generate(tmp_path, resources=240, days=15, seed=seed)
    truth = json.loads(files.truth.read_text("utf-8"))
    source = load_plugin("focus-cost-source", "focus_cost_source", "FocusCostSource", bill=str(files.bill))
    batches: list[ChargeBatch] = list(source.read(["ResourceId", "EffectiveCost", "SkuPriceDetails"]))
    assert sum(batch.taken for batch in batches) == files.rows
    collector = load_plugin(
        "metrics-file-collector", "metrics_file_collector", "MetricsFileCollector", file=str(files.metrics)
    )
    metrics = {one.resource_id: one.values for one in collector.summarize([])}
    items = [
        ResourceWithMetrics(resource=one, metrics=metrics.get(name, {}))
        for name, one in resources_of(batches, 15).items()
    ]
    idle = {one["resource_id"]: Decimal(one["monthly_cost"]) for one in truth["idle"]}
    oversized = {one["resource_id"]: one["target"] for one in truth["oversized"]}
    quiet = found(load_plugin("idle-resource-optimizer", "idle_resource_optimizer", "IdleResourceOptimizer"), items)
    large = found(load_plugin("rightsizing-optimizer", "rightsizing_optimizer", "RightsizingOptimizer"), items)
    assert len(idle) >= 8
    assert len(oversized) >= 10
    assert {one.resource_id for one in quiet} == set(idle)
    for one in quiet:
        assert abs(one.estimated_savings - idle[one.resource_id]) < Decimal("0.01")
    # An idle instance is oversized too: that is no mistake, and the one with the greater savings stands.
    assert {one.resource_id: one.details["to"] for one in large if one.resource_id not in idle} == oversized


def found(plugin: Any, items: list[ResourceWithMetrics]) -> list[OptimizationRecommendation]:
    """The recommendations whose confidence is at least the stated one."""
    every: list[OptimizationRecommendation] = plugin.analyze_many(items)
    return [one for one in every if one.confidence >= STATED_CONFIDENCE]


def test_the_robust_detector_beats_the_plain_rule_on_20_seeds(evaluation: Any) -> None:
    scores = evaluation.evaluate(range(1, 21))
    rule, robust = scores["25 % rule"], scores["robust"]
    assert robust.truths >= 100
    assert robust.recall >= rule.recall
    assert robust.precision > 5 * rule.precision
    assert robust.recall >= 0.95
    assert robust.precision >= 0.9
    assert robust.kinds_right >= 0.95 * robust.truths


def test_the_size_that_the_sample_command_makes_by_default_is_judged_well_too(evaluation: Any) -> None:
    scores = evaluation.evaluate(range(1, 11), days=60, resources=100)
    rule, robust = scores["25 % rule"], scores["robust"]
    assert robust.recall >= rule.recall
    assert robust.precision > rule.precision
