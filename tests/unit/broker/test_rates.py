"""How often one instance may call the host."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cardcage.broker.rates import CallRate, CallRates

RATE = CallRate(per_s=10, burst=5)


def test_a_burst_is_taken_and_then_one_call_for_each_tenth_of_a_second() -> None:
    rates = CallRates(RATE)
    assert [rates.wait_s("a", 0.0) for _ in range(5)] == [0.0] * 5
    assert round(rates.wait_s("a", 0.0), 6) == 0.1
    assert rates.wait_s("a", 0.1) == 0.0
    assert rates.wait_s("a", 0.1) > 0


def test_instances_have_buckets_of_their_own_and_a_new_one_after_they_were_forgotten() -> None:
    rates = CallRates(RATE)
    for _ in range(6):
        rates.wait_s("a", 0.0)
    assert rates.wait_s("b", 0.0) == 0.0
    rates.forget("a")
    assert rates.wait_s("a", 0.0) == 0.0


@given(st.lists(st.floats(0, 0.3), max_size=300))
def test_no_more_is_ever_taken_than_the_burst_and_what_the_time_allows(steps_s: list[float]) -> None:
    rates, now_s, taken = CallRates(RATE), 0.0, 0
    for step_s in steps_s:
        now_s += step_s
        taken += rates.wait_s("a", now_s) == 0.0
    assert taken <= RATE.burst + RATE.per_s * now_s + 1e-6


def test_a_clock_that_goes_back_gives_nothing() -> None:
    rates = CallRates(RATE)
    for _ in range(5):
        rates.wait_s("a", 10.0)
    assert rates.wait_s("a", 5.0) > 0
