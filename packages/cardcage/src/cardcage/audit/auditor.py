"""Where events are handed in: the `Auditor` port, and the handle that knows whom they are about."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final, Protocol, Unpack

from cardcage.audit.actions import Action, Actor
from cardcage.audit.event import AuditEvent
from cardcage.audit.fields import AuditFields


class Auditor(Protocol):
    """Takes events from those who decide and act."""

    def record(self, event: AuditEvent) -> None:
        """Keep the event. May be called from any thread; never waits and never raises.

        What cannot be kept is counted, and the count is recorded as soon as there is room for it.
        """
        ...


class NullAuditor:
    """Keeps nothing: for an operator who has switched auditing off."""

    def record(self, event: AuditEvent) -> None:
        """Forget it."""


NO_AUDIT: Final = NullAuditor()


class MemoryAuditor:
    """Keeps the newest events in memory, for tests and for programs that show what happens."""

    def __init__(self, events_max: int = 10_000) -> None:
        self._events: deque[AuditEvent] = deque(maxlen=events_max)

    def record(self, event: AuditEvent) -> None:
        """Keep it; the oldest makes room."""
        self._events.append(event)

    @property
    def events(self) -> list[AuditEvent]:
        """What was recorded, oldest first."""
        return list(self._events)

    def of(self, action: Action) -> list[AuditEvent]:
        """The events of one action."""
        return [event for event in self._events if event.action is action]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """An auditor with the plugin and instance that everything recorded through it is about."""

    auditor: Auditor = NO_AUDIT
    plugin: str = ""
    version: str = ""
    instance: str = ""

    def note(
        self,
        action: Action,
        reason: str,
        *,
        allowed: bool | None = None,
        actor: Actor = Actor.HOST,
        **fields: Unpack[AuditFields],
    ) -> None:
        """Record one act: `trail.note(Action.EGRESS_REFUSED, "no grant covers it", allowed=False, endpoint=...)`."""
        self.auditor.record(
            AuditEvent(
                action=action,
                reason=reason,
                actor=actor,
                allowed=allowed,
                plugin=self.plugin,
                version=self.version,
                instance=self.instance,
                fields=fields,
            )
        )


NO_TRAIL: Final = Trail()
"""For whoever is handed none."""
