"""Arbitration, checks on what plugins say, cutting into calls, and messages."""

from __future__ import annotations

from decimal import Decimal
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from cardcage_finops.models import CloudResource, DailyCost, OptimizationRecommendation
from cardcage_finops.pipeline.arbitration import arbitrate, total_savings
from cardcage_finops.pipeline.batches import AMOUNTS_PER_CALL, chunks, series_per_call
from cardcage_finops.pipeline.checks import COMPLAINTS_MAX, checked_recommendations


def _recommendation(
    resource: str,
    savings: str,
    confidence: float = 0.9,
    source: str = "one",
    action: str = "stop",
    currency: str = "USD",
) -> OptimizationRecommendation:
    return OptimizationRecommendation(
        resource_id=resource,
        estimated_savings=savings,
        confidence=confidence,
        source=source,
        action=action,
        currency=currency,
    )


def test_the_greatest_savings_times_confidence_stands_and_the_rest_are_alternatives() -> None:
    sure = _recommendation("i-1", "60", 0.9, "idle")
    bold = _recommendation("i-1", "100", 0.5, "rightsizing")
    other = _recommendation("i-2", "80")
    first, second = arbitrate([bold, other, sure])
    assert (first.chosen, first.alternatives) == (other, ())
    assert (second.chosen, second.alternatives) == (sure, (bold,))
    assert total_savings([first, second], "USD") == Decimal(140)


_some = st.builds(
    _recommendation,
    st.sampled_from(["i-1", "i-2"]),
    st.sampled_from(["1", "2", "3.5"]),
    st.sampled_from([0.5, 0.9, 1.0]),
    st.sampled_from(["one", "two"]),
    st.sampled_from(["stop", "downsize"]),
)


@given(st.lists(_some, max_size=12), st.randoms())
def test_the_order_in_which_plugins_answer_makes_no_difference(
    found: list[OptimizationRecommendation], order: Random
) -> None:
    shuffled = list(found)
    order.shuffle(shuffled)
    assert [ruling.chosen for ruling in arbitrate(found)] == [ruling.chosen for ruling in arbitrate(shuffled)]
    rulings = arbitrate(found)
    assert sum(1 + len(ruling.alternatives) for ruling in rulings) == len(found)
    assert len(rulings) == len({one.resource_id for one in found})


def test_savings_of_another_currency_are_not_added() -> None:
    rulings = arbitrate([_recommendation("i-1", "5"), _recommendation("i-2", "7", currency="EUR")])
    assert total_savings(rulings, "USD") == 5


def test_a_recommendation_that_can_not_be_true_of_the_bill_is_left_out_with_a_sentence() -> None:
    resources = {"i-1": CloudResource(id="i-1", monthly_cost=Decimal(10))}
    found = [
        _recommendation("i-1", "10"),
        _recommendation("i-1", "10.01"),
        _recommendation("i-1", "0"),
        _recommendation("i-1", "-3"),
        _recommendation("i-9", "1"),
        _recommendation("i-1", "1", currency="EUR"),
    ]
    checked = checked_recommendations(found, resources, source="greedy")
    assert [(one.estimated_savings, one.source) for one in checked.kept] == [(Decimal(10), "greedy")]
    assert len(checked.complaints) == 5
    assert "which costs 10 a month" in checked.complaints[0]
    assert "no resource 'i-9'" in checked.complaints[3]


def test_complaints_about_one_answer_are_bounded() -> None:
    checked = checked_recommendations([_recommendation("x", "1")] * 500, {}, source="p")
    assert len(checked.complaints) == COMPLAINTS_MAX


def test_chunks_hold_every_item_once_in_order() -> None:
    assert list(chunks(list(range(7)), 3)) == [[0, 1, 2], [3, 4, 5], [6]]


def test_long_series_go_fewer_to_a_call_and_never_none() -> None:
    day = [Decimal(1)] * 100
    assert series_per_call([DailyCost(first_day="2024-01-01", amounts=day)]) == AMOUNTS_PER_CALL // 100
    wide = DailyCost(first_day="2024-01-01", amounts=day * 1000, parts={"ResourceId": {"a": day, "b": day}})
    assert series_per_call([wide]) == 1
    assert series_per_call([]) == AMOUNTS_PER_CALL
