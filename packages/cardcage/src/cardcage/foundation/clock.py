"""Time as an argument: pure code is handed a clock or a number, and tests hand it a false one."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Where the time comes from."""

    def monotonic_s(self) -> float:
        """Seconds that never run backwards; only differences mean anything."""
        ...

    def wall_s(self) -> float:
        """Seconds since 1970-01-01 UTC; may jump."""
        ...
