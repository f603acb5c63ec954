"""Finds days that cost more than they should, by a robust baseline or by the plain day-on-day rule."""

from __future__ import annotations

from typing import Any

from anomaly_baseline import RobustSettings, robust_runs
from anomaly_findings import Run, finding, is_monthly_fee, usage_of

from cardcage_finops.hooks import hook, trigger_alert
from cardcage_finops.interfaces import AnomalyDetectorPlugin
from cardcage_finops.models import AnalysisContext, CostAnomaly, DailyCost


class CostAnomalyDetector(AnomalyDetectorPlugin):
    """`detect` for the extension point, `watch_daily_spike` for the hook."""

    def load(self, config: dict[str, Any]) -> None:
        """Take thresholds and method; the defaults are those of the manifest."""
        self.method = str(config.get("method", "robust"))
        self.min_impact = float(config.get("min_impact", 10))
        self.min_change = float(config.get("min_change", 0.25))
        self.alert = bool(config.get("alert", False))
        self.settings = RobustSettings(
            deviations=float(config.get("deviations", 4.5)),
            min_change=self.min_change,
            window_days=int(config.get("window_days", 28)),
        )

    def detect(self, series: list[DailyCost]) -> list[CostAnomaly]:
        """The anomalies of all series, the greatest impact first."""
        found = [anomaly for one in series for anomaly in self._detect(one)]
        return sorted(found, key=lambda one: (-one.impact, one.first_day, one.service, one.account))

    def _detect(self, series: DailyCost) -> list[CostAnomaly]:
        values = [float(amount) for amount in usage_of(series)]
        if self.method == "daily_rule":
            runs = daily_rule_runs(values, self.min_change)
        else:
            runs = robust_runs(values, series.first_day, self.settings)
        anomalies = [finding(series, run, self.method) for run in runs]
        worth = [anomaly for anomaly in anomalies if float(anomaly.impact) >= self.min_impact]
        return [anomaly for anomaly in worth if self.method == "daily_rule" or not is_monthly_fee(anomaly)]

    @hook("post_cost_analysis")
    def watch_daily_spike(self, context: AnalysisContext) -> None:
        """Raise an alert where the whole cost grew by more than `min_change` from one day to the next."""
        if self.alert and context.daily_spike > self.min_change:
            trigger_alert("CostSpikeDetected", growth=context.daily_spike, day=context.daily_spike_day)


def daily_rule_runs(values: list[float], min_change: float) -> list[Run]:
    """The plain rule: a day that costs more than `1 + min_change` times the day before."""
    runs: list[Run] = []
    for day in range(1, len(values)):
        before = values[day - 1]
        if before > 0 and (values[day] - before) / before > min_change:
            runs.append(Run(first=day, last=day, kind="spike", expected=[before], score=values[day] / before))
    return runs
