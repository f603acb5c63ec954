"""Whether an instance that ended is started again, and when.

Restarts are paced twice: the first after a quiet window comes at once and each after it waits longer than the one
before (exponential back-off), and more than `intensity` of them within `window_s` seconds end in giving up. A policy
whose back-off is so slow that it could never give up is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cardcage.foundation.errors import Misuse

INTENSITY_MAX: Final = 1000
"""Each counted restart is remembered, so there is a most of them."""


class RestartMode(StrEnum):
    """Which ends are followed by a restart."""

    NEVER = "never"
    ON_FAILURE = "on_failure"
    ALWAYS = "always"


class StepAction(StrEnum):
    """What to do about an instance that ended."""

    RESTART = "restart"
    GIVE_UP = "give_up"
    STAY_STOPPED = "stay_stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartPolicy:
    """How often and how fast an instance may be restarted.

    The first restart in a window waits for nothing: most faults are over at once, and callers are waiting. The second
    waits `backoff_initial_s`, each after it twice as long as the one before, and all of them up to the fraction
    `jitter` longer, but at most `backoff_max_s`. Raises `Misuse(code="bad_restart_policy")` for values that make no
    policy.
    """

    mode: RestartMode = RestartMode.ON_FAILURE
    intensity: int = 5
    """A transient fault is over within a few restarts; what fails five times in a minute needs a person."""
    window_s: float = 60.0
    backoff_initial_s: float = 0.05
    """How long the second restart waits: one that follows on another is no accident."""
    backoff_max_s: float = 10.0
    """Recovery is promised within ten seconds."""
    jitter: float = 0.1
    """Instances that died together do not come back in the same instant."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", RestartMode(self.mode))
        numbers = (self.window_s, self.backoff_initial_s, self.backoff_max_s, self.jitter)
        if not 0 <= self.intensity <= INTENSITY_MAX or not all(
            math.isfinite(number) and number >= 0 for number in numbers
        ):
            raise _bad(
                f"a restart policy has an intensity from 0 to {INTENSITY_MAX} and finite times that are not negative"
            )
        if self.jitter > 1 or self.backoff_initial_s > self.backoff_max_s:
            raise _bad("a restart policy has a jitter of at most 1 and a first back-off no longer than the longest")
        slowest_s = sum(_backoff_s(self, restarts) for restarts in range(self.intensity)) * (1 + self.jitter)
        if slowest_s >= self.window_s and self.intensity > 0 and self.mode is not RestartMode.NEVER:
            raise _bad(
                f"{self.intensity} restarts back off for {slowest_s:.4g} s altogether, but they are counted over "
                f"{self.window_s:.4g} s, so this policy would never give up",
                hint="lengthen window_s, or lower intensity or backoff_max_s",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartHistory:
    """When an instance was restarted, on the monotonic clock, oldest first; as many as a decision needs are kept."""

    restarts_s: tuple[float, ...] = ()

    def with_restart(self, at_s: float, policy: RestartPolicy) -> RestartHistory:
        """The history after one more restart, which began or will begin at `at_s`."""
        kept = max(policy.intensity, 1)
        return RestartHistory(restarts_s=(*self.restarts_s, at_s)[-kept:])

    def within(self, window_s: float, now_s: float) -> tuple[float, ...]:
        """The restarts of the last `window_s` seconds."""
        return tuple(at_s for at_s in self.restarts_s if at_s > now_s - window_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What to do, after how long, and why as one sentence."""

    action: StepAction
    delay_s: float
    reason: str


def next_step(
    policy: RestartPolicy, history: RestartHistory, exit_failed: bool, now_s: float, jitter_sample: float
) -> Step:
    """What follows the end of an instance at `now_s`; `jitter_sample` is drawn from 0 to 1 by the caller.

    Whoever follows a `RESTART` records it with `history.with_restart(now_s + step.delay_s, policy)`.
    """
    if policy.mode is RestartMode.NEVER:
        return _stay("the policy never restarts it")
    if policy.mode is RestartMode.ON_FAILURE and not exit_failed:
        return _stay("it ended without a failure, and the policy restarts failures only")
    recent = history.within(policy.window_s, now_s)
    if len(recent) >= policy.intensity:
        return Step(action=StepAction.GIVE_UP, delay_s=0.0, reason=_why_give_up(policy, recent, now_s))
    delay_s = min(_backoff_s(policy, len(recent)) * (1 + policy.jitter * jitter_sample), policy.backoff_max_s)
    return Step(
        action=StepAction.RESTART,
        delay_s=delay_s,
        reason=f"restart {len(recent) + 1} of {policy.intensity} in {policy.window_s:.4g} s, after {delay_s:.3g} s",
    )


def _backoff_s(policy: RestartPolicy, restarts: int) -> float:
    """How long to wait after so many restarts in the window."""
    if not restarts:
        return 0.0
    # The exponent is capped where doubling passes any back-off that a policy could name, before the float overflows.
    return min(policy.backoff_initial_s * 2.0 ** min(restarts - 1, 64), policy.backoff_max_s)


def _why_give_up(policy: RestartPolicy, recent: tuple[float, ...], now_s: float) -> str:
    if not recent:
        return "it ended, and the policy allows no restart"
    restarts = f"{len(recent)} restart{'' if len(recent) == 1 else 's'}"
    return (
        f"it ended again after {restarts} in {now_s - recent[0]:.3g} s, "
        f"and the policy allows {policy.intensity} in {policy.window_s:.4g} s"
    )


def _stay(reason: str) -> Step:
    return Step(action=StepAction.STAY_STOPPED, delay_s=0.0, reason=reason)


def _bad(message: str, *, hint: str | None = None) -> Misuse:
    return Misuse(message, code="bad_restart_policy", hint=hint)
