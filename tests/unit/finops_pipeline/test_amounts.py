"""Sums that never round, and amounts as text."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage_finops.pipeline.amounts import EXACT, amount_for_people, amount_text, is_amount

amounts = st.decimals(allow_nan=False, allow_infinity=False).filter(is_amount)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("1.6823086974", "1.6823086974"),
        ("1.68230869740000", "1.6823086974"),
        ("8E-7", "0.0000008"),
        ("0E-11", "0"),
        ("-0.00", "0"),
        ("1E+3", "1000"),
        ("-12.50", "-12.5"),
        ("100", "100"),
    ],
)
def test_an_amount_is_written_in_full_without_an_exponent_or_idle_zeros(amount: str, text: str) -> None:
    assert amount_text(Decimal(amount)) == text


@given(amounts)
def test_the_text_of_an_amount_is_the_same_amount(amount: Decimal) -> None:
    text = amount_text(amount)
    assert Decimal(text) == amount
    assert "E" not in text


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1E+30", "1E-51", "1E+999999", "1E-999999"])
def test_what_would_make_a_sum_inexact_is_no_amount(text: str) -> None:
    assert not is_amount(Decimal(text))


@given(st.lists(amounts, max_size=60))
def test_sums_of_amounts_are_exact_in_any_order(values: list[Decimal]) -> None:
    forward, backward = Decimal(0), Decimal(0)
    for value in values:
        forward = EXACT.add(forward, value)
    for value in reversed(values):
        backward = EXACT.add(backward, value)
    scale = 10**50
    assert forward == backward
    assert int(EXACT.multiply(forward, Decimal(scale))) == sum(int(value.scaleb(50, EXACT)) for value in values)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("1234567.891", "1,234,567.89 USD"),
        ("0", "0.00 USD"),
        ("0.256", "0.256 USD"),
        ("0.00031249", "0.000312 USD"),
        ("-42", "-42.00 USD"),
        ("1E-30", "0.00 USD"),
    ],
)
def test_an_amount_for_people_is_rounded_to_what_they_can_read(amount: str, text: str) -> None:
    assert amount_for_people(Decimal(amount), "USD") == text
