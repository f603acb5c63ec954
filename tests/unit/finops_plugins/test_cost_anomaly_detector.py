"""The anomaly detector: what it reports, what it leaves alone, and what it says about it."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage_finops.interfaces import AnomalyDetectorPlugin
from cardcage_finops.models import AnalysisContext, CostAnomaly, DailyCost

if TYPE_CHECKING:
    from .conftest import Shipped

FIRST_DAY = "2025-01-06"
"""A Monday."""


@pytest.fixture
def detect(shipped: Shipped) -> Detect:
    return Detect(shipped)


class Detect:
    """Runs the detector on one series, in this process."""

    def __init__(self, shipped: Shipped) -> None:
        self.shipped = shipped

    def plugin(self, **config: Any) -> AnomalyDetectorPlugin:
        return self.shipped.make("cost-anomaly-detector", AnomalyDetectorPlugin, config)

    def __call__(self, amounts: list[float], **config: Any) -> list[CostAnomaly]:
        return self.plugin(**config).detect([series(amounts)])


def series(amounts: list[float], **more: Any) -> DailyCost:
    exact = [Decimal(repr(round(amount, 4))) for amount in amounts]
    return DailyCost(service="Functions", account="1", first_day=FIRST_DAY, amounts=exact, **more)


def noisy(days: int, level: float = 100.0, noise: float = 3.0, seed: int = 1, weekend: float = 1.0) -> list[float]:
    rng = Random(seed)
    return [(level + noise * (rng.random() * 2 - 1)) * (weekend if day % 7 >= 5 else 1.0) for day in range(days)]


def days(found: list[CostAnomaly]) -> list[tuple[str, str, str]]:
    return [(one.kind, one.first_day, one.last_day) for one in found]


def test_a_spike_is_found_with_exact_amounts(detect: Detect) -> None:
    amounts = noisy(40, noise=0)
    amounts[30] = 250.5
    (found,) = detect(amounts)
    assert days([found]) == [("spike", "2025-02-05", "2025-02-05")]
    assert (found.actual, found.expected, found.impact) == (Decimal("250.5"), Decimal(100), Decimal("150.5"))
    assert found.change == 1.505
    assert found.reason == "1 day cost 250.50 USD instead of 100.00 (up 150%)"
    assert (found.service, found.account, found.method) == ("Functions", "1", "robust")


def test_a_step_is_one_anomaly_to_its_end(detect: Detect) -> None:
    amounts = noisy(60)
    amounts[40:] = [amount * 1.5 for amount in amounts[40:]]
    assert days(detect(amounts)) == [("step", "2025-02-15", "2025-03-06")]


def test_a_slow_drift_is_found_though_no_day_stands_out(detect: Detect) -> None:
    amounts = [amount * (1 + 0.015 * max(0, day - 30)) for day, amount in enumerate(noisy(80))]
    (found,) = detect(amounts)
    assert found.kind == "drift"
    assert found.last_day == "2025-03-26"
    assert detect(amounts, method="daily_rule") == []


def test_a_rise_of_months_is_found_and_ordinary_growth_is_not(detect: Detect) -> None:
    rng = Random(5)
    noise = [1 + 0.06 * (rng.random() - 0.5) for _ in range(365)]
    rising = [100 * (1 + 0.0055 * max(0, day - 150)) * factor for day, factor in enumerate(noise)]
    growing = [100 * 1.001**day * factor for day, factor in enumerate(noise)]
    (first, *_) = sorted(detect(rising), key=lambda one: one.first_day)
    assert first.first_day > "2025-06-05"
    assert detect(growing) == []


def test_a_step_that_was_learned_is_not_told_again_a_quarter_later(detect: Detect) -> None:
    assert [one.kind for one in detect([*noisy(150), *noisy(215, level=160, seed=2)])] == ["step"]


def test_weekends_are_no_anomaly_but_the_daily_rule_cries_every_monday(detect: Detect) -> None:
    amounts = noisy(56, weekend=0.4)
    assert detect(amounts) == []
    assert len(detect(amounts, method="daily_rule")) == 7


def test_a_weekend_as_dear_as_a_weekday_is_found(detect: Detect) -> None:
    amounts = noisy(56, weekend=0.4)
    amounts[40] = 100.0
    assert days(detect(amounts)) == [("spike", "2025-02-15", "2025-02-15")]


def test_cheaper_days_credits_and_the_way_back_are_never_reported(detect: Detect) -> None:
    amounts = noisy(60)
    amounts[30:35] = [10.0] * 5
    amounts[40] = -500.0
    assert detect(amounts) == []


def test_a_fee_on_the_first_of_a_month_is_no_anomaly(detect: Detect) -> None:
    amounts = noisy(60)
    amounts[26] += 5000
    assert detect(amounts) == []
    amounts[27] += 5000
    assert days(detect(amounts)) == [("spike", "2025-02-01", "2025-02-02")]


def test_only_usage_counts_where_the_series_tells_categories_apart(detect: Detect) -> None:
    amounts = noisy(40, noise=0)
    usage = [Decimal(100)] * 40
    amounts[30] = 900.0
    one = series(amounts, parts={"ChargeCategory": {"Usage": usage, "Purchase": [Decimal(0)] * 40}})
    assert detect.plugin().detect([one]) == []


def test_small_money_small_changes_and_short_histories_are_not_worth_a_word(detect: Detect) -> None:
    cheap = [amount / 100 for amount in noisy(40)]
    cheap[30] = 5.0
    assert detect(cheap) == []
    assert len(detect(cheap, min_impact=3)) == 1
    slight = noisy(40, noise=0)
    slight[30] = 120.0
    assert detect(slight) == []
    assert len(detect(slight, min_change=0.1)) == 1
    assert detect([100.0] * 13 + [900.0]) == []


def test_something_that_cost_nothing_before_is_found(detect: Detect) -> None:
    (found,) = detect([0.0] * 30 + [80.0] * 10)
    assert days([found]) == [("step", "2025-02-05", "2025-02-14")]
    assert found.reason == "10 days cost 800.00 USD instead of 0.00 (out of nothing)"


def test_causes_are_ranked_by_their_share_of_the_excess(detect: Detect) -> None:
    usual, other = [Decimal(60)] * 40, [Decimal(40)] * 40
    usual[30], other[30] = Decimal(240), Decimal(60)
    amounts = [float(a + b) for a, b in zip(usual, other, strict=True)]
    one = series(amounts, parts={"RegionId": {"north": usual, "south": other}, "ResourceId": {"r-1": usual}})
    (found,) = detect.plugin().detect([one])
    assert [(cause.dimension, cause.key, cause.amount, cause.share) for cause in found.causes] == [
        ("RegionId", "north", Decimal(180), 0.9),
        ("ResourceId", "r-1", Decimal(180), 0.9),
        ("RegionId", "south", Decimal(20), 0.1),
    ]


def test_anomalies_come_with_the_greatest_impact_first(detect: Detect) -> None:
    small, large = noisy(40, noise=0), noisy(40, noise=0)
    small[30], large[20] = 200.0, 900.0
    found = detect.plugin().detect([series(small), series(large)])
    assert [one.impact for one in found] == [Decimal(800), Decimal(100)]


def test_the_daily_rule_compares_with_the_day_before(detect: Detect) -> None:
    found = detect([100.0, 125.0, 157.0, 100.0], method="daily_rule")
    assert days(found) == [("spike", "2025-01-08", "2025-01-08")]
    assert (found[0].expected, found[0].impact) == (Decimal(125), Decimal(32))


@settings(deadline=None)
@given(st.lists(st.integers(-(10**6), 10**9), max_size=80))
def test_any_series_gives_anomalies_whose_amounts_agree(project_root: Path, cents: list[int]) -> None:
    from importlib import import_module
    from sys import path

    folder = str(project_root / "plugins" / "cost-anomaly-detector")
    path.insert(0, folder) if folder not in path else None
    plugin = import_module("cost_anomaly_detector").CostAnomalyDetector()
    plugin.load({})
    one = DailyCost(first_day=FIRST_DAY, amounts=[Decimal(cent) / 100 for cent in cents])
    last = ""
    for found in sorted(plugin.detect([one]), key=lambda anomaly: anomaly.first_day):
        assert found.first_day > last
        assert found.impact == found.actual - found.expected
        assert found.impact >= 10
        last = found.last_day


@pytest.mark.parametrize(
    ("config", "growth", "alerts"),
    [
        ({"alert": True}, 0.26, 1),
        ({"alert": True}, 0.25, 0),
        ({"alert": True, "min_change": 0.3}, 0.26, 0),
        ({}, 9.0, 0),
    ],
)
def test_the_hook_raises_an_alert_above_the_threshold_where_it_is_asked_to(
    shipped: Shipped, tmp_path: Path, config: dict[str, Any], growth: float, alerts: int
) -> None:
    context = AnalysisContext(daily_spike=growth, daily_spike_day="2025-01-08")
    with shipped.serve("cost-anomaly-detector", config, tmp_path) as served:
        after = served.call(AnalysisContext | None, "cardcage.hook", "post_cost_analysis", "watch_daily_spike", context)
        expected = ("alerts.trigger", ["CostSpikeDetected", {"growth": growth, "day": "2025-01-08"}])
        assert served.asked == [expected] * alerts
    assert after is None


def test_a_served_plugin_gives_the_same_and_offers_its_hook(shipped: Shipped, detect: Detect, tmp_path: Path) -> None:
    amounts = noisy(60, weekend=0.5)
    amounts[40] = 400.0
    with shipped.serve("cost-anomaly-detector", {}, tmp_path) as served:
        found = served.call(list[CostAnomaly], "detect", [series(amounts)])
        hooks = [(one["name"], one["method"]) for one in served.description["hooks"]]
    assert found == detect(amounts)
    assert len(found) == 1
    assert hooks == [("post_cost_analysis", "watch_daily_spike")]
