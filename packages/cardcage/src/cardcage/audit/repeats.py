"""One act that is done over and over: the first are written each, the rest as one line with their number.

A plugin that asks for what it may not have, in a loop, would otherwise fill the disk and push out what others do, and
with it what it did itself before. So what is the same is counted after a few, and what a plugin's own code causes has
a rate, however different it is made to look.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from cardcage.audit.actions import Action, Actor
from cardcage.audit.event import AuditEvent

WINDOW_S: Final = 1.0
SAME_MAX: Final = 20
"""So many of the same in one window are written each; a person who looks has seen enough by then."""
SOURCES_MAX: Final = 1024
"""Acts that are counted at the same time. Where there are more, the further ones are written each."""
LINES_PER_S: Final = 20
LINES_BURST: Final = 1000
"""What the code of one instance may cause to be written. At this rate a log rolls over in a day and a half."""

_SUBJECTS: Final = ("service", "endpoint", "event", "pattern", "permission", "secret", "path", "method")
"""Fields that make two acts different ones."""

_Key = tuple[Any, ...]


@dataclass(slots=True)
class _Run:
    began_s: float
    event: AuditEvent
    written: int = 0
    counted: int = 0


@dataclass(slots=True)
class _Allowance:
    left: float
    at_s: float

    def take(self, now_s: float) -> bool:
        self.left = min(LINES_BURST, self.left + max(0.0, now_s - self.at_s) * LINES_PER_S)
        self.at_s = now_s
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(slots=True)
class Repeats:
    """Counts what is the same, and what comes too fast from the code of one instance."""

    _runs: dict[_Key, _Run] = field(default_factory=dict[_Key, _Run])
    _excess: dict[_Key, _Run] = field(default_factory=dict[_Key, _Run])
    _allowances: dict[str, _Allowance] = field(default_factory=dict[str, _Allowance])

    def admits(self, event: AuditEvent, now_s: float) -> bool:
        """Whether the event is to be written; otherwise it has been counted."""
        if not event.instance:
            return True
        run = self._run(event, now_s)
        if run is not None and run.written >= SAME_MAX:
            run.counted += 1
            return False
        if event.actor is Actor.PLUGIN and not self._allowance(event.instance, now_s).take(now_s):
            self._excess_of(event, now_s).counted += 1
            return False
        if run is not None:
            run.written += 1
        return True

    def due(self, now_s: float, *, all_: bool = False) -> list[AuditEvent]:
        """One event for each run whose window has ended and of which some were counted only."""
        runs = [*_take_ended(self._runs, now_s, all_=all_), *_take_ended(self._excess, now_s, all_=all_)]
        full_s = LINES_BURST / LINES_PER_S
        for instance in [name for name, one in self._allowances.items() if now_s - one.at_s > full_s]:
            del self._allowances[instance]  # it would be full again
        return [_summary(run) for run in runs if run.counted]

    @property
    def waiting(self) -> bool:
        """Whether a run is open, so that `due` is to be asked again."""
        return bool(self._runs or self._excess)

    def _run(self, event: AuditEvent, now_s: float) -> _Run | None:
        """What is counted of the same; None where too much is counted already."""
        key = _same(event)
        run = self._runs.get(key)
        if run is None and len(self._runs) < SOURCES_MAX:
            run = self._runs[key] = _Run(began_s=now_s, event=event)
        return run

    def _excess_of(self, event: AuditEvent, now_s: float) -> _Run:
        """What is counted of an instance that causes too much, by action; together where there are too many."""
        key: _Key = (event.instance, event.action)
        if key not in self._excess and len(self._excess) >= SOURCES_MAX:
            key = ()
        run = self._excess.get(key)
        if run is None:
            run = self._excess[key] = _Run(began_s=now_s, event=event)
        return run

    def _allowance(self, instance: str, now_s: float) -> _Allowance:
        return self._allowances.setdefault(instance, _Allowance(left=LINES_BURST, at_s=now_s))


def _same(event: AuditEvent) -> _Key:
    about = tuple(str(event.fields.get(name, "")) for name in _SUBJECTS)
    return (event.instance, event.action, event.reason, event.allowed, about)


def _take_ended(runs: dict[_Key, _Run], now_s: float, *, all_: bool) -> list[_Run]:
    ended = [key for key, run in runs.items() if all_ or now_s - run.began_s >= WINDOW_S]
    return [runs.pop(key) for key in ended]


def _summary(run: _Run) -> AuditEvent:
    fields = {"repeated": str(run.event.action), "count": run.counted}
    return msgspec.structs.replace(run.event, action=Action.AUDIT_REPEATED, at_s=None, fields=fields)
