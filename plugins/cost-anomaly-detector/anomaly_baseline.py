"""The robust baseline: what a day should cost, from the median of the series' own past, weekdays apart.

1. Weekday factors: for each weekday the median of (day / median of the seven days about it). From three weeks on.
2. The yardstick of noise is the median absolute difference between a day, freed of its weekday, and the median of the
   seven days about it, made a standard deviation. A slow rise does not widen it. It is at least 3 % of the level: a
   flat series must not cry at a cent.
3. A day is out where it lies `deviations` yardsticks and `min_change` above the median of the last `window_days` normal
   days: spikes and steps.
4. A day is out too where the median of its week lies as far above the normal days of at least three weeks before:
   a drift, which drags a near baseline along. Its run begins where the rise had come half of the way. A slower one is
   held against the normal days of a quarter before, back to where the level was last learned anew.
5. A run goes on at half of both thresholds against the level at its opening, so that a noisy day within a step does not
   cut it in two; after `RELEARN_DAYS` it is the new normal.

One-sided: cheaper days are never reported. Plain statistics in floats; the amounts reported are exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from statistics import median

from anomaly_findings import Run

MIN_HISTORY_DAYS = 14
MIN_SEASONAL_DAYS = 21
NOISE_TO_DEVIATION = 1.82
"""Makes the median absolute difference from a seven-day median (the day itself among the seven) a standard deviation of
normal noise: 1.4826 for the median absolute deviation (Rousseeuw and Croux 1993), 1.23 for the seven (simulated)."""
NOISE_WINDOWS = 2
"""The noise is taken from so many windows, because the median of few differences is itself noisy."""
LEAST_DEVIATION = 0.03
RELEARN_DAYS = 45
SPIKE_DAYS = 3
WEEK = 7
DRIFT_LAG_DAYS = 21
SLOW_LAG_DAYS = 90
"""A quarter: a rise too slow to show within five weeks shows against the quarter before."""
ORDINARY_GROWTH = 1.1
"""A business grows; some 3 % a month on top of everything else is no anomaly."""
LEAST_OLD_DAYS = 7
DRIFT_GROWTH = 1.6
"""A run is a drift where the excess of its last third is so many times that of its first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustSettings:
    """What counts as out of the ordinary."""

    deviations: float = 4.5
    min_change: float = 0.25
    window_days: int = 28


def weekday_factors(values: list[float], first_weekday: int) -> list[float]:
    """How each weekday stands to its week, Monday first; all 1 where there are fewer than three weeks."""
    if len(values) < MIN_SEASONAL_DAYS:
        return [1.0] * WEEK
    ratios: list[list[float]] = [[] for _ in range(WEEK)]
    for day, (value, level) in enumerate(zip(values, week_medians(values), strict=True)):
        if level > 0:
            ratios[(first_weekday + day) % WEEK].append(value / level)
    return [min(20.0, max(0.05, median(found))) if len(found) >= 3 else 1.0 for found in ratios]


def week_medians(values: list[float]) -> list[float]:
    """For each day the median of the seven days about it; at the ends, of the first or last seven."""
    last = max(0, len(values) - WEEK)
    return [median(values[(first := min(max(day - 3, 0), last)) : first + WEEK]) for day in range(len(values))]


def robust_runs(values: list[float], first_day: str, settings: RobustSettings) -> list[Run]:
    """The runs of days above the baseline."""
    if len(values) <= MIN_HISTORY_DAYS:
        return []
    start = date.fromisoformat(first_day)
    factors = weekday_factors(values, start.weekday())
    season = [factors[(start.weekday() + day) % WEEK] for day in range(len(values))]
    return _Scan(values, season, settings).runs()


class _Scan:
    """One walk over a series, day by day, keeping which days were normal."""

    def __init__(self, values: list[float], season: list[float], settings: RobustSettings) -> None:
        self.season = season
        self.settings = settings
        self.free = [value / factor for value, factor in zip(values, season, strict=True)]
        self.noise = [abs(value - level) for value, level in zip(self.free, week_medians(self.free), strict=True)]
        self.normal = list(range(MIN_HISTORY_DAYS))
        self.learned_from = 0
        self.level = 0.0
        self.deviation = 0.0

    def runs(self) -> list[Run]:
        found: list[Run] = []
        open_run: list[int] = []
        for day in range(MIN_HISTORY_DAYS, len(self.free)):
            if open_run and len(open_run) < RELEARN_DAYS and self._out(self.free[day], self.level, ease=0.5):
                open_run.append(day)
                continue
            if open_run:
                found.append(self._run(open_run))
                if len(open_run) >= RELEARN_DAYS:
                    self.normal.extend(open_run)
                    self.learned_from = open_run[0]
                open_run = []
            open_run = self._opening(day)
            if not open_run:
                self.normal.append(day)
        return [*found, self._run(open_run)] if open_run else found

    def _opening(self, day: int) -> list[int]:
        """The days of the run that opens on this day; empty where the day is normal."""
        past = self.normal[-self.settings.window_days :]
        long_past = self.normal[-NOISE_WINDOWS * self.settings.window_days :]
        self.level = median(self.free[index] for index in past)
        noise = NOISE_TO_DEVIATION * median(self.noise[index] for index in long_past)
        self.deviation = max(noise, LEAST_DEVIATION * abs(self.level), 1e-9)
        if self._out(self.free[day], self.level, ease=1.0):
            return [day]
        old = [index for index in self.normal if index <= day - DRIFT_LAG_DAYS][-self.settings.window_days :]
        if len(old) < LEAST_OLD_DAYS:
            return []
        level = median(self.free[index] for index in old)
        if self._week_out(day, level):
            return self._drift(day, level)
        older = [index for index in self.normal if self.learned_from <= index <= day - SLOW_LAG_DAYS]
        if len(older) < self.settings.window_days:
            return []
        level = median(self.free[index] for index in older[-self.settings.window_days :])
        return self._drift(day, level) if self._week_out(day, level * ORDINARY_GROWTH) else []

    def _week_out(self, day: int, level: float) -> bool:
        return self._out(median(self.free[day - WEEK + 1 : day + 1]), level, ease=1.0)

    def _drift(self, day: int, level: float) -> list[int]:
        self.level = level
        run = [day]
        while self.normal and self.normal[-1] == run[0] - 1 and self._out(self.free[run[0] - 1], level, ease=0.5):
            run.insert(0, self.normal.pop())
        return run

    def _out(self, value: float, level: float, *, ease: float) -> bool:
        excess = value - level
        return (
            excess >= ease * self.settings.deviations * self.deviation
            and excess >= ease * self.settings.min_change * abs(level)
        )

    def _run(self, days: list[int]) -> Run:
        expected = [self.level * self.season[day] for day in days]
        excess = [self.free[day] - self.level for day in days]
        score = min(1e6, max(excess) / self.deviation)
        return Run(first=days[0], last=days[-1], kind=_kind(excess), expected=expected, score=score)


def _kind(excess: list[float]) -> str:
    if len(excess) <= SPIKE_DAYS:
        return "spike"
    third = max(2, len(excess) // 3)
    return "drift" if median(excess[-third:]) >= DRIFT_GROWTH * median(excess[:third]) else "step"
