"""One act that is done over and over: the first are written each, the rest as one line with their number.

A plugin that asks for what it may not have, in a loop, would otherwise fill the disk and push out what others do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import msgspec

from cardcage.audit.actions import Action
from cardcage.audit.event import AuditEvent

WINDOW_S: Final = 1.0
SAME_MAX: Final = 20
"""So many of the same in one window are written each; a person who looks has seen enough by then."""
SOURCES_MAX: Final = 1024
"""Acts that are counted at the same time. Where there are more, the further ones are written each."""


@dataclass(slots=True)
class _Run:
    began_s: float
    event: AuditEvent
    count: int = 0


@dataclass(slots=True)
class Repeats:
    """Counts what is the same but for its time and its fields: action, reason, plugin, instance and answer."""

    _runs: dict[tuple[str, ...], _Run] = field(default_factory=dict[tuple[str, ...], _Run])

    def admits(self, event: AuditEvent, now_s: float) -> bool:
        """Whether the event is to be written; otherwise it has been counted."""
        if not event.instance:
            return True
        key = (event.action, event.reason, event.plugin, event.instance, str(event.allowed))
        run = self._runs.get(key)
        if run is None:
            if len(self._runs) >= SOURCES_MAX:
                return True
            run = self._runs[key] = _Run(began_s=now_s, event=event)
        run.count += 1
        return run.count <= SAME_MAX

    def due(self, now_s: float, *, all_: bool = False) -> list[AuditEvent]:
        """One event for each run whose window has ended and of which some were counted only."""
        ended = [key for key, run in self._runs.items() if all_ or now_s - run.began_s >= WINDOW_S]
        runs = [self._runs.pop(key) for key in ended]
        return [_summary(run) for run in runs if run.count > SAME_MAX]

    @property
    def waiting(self) -> bool:
        """Whether a run is open, so that `due` is to be asked again."""
        return bool(self._runs)


def _summary(run: _Run) -> AuditEvent:
    fields = {"repeated": str(run.event.action), "count": run.count - SAME_MAX}
    return msgspec.structs.replace(run.event, action=Action.AUDIT_REPEATED, at_s=None, fields=fields)
