"""Stopping and continuing a plugin so that its share of the processor holds, over made-up time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.supervise.pacing import PERIOD_S, Pace


def simulate(cores: float, demand: float, seconds: float, looks: list[float]) -> tuple[float, Pace]:
    """CPU time used by a plugin that would take `demand` cores, looked at after each of these gaps in turn."""
    now = used = 0.0
    pace = Pace.begin(cores, at_s=0.0, used_s=0.0)
    turn = 0
    while now < seconds:
        gap = looks[turn % len(looks)]
        turn += 1
        if not pace.stopped:
            used += demand * gap
        now += gap
        pace = pace.look(at_s=now, used_s=used)
    return used / now, pace


@pytest.mark.parametrize("cores", [0.05, 0.2, 0.5, 1.5])
def test_a_plugin_that_would_take_everything_gets_its_share(cores: float) -> None:
    share, _ = simulate(cores, demand=2.0, seconds=60.0, looks=[0.01])
    assert share == pytest.approx(cores, rel=0.05)


@given(
    cores=st.floats(0.05, 1.5),
    demand=st.floats(0.1, 4.0),
    looks=st.lists(st.floats(0.01, 0.3), min_size=1, max_size=8),
)
def test_whenever_it_is_looked_at_it_gets_no_more_than_its_share_and_one_gap(
    cores: float, demand: float, looks: list[float]
) -> None:
    seconds = 5.0
    share, _ = simulate(cores, demand, seconds, looks)
    assert share * seconds <= cores * (seconds + PERIOD_S) + demand * max(looks) + cores * max(looks) + 0.01


@given(demand=st.floats(0.0, 0.19), looks=st.lists(st.floats(0.002, 0.09), min_size=1, max_size=5))
def test_who_stays_below_its_share_is_never_stopped(demand: float, looks: list[float]) -> None:
    now = used = 0.0
    pace = Pace.begin(0.2, at_s=0.0, used_s=0.0)
    for turn in range(200):
        gap = looks[turn % len(looks)]
        now, used = now + gap, used + demand * gap
        pace = pace.look(at_s=now, used_s=used)
        assert not pace.stopped


def test_an_idle_plugin_saves_up_no_more_than_one_period() -> None:
    pace = Pace.begin(0.2, at_s=0.0, used_s=0.0).look(at_s=3600.0, used_s=0.0)
    assert pace.allowance_s == pytest.approx(0.2 * PERIOD_S)
    assert pace.look(at_s=3600.03, used_s=0.06).stopped


def test_a_count_that_goes_back_earns_nothing() -> None:
    pace = Pace.begin(0.2, at_s=0.0, used_s=5.0)
    assert pace.look(at_s=0.01, used_s=1.0).used_s == 5.0


def test_the_next_look_is_when_it_may_go_on_or_could_have_used_it_up() -> None:
    pace = Pace.begin(0.2, at_s=0.0, used_s=0.0)
    assert pace.next_look_s(2) == pytest.approx(0.01)
    stopped = pace.look(at_s=0.01, used_s=0.03)
    assert stopped.stopped
    gone_on = stopped.look(at_s=0.01 + stopped.next_look_s(2) + 1e-9, used_s=0.03)
    assert not gone_on.stopped
