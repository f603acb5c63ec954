"""The models of the FinOps pack: money stays exact, whatever it was handed in as."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage_finops.models import (
    AnalysisContext,
    Budget,
    ChargeBatch,
    CloudResource,
    DailyCost,
    OptimizationRecommendation,
    money,
)


def test_a_recommendation_takes_a_float_and_gives_a_decimal_string() -> None:
    found = OptimizationRecommendation(resource_id="i-1", estimated_savings=42.0, confidence=0.8)
    assert found.estimated_savings == Decimal("42.0")
    assert json.loads(msgspec.json.encode(found))["estimated_savings"] == "42.0"


def test_a_float_counts_as_the_digits_it_prints() -> None:
    assert money(42.1) == Decimal("42.1")
    assert money(0.1 + 0.2) == Decimal("0.30000000000000004")


@given(st.decimals(allow_nan=False, allow_infinity=False))
def test_money_survives_the_wire_and_json_to_the_last_digit(amount: Decimal) -> None:
    budget = Budget(name="b", amount=amount)
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(budget), type=Budget)
    text = msgspec.json.decode(msgspec.json.encode(budget), type=Budget)
    assert packed.amount.as_tuple() == text.amount.as_tuple() == amount.as_tuple()


@pytest.mark.parametrize("wrong", ["a lot", "", "NaN", "Infinity", float("nan")])
def test_what_is_no_amount_is_refused(wrong: str | float) -> None:
    with pytest.raises(ValueError, match="money must be"):
        OptimizationRecommendation(resource_id="i-1", estimated_savings=wrong, confidence=0.8)


@pytest.mark.parametrize("confidence", [-0.1, 1.01])
def test_a_confidence_beyond_its_range_is_refused_where_it_is_made_and_where_it_arrives(confidence: float) -> None:
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        OptimizationRecommendation(resource_id="i-1", estimated_savings=1, confidence=confidence)
    sent = json.dumps({"resource_id": "i-1", "estimated_savings": "1", "confidence": confidence})
    with pytest.raises(msgspec.ValidationError, match=r"\$\.confidence"):
        msgspec.json.decode(sent, type=OptimizationRecommendation)


def test_a_resource_answers_to_type_and_keeps_costs_exact() -> None:
    resource = CloudResource(id="i-1", resource_type="instance", monthly_cost=31.2)
    assert (resource.type, resource.monthly_cost) == ("instance", Decimal("31.2"))


def test_models_cannot_be_changed_after_they_are_made() -> None:
    resource = CloudResource(id="i-1")
    with pytest.raises(AttributeError):
        resource.id = "i-2"  # pyright: ignore[reportAttributeAccessIssue]


def test_a_batch_gives_its_charges_row_by_row_with_their_numbers() -> None:
    batch = ChargeBatch(
        columns={"BilledCost": ["1", "2"], "ServiceName": ["a", None]}, first_row=5, read=3, taken=2, rows=[5, 7]
    )
    assert [(one.row, one.values) for one in batch.charges()] == [
        (5, {"BilledCost": "1", "ServiceName": "a"}),
        (7, {"BilledCost": "2", "ServiceName": None}),
    ]


def test_a_context_survives_the_wire() -> None:
    context = AnalysisContext(
        daily_spike=0.31, daily=[DailyCost(first_day="2025-01-01", amounts=[Decimal("1.10")])], currency="EUR"
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(context), type=AnalysisContext) == context
