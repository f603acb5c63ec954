"""A bandwidth cap: bytes are let through as they come, and the debt is waited off before the next ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

BURST_S: Final = 0.25
"""How much of a second's allowance may go at once: enough that a small answer is not held up at all."""


class Bandwidth:
    """One direction of one instance: at most `bytes_per_s` over time, and a quarter of a second's worth at once."""

    def __init__(self, bytes_per_s: int, now_s: Callable[[], float]) -> None:
        self._rate = float(bytes_per_s)
        self._now_s = now_s
        self.burst_bytes = max(1, int(bytes_per_s * BURST_S))
        self._tokens = float(self.burst_bytes)
        self._filled_at_s = now_s()

    def spend(self, count: int) -> float:
        """Take the allowance for `count` bytes that were moved; returns how many seconds to wait before the next."""
        now_s = self._now_s()
        self._tokens = min(float(self.burst_bytes), self._tokens + (now_s - self._filled_at_s) * self._rate)
        self._filled_at_s = now_s
        self._tokens -= count
        return max(0.0, -self._tokens / self._rate)
