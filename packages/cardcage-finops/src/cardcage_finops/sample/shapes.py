"""How use goes over the hours of a day, and what a resource's metrics look like. Pure data and arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Final

METRIC_COLUMNS: Final = (
    "cpu_usage",
    "cpu_peak",
    "memory_usage",
    "memory_peak",
    "network_bytes",
    "disk_ops",
    "requests",
    "connections",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """The levels that an hour's metrics are drawn under; None where the resource does not report the metric.

    `label` says what the resource is in truth: `busy`, `idle`, `oversized`, `oversized_no_memory_metric`, or a decoy.
    """

    label: str = "busy"
    target: str = ""
    """The type that an oversized resource should have."""
    cpu_peak: float | None = None
    memory_peak: float | None = None
    network_bytes: float | None = None
    disk_ops: float | None = None
    requests: float | None = None
    connections: float | None = None
    burst_every_h: int = 0
    """Where set, CPU is at its peak only in one hour of so many, and near nothing else."""
    last_days_only: int = 0
    """Where set, metrics exist for this many days only: the resource is new."""


@lru_cache
def flat_hours() -> tuple[float, ...]:
    """The same all day."""
    return (1.0,) * 24


@lru_cache
def business_hours() -> tuple[float, ...]:
    """Low at night, high from nine to five; the mean is 1."""
    raw = [0.5] * 7 + [0.8, 1.2, *[1.6] * 8, 1.3, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5]
    mean = sum(raw) / 24
    return tuple(value / mean for value in raw)


def hour_values(metrics: Metrics, rng: Random, hour: int) -> tuple[float | int | None, ...]:
    """One hour's row, in the order of `METRIC_COLUMNS`."""
    cpu_peak = _cpu_peak(metrics, rng, hour)
    memory_peak = None if metrics.memory_peak is None else metrics.memory_peak * (0.9 + 0.1 * rng.random())
    return (
        None if cpu_peak is None else round(cpu_peak * (0.4 + 0.2 * rng.random()), 2),
        None if cpu_peak is None else round(cpu_peak, 2),
        None if memory_peak is None else round(memory_peak * 0.95, 2),
        None if memory_peak is None else round(memory_peak, 2),
        _count(metrics.network_bytes, rng),
        _count(metrics.disk_ops, rng),
        _count(metrics.requests, rng),
        _count(metrics.connections, rng),
    )


def _cpu_peak(metrics: Metrics, rng: Random, hour: int) -> float | None:
    if metrics.cpu_peak is None:
        return None
    if metrics.burst_every_h and hour % metrics.burst_every_h:
        return 1.0 + rng.random()
    return metrics.cpu_peak * (0.55 + 0.45 * rng.random())


def _count(level: float | None, rng: Random) -> int | None:
    return None if level is None else int(level * (0.6 + 0.4 * rng.random()))
