"""Where events wait for the writer: bounded as a whole and for each instance, and what finds no room is counted."""

from __future__ import annotations

import threading
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from cardcage.audit.actions import Action
from cardcage.audit.event import AuditEvent

QUEUE_EVENTS_MAX: Final = 10_000
"""Events that wait to be written; the writer takes some ten thousand a second."""
INSTANCE_EVENTS_MAX: Final = 2_000
"""Those of one instance: none can push out what others do."""
LOST_SOURCES_MAX: Final = 64
"""Sources whose losses are counted apart; further ones are counted together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What was taken out at once: events in their order, and an event about those that found no room."""

    events: list[AuditEvent] = field(default_factory=list[AuditEvent])
    lost: AuditEvent | None = None

    @property
    def empty(self) -> bool:
        return not self.events and self.lost is None


class Intake:
    """A queue between any thread and the writer's."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[AuditEvent] = deque()
        self._held: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._closed = False
        self.taken_in = 0
        """Events that found room so far."""

    def put(self, event: AuditEvent) -> bool:
        """Queue the event; False where this is closed."""
        source = event.instance
        with self._lock:
            if self._closed:
                return False
            full = len(self._waiting) >= QUEUE_EVENTS_MAX
            if full or (source and self._held[source] >= INSTANCE_EVENTS_MAX):
                self._count_lost(f"{source or 'host'} {event.action}")
                return True
            if source:
                self._held[source] += 1
            self._waiting.append(event)
            self.taken_in += 1
        return True

    def take(self) -> Batch:
        """Everything that waits."""
        with self._lock:
            events, self._waiting = list(self._waiting), deque()
            self._held.clear()
            lost, self._lost = self._lost, Counter()
        return Batch(events=events, lost=_lost_event(lost) if lost else None)

    def close(self) -> None:
        """Take nothing more in."""
        with self._lock:
            self._closed = True

    def _count_lost(self, source: str) -> None:
        self._lost[source if source in self._lost or len(self._lost) < LOST_SOURCES_MAX else "others"] += 1


def _lost_event(lost: Counter[str]) -> AuditEvent:
    total = lost.total()
    return AuditEvent(
        action=Action.AUDIT_LOST,
        reason=f"{total} events came faster than they could be written",
        fields={"count": total, "counts": [f"{source}={count}" for source, count in lost.most_common()]},
    )
