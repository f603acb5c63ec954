"""Alerts that plugins raise through the host (`alerts.trigger`, behind the capability `AlertManagement`)."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

from cardcage.broker import PluginInfo
from cardcage.manager import PluginManager
from cardcage_finops.pipeline.result import Alert

ALERTS_MAX: Final = 100
"""Of one analysis. A hundred is already more than a person reads."""

DETAILS_MAX: Final = 20
TEXT_CHARS_MAX: Final = 500

_desks: WeakKeyDictionary[PluginManager, AlertDesk] = WeakKeyDictionary()


@dataclass(slots=True)
class AlertDesk:
    """Takes the alerts of one manager's plugins, and hands each to the analysis whose instance raised it.

    An alert from an instance that belongs to no analysis goes to every analysis that is open.
    """

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the analysis that is under way. A hook chain runs over all active plugins of a manager, so two at once
    would be shown to each other's plugins."""
    _open: dict[str, list[Alert]] = field(default_factory=dict[str, list[Alert]])

    @classmethod
    def of(cls, manager: PluginManager) -> AlertDesk:
        """The manager's desk; made, and its service registered, when it is first asked for."""
        desk = _desks.get(manager)
        if desk is None:
            desk = _desks[manager] = cls()
            manager.register_service("alerts.trigger", desk.trigger, capability="AlertManagement")
        return desk

    @contextmanager
    def open(self, label: str) -> Generator[list[Alert], None, None]:
        """Gather alerts for the analysis whose instances carry `label`."""
        alerts = self._open[label] = []
        try:
            yield alerts
        finally:
            del self._open[label]

    def trigger(self, caller: PluginInfo, name: str, details: dict[str, Any] | None = None) -> bool:
        """Take one alert; False where there is no room for more."""
        alert = Alert(
            name=str(name)[:TEXT_CHARS_MAX],
            source=caller.name,
            details={
                str(key)[:TEXT_CHARS_MAX]: str(value)[:TEXT_CHARS_MAX]
                for key, value in list((details or {}).items())[:DETAILS_MAX]
            },
        )
        own = [alerts for label, alerts in self._open.items() if f"/{label}." in caller.instance]
        taken = False
        for alerts in own or self._open.values():
            if len(alerts) < ALERTS_MAX:
                alerts.append(alert)
                taken = True
        return taken
