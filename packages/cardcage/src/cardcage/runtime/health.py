"""How an instance is: what the host sees of it, and what the plugin says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cardcage.supervise import PluginState


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceHealth:
    """What the host sees of an instance, and in `plugin` what the plugin says of itself."""

    instance: str
    state: PluginState
    healthy: bool
    pid: int | None
    uptime_s: float | None
    restarts: int
    error: str | None
    plugin: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        return {
            "instance": self.instance,
            "state": self.state.value,
            "status": self.state.value,
            "healthy": self.healthy,
            "pid": self.pid,
            "uptime_s": self.uptime_s,
            "restarts": self.restarts,
            "error": self.error,
            "plugin": dict(self.plugin),
        }
