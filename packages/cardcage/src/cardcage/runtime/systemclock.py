"""The machine's own clock, for everyone but tests."""

from __future__ import annotations

import time


class SystemClock:
    """`Clock` by the operating system."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_s(self) -> float:
        return time.time()
