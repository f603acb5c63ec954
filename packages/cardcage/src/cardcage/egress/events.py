"""What the relay tells of connections, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """What became of a connection."""

    CONNECTED = "connected"
    REFUSED = "refused"
    """By a rule: it never left."""
    FAILED = "failed"
    """It was allowed, and the other side could not be reached or broke off."""
    CLOSED = "closed"
    """It ended in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressEvent:
    """One thing that happened to a connection of a plugin. The bytes are those of the whole connection."""

    plugin: str
    instance: str
    endpoint: str
    """What the plugin wanted, as `host:port`."""
    verdict: Verdict
    address: str = ""
    """What was dialled."""
    reason: str = ""
    bytes_up: int = 0
    bytes_down: int = 0
    suppressed: int = 0
    """Further refusals that were counted and not told one by one before this one."""
    credential: str = ""
    """The names of the secrets that the host added to what was sent."""

    def sentence(self) -> str:
        """The event in words."""
        more = f" ({self.suppressed} more before it)" if self.suppressed else ""
        match self.verdict:
            case Verdict.CONNECTED:
                return f"connected to {self.endpoint} at {self.address}"
            case Verdict.REFUSED:
                return f"connection to {self.endpoint or 'the proxy'} refused: {self.reason}{more}"
            case Verdict.FAILED:
                return f"connection to {self.endpoint} failed: {self.reason}{more}"
            case Verdict.CLOSED:
                return f"connection to {self.endpoint} closed: {self.bytes_up} bytes up, {self.bytes_down} bytes down"


Tell = Callable[[EgressEvent], None]


@dataclass(slots=True)
class EgressCount:
    """Connections and bytes of one granted endpoint since the process started. Up is what the plugin sent."""

    endpoint: str
    open: int = 0
    connections: int = 0
    refused: int = 0
    failed: int = 0
    bytes_up: int = 0
    bytes_down: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "endpoint": self.endpoint,
            "open": self.open,
            "connections": self.connections,
            "refused": self.refused,
            "failed": self.failed,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
        }
