"""The summary of one resource's metrics, kept while the rows go by.

Percentages are counted in a histogram of a thousand steps, so that percentiles need no memory of the values; the answer
is the upper edge of its step, so it is never too low. Percentiles are by nearest rank.
"""

from __future__ import annotations

import math
from array import array

from metrics_rows import MetricRow

PERCENT_METRICS = ("cpu_usage", "cpu_peak", "memory_usage", "memory_peak")
STEPS = 1000
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99_5": 0.995}


class ResourceStatistics:
    """All metrics of one resource."""

    def __init__(self) -> None:
        self._metrics: dict[str, MetricStatistics] = {}

    def add(self, row: MetricRow) -> None:
        """Count one row."""
        day = row.time[:10]
        for name, value in row.values.items():
            statistics = self._metrics.get(name)
            if statistics is None:
                statistics = self._metrics[name] = MetricStatistics(percent=name in PERCENT_METRICS)
            statistics.add(value, day)

    def summary(self) -> dict[str, float]:
        """The keys and values of `MetricSummary.values`."""
        found: dict[str, float] = {}
        for name, statistics in self._metrics.items():
            found.update(statistics.summary(name))
        return found


class MetricStatistics:
    """One metric of one resource."""

    def __init__(self, *, percent: bool) -> None:
        self.count = 0
        self.total = 0.0
        self.greatest = -math.inf
        self.days: set[str] = set()
        self._steps = array("L", bytes(array("L").itemsize * (STEPS + 1))) if percent else None

    def add(self, value: float, day: str) -> None:
        """Count one value."""
        self.count += 1
        self.total += value
        self.greatest = max(self.greatest, value)
        self.days.add(day)
        if self._steps is not None:
            self._steps[min(STEPS, max(0, math.ceil(value * STEPS / 100 - 1e-9)))] += 1

    def summary(self, name: str) -> dict[str, float]:
        """Mean, greatest, counts and, of a percentage, percentiles."""
        found = {
            name: self.total / self.count,
            f"{name}_max": self.greatest,
            f"{name}_samples": float(self.count),
            f"{name}_days": float(len(self.days)),
        }
        if self._steps is not None:
            for label, share in PERCENTILES.items():
                found[f"{name}_{label}"] = self._percentile(share)
        return found

    def _percentile(self, share: float) -> float:
        assert self._steps is not None
        rank, seen = math.ceil(share * self.count), 0
        for step, count in enumerate(self._steps):
            seen += count
            if seen >= rank:
                return step * 100 / STEPS
        return 100.0
