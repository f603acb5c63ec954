"""Restarts are paced, bounded in every window, and end."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cardcage.foundation.errors import Misuse
from cardcage.supervise import (
    HangPolicy,
    HangState,
    RestartHistory,
    RestartMode,
    RestartPolicy,
    Step,
    StepAction,
    hang_verdict,
    next_step,
)


def make_policy(**values: Any) -> RestartPolicy | None:
    try:
        return RestartPolicy(**values)
    except Misuse:
        return None


policies = st.builds(
    make_policy,
    mode=st.sampled_from([RestartMode.ON_FAILURE, RestartMode.ALWAYS]),
    intensity=st.integers(0, 12),
    window_s=st.floats(1, 600),
    backoff_initial_s=st.floats(0, 2),
    backoff_max_s=st.floats(0, 60),
    jitter=st.floats(0, 1),
).filter(lambda policy: policy is not None)
samples = st.floats(0, 1)


def crash_at_once(policy: RestartPolicy, jitter_sample: float) -> list[Step]:
    """The steps for an instance that crashes the moment it is started."""
    now_s, history, steps = 1000.0, RestartHistory(), list[Step]()
    while not steps or steps[-1].action is StepAction.RESTART:
        step = next_step(policy, history, True, now_s, jitter_sample)
        steps.append(step)
        now_s += step.delay_s
        history = history.with_restart(now_s, policy)
        assert len(steps) <= policy.intensity + 1
    return steps


@given(policies, samples)
def test_an_instance_that_always_crashes_is_given_up(policy: RestartPolicy, jitter_sample: float) -> None:
    steps = crash_at_once(policy, jitter_sample)
    assert steps[-1].action is StepAction.GIVE_UP
    assert len(steps) == policy.intensity + 1


@given(policies, samples)
def test_delays_grow_and_are_capped(policy: RestartPolicy, jitter_sample: float) -> None:
    delays = [step.delay_s for step in crash_at_once(policy, jitter_sample)[:-1]]
    assert delays == sorted(delays)
    assert all(0 <= delay <= policy.backoff_max_s for delay in delays)


@pytest.mark.parametrize(
    ("jitter_sample", "second_s", "fourth_s"), [(0.0, 0.05, 0.2), (0.5, 0.055, 0.22), (1.0, 0.06, 0.24)]
)
def test_a_delay_doubles_and_is_lengthened_by_its_share_of_the_jitter(
    jitter_sample: float, second_s: float, fourth_s: float
) -> None:
    steps = crash_at_once(RestartPolicy(jitter=0.2), jitter_sample)
    assert steps[1].delay_s == pytest.approx(second_s)
    assert steps[3].delay_s == pytest.approx(fourth_s)


@given(policies, samples, st.floats(0, 1e6))
def test_the_first_restart_comes_at_once_and_the_second_waits(
    policy: RestartPolicy, jitter_sample: float, now_s: float
) -> None:
    first = next_step(policy, RestartHistory(), True, now_s, jitter_sample)
    assert first.delay_s == 0.0
    if policy.intensity > 1:
        second = next_step(policy, RestartHistory().with_restart(now_s, policy), True, now_s, jitter_sample)
        assert second.action is StepAction.RESTART
        assert second.delay_s >= policy.backoff_initial_s


class Restarts(RuleBasedStateMachine):
    """A false clock, an instance that ends when it likes, and a supervisor that does what it is told."""

    @initialize(policy=policies)
    def begin(self, policy: RestartPolicy) -> None:
        self.policy = policy
        self.now_s = 0.0
        self.history = RestartHistory()
        self.restarted_s: list[float] = []
        self.given_up = False

    @precondition(lambda self: not self.given_up)
    @rule(run_s=st.floats(0, 300), jitter_sample=samples, failed=st.booleans())
    def ends(self, run_s: float, jitter_sample: float, failed: bool) -> None:
        self.now_s += run_s
        step = next_step(self.policy, self.history, failed, self.now_s, jitter_sample)
        match step.action:
            case StepAction.RESTART:
                self.now_s += step.delay_s
                self.restarted_s.append(self.now_s)
                self.history = self.history.with_restart(self.now_s, self.policy)
            case StepAction.GIVE_UP:
                self.given_up = True
            case StepAction.STAY_STOPPED:
                assert not failed
                assert self.policy.mode is RestartMode.ON_FAILURE

    @precondition(lambda self: self.given_up)
    @rule()
    def an_operator_starts_it_again(self) -> None:
        self.given_up = False
        self.restarted_s.clear()
        self.history = RestartHistory()

    @invariant()
    def no_window_holds_more_restarts_than_the_policy_allows(self) -> None:
        for end_s in getattr(self, "restarted_s", []):
            within = [at_s for at_s in self.restarted_s if end_s - self.policy.window_s < at_s <= end_s]
            assert len(within) <= self.policy.intensity

    @invariant()
    def the_history_is_bounded(self) -> None:
        if hasattr(self, "history"):
            assert len(self.history.restarts_s) <= max(self.policy.intensity, 1)


TestRestarts = Restarts.TestCase
TestRestarts.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_giving_up_says_how_many_restarts_in_how_many_seconds() -> None:
    policy = RestartPolicy(intensity=2, window_s=10)
    history = RestartHistory(restarts_s=(100.0, 103.0))
    step = next_step(policy, history, True, 104.5, 0.0)
    assert step.action is StepAction.GIVE_UP
    assert step.reason == "it ended again after 2 restarts in 4.5 s, and the policy allows 2 in 10 s"


def test_after_a_quiet_window_the_delays_begin_anew() -> None:
    policy = RestartPolicy(intensity=3, window_s=10, jitter=0.0)
    history = RestartHistory(restarts_s=(0.0, 1.0, 2.0))
    assert next_step(policy, history, True, 5.0, 0.0).action is StepAction.GIVE_UP
    later = next_step(policy, history, True, 13.0, 0.0)
    assert (later.action, later.delay_s) == (StepAction.RESTART, 0.0)


@pytest.mark.parametrize(
    ("mode", "failed", "action"),
    [
        (RestartMode.NEVER, True, StepAction.STAY_STOPPED),
        (RestartMode.NEVER, False, StepAction.STAY_STOPPED),
        (RestartMode.ON_FAILURE, True, StepAction.RESTART),
        (RestartMode.ON_FAILURE, False, StepAction.STAY_STOPPED),
        (RestartMode.ALWAYS, True, StepAction.RESTART),
        (RestartMode.ALWAYS, False, StepAction.RESTART),
    ],
)
def test_the_mode_says_which_ends_are_followed_by_a_restart(
    mode: RestartMode, failed: bool, action: StepAction
) -> None:
    step = next_step(RestartPolicy(mode=mode), RestartHistory(), failed, 0.0, 0.5)
    assert step.action is action
    assert step.reason


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"intensity": -1}, "intensity from 0 to 1000"),
        ({"intensity": 10**9}, "intensity from 0 to 1000"),
        ({"window_s": math.inf}, "finite"),
        ({"backoff_initial_s": -0.1}, "not negative"),
        ({"jitter": 1.5}, "jitter of at most 1"),
        ({"backoff_initial_s": 20.0}, "no longer than the longest"),
        ({"intensity": 20}, "would never give up"),
    ],
)
def test_values_that_make_no_policy_are_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(Misuse, match=words) as caught:
        RestartPolicy(**values)
    assert caught.value.code == "bad_restart_policy"


def test_an_instance_hangs_only_when_it_stays_silent_through_the_grace() -> None:
    assert hang_verdict(100.0, 10.0, None, 5.0).state is HangState.ANSWERING
    assert hang_verdict(100.0, 99.0, 98.0, 5.0).state is HangState.ANSWERING
    suspect = hang_verdict(100.0, 90.0, 98.0, 5.0)
    assert (suspect.state, suspect.look_again_s) == (HangState.SUSPECT, 3.0)
    hung = hang_verdict(103.0, 90.0, 98.0, 5.0)
    assert hung.state is HangState.HUNG
    assert hung.reason == "it has answered nothing, not even a ping, for 5 s since it missed a deadline"


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 100), st.floats(0, 20))
def test_looking_again_when_told_to_gives_the_final_verdict(
    missed_s: float, answered_s: float, waited_s: float, grace_s: float
) -> None:
    policy = HangPolicy(grace_s=grace_s)
    first = policy.verdict(missed_s + waited_s, answered_s, missed_s)
    if first.state is HangState.SUSPECT:
        again_s = missed_s + waited_s + first.look_again_s + 1e-6
        assert policy.verdict(again_s, answered_s, missed_s).state is HangState.HUNG
    assert policy.verdict(missed_s + waited_s, missed_s + waited_s + 1, missed_s).state is HangState.ANSWERING
