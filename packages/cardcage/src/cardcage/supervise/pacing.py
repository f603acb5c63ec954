"""Holding a plugin near its share of the processor by stopping and continuing it: decides when, never does it.

An allowance grows with time at the plugin's share and shrinks by what it uses. At nothing left the plugin is stopped,
at a period's worth it goes on; what was used too much before it was noticed is owed, so that the share holds over time
whatever the moment of each look. An idle plugin saves up no more than one period's worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

PERIOD_S: Final = 0.1
"""As long as the kernel's own period: short enough for answers, long enough to be worth a stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Where one plugin stands at `at_s`, having used `used_s` of CPU time in all."""

    cores: float
    at_s: float
    used_s: float
    allowance_s: float
    stopped: bool = False

    @classmethod
    def begin(cls, cores: float, *, at_s: float, used_s: float) -> Pace:
        """The pace of a plugin that has just been started."""
        return cls(cores=cores, at_s=at_s, used_s=used_s, allowance_s=cores * PERIOD_S)

    def look(self, *, at_s: float, used_s: float) -> Pace:
        """Where it stands now, and whether it is to be stopped."""
        full_s = self.cores * PERIOD_S
        earned_s = max(0.0, at_s - self.at_s) * self.cores
        spent_s = max(0.0, used_s - self.used_s)
        allowance_s = min(full_s, self.allowance_s + earned_s - spent_s)
        stopped = allowance_s < full_s if self.stopped else allowance_s <= 0
        return replace(self, at_s=at_s, used_s=max(used_s, self.used_s), allowance_s=allowance_s, stopped=stopped)

    def next_look_s(self, machine_cores: int) -> float:
        """After how long to look again: when it may go on, or could at the soonest have used up what is left."""
        if self.stopped:
            return (self.cores * PERIOD_S - self.allowance_s) / self.cores
        return self.allowance_s / machine_cores
