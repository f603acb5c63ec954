"""Whether an instance that missed a deadline hangs, or was only slow.

A missed deadline alone proves little: the call may have been heavy, or the machine busy. An instance hangs when it has
answered nothing at all, not even a ping, for `grace_s` seconds after the deadline that it missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HangState(StrEnum):
    """How an instance answers."""

    ANSWERING = "answering"
    SUSPECT = "suspect"
    """A deadline was missed and nothing came since, but the grace is not over."""
    HUNG = "hung"


@dataclass(frozen=True, slots=True, kw_only=True)
class HangVerdict:
    """The state, why, and after how many seconds to look again (0 where that would change nothing)."""

    state: HangState
    reason: str
    look_again_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HangPolicy:
    """How long an instance may stay silent after a deadline that it missed."""

    grace_s: float = 5.0
    """Half of the ten seconds in which recovery is promised: the other half is for the restart."""

    def verdict(self, now_s: float, last_answer_s: float, deadline_missed_at_s: float | None) -> HangVerdict:
        """`hang_verdict` with this policy's grace."""
        return hang_verdict(now_s, last_answer_s, deadline_missed_at_s, self.grace_s)


def hang_verdict(now_s: float, last_answer_s: float, deadline_missed_at_s: float | None, grace_s: float) -> HangVerdict:
    """Whether the instance hangs. All times are of one monotonic clock; None where no deadline was missed."""
    if deadline_missed_at_s is None:
        return HangVerdict(state=HangState.ANSWERING, reason="no deadline was missed")
    if last_answer_s > deadline_missed_at_s:
        return HangVerdict(state=HangState.ANSWERING, reason="it answered after the deadline that it missed")
    silent_s = max(now_s - deadline_missed_at_s, 0.0)
    if silent_s < grace_s:
        return HangVerdict(
            state=HangState.SUSPECT,
            reason=f"it has been silent for {silent_s:.3g} s since it missed a deadline ({grace_s:.3g} s are allowed)",
            look_again_s=grace_s - silent_s,
        )
    return HangVerdict(
        state=HangState.HUNG,
        reason=f"it has answered nothing, not even a ping, for {silent_s:.3g} s since it missed a deadline",
    )
