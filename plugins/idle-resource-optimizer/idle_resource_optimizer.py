"""Finds resources that nobody uses: databases without connections, quiet instances, untouched volumes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from cardcage_finops.interfaces import OptimizerPluginBase
from cardcage_finops.models import CloudResource, OptimizationRecommendation

FULL_CONFIDENCE_DAYS = 14
FIRST_CONFIDENCE = 0.7
FULL_CONFIDENCE = 0.95
MEANS_ONLY_PENALTY = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Why a resource is idle, and what to do about it."""

    action: str
    reason: str
    days: float
    penalty: float = 0.0


class IdleResourceOptimizer(OptimizerPluginBase):
    """Judges each resource by the metrics that it has."""

    def load(self, config: dict[str, Any]) -> None:
        """Take the thresholds; the defaults are those of the manifest."""
        self.min_days = float(config.get("min_days", 7))
        self.cpu_peak = float(config.get("cpu_peak_percent", 5))
        self.network = float(config.get("network_bytes_per_sample", 1_000_000))
        self.min_savings = Decimal(str(config.get("min_savings", 0)))

    def analyze(self, resource: CloudResource, metrics: dict[str, Any]) -> list[OptimizationRecommendation]:
        """One recommendation where the resource is idle and costs something."""
        savings = resource.monthly_cost or Decimal(0)
        if savings <= 0 or savings < self.min_savings:
            return []
        verdict = self._judge(metrics)
        if verdict is None or verdict.days < self.min_days:
            return []
        return [
            OptimizationRecommendation(
                resource_id=resource.id,
                resource_name=resource.name,
                provider=resource.provider,
                action=verdict.action,
                reason=f"{verdict.reason} in {verdict.days:.0f} days",
                estimated_savings=savings,
                confidence=self._confidence(verdict),
                currency=resource.currency,
                details={"finding": "idle", "days": verdict.days, "snapshot_first": verdict.action == "delete"},
            )
        ]

    def _judge(self, metrics: dict[str, Any]) -> Verdict | None:
        if "connections_max" in metrics:
            return _never(metrics, "connections", "stop", "no connection")
        if "requests_max" in metrics:
            return _never(metrics, "requests", "delete", "no request")
        if "cpu_peak_max" in metrics or "cpu_usage_max" in metrics:
            return self._quiet_instance(metrics)
        if "disk_ops_max" in metrics:
            return _never(metrics, "disk_ops", "delete", "no read or write")
        return None

    def _quiet_instance(self, metrics: dict[str, Any]) -> Verdict | None:
        name = "cpu_peak" if "cpu_peak_max" in metrics else "cpu_usage"
        cpu, traffic = float(metrics[f"{name}_max"]), metrics.get("network_bytes")
        if cpu > self.cpu_peak or traffic is None or float(traffic) >= self.network:
            return None
        return Verdict(
            action="stop",
            reason=f"CPU never passed {cpu:.1f} % and traffic is {float(traffic) / 1000:.0f} kB an interval,",
            days=float(metrics.get(f"{name}_days", 0)),
            penalty=0.0 if name == "cpu_peak" else MEANS_ONLY_PENALTY,
        )

    def _confidence(self, verdict: Verdict) -> float:
        span = max(1.0, FULL_CONFIDENCE_DAYS - self.min_days)
        share = min(1.0, (verdict.days - self.min_days) / span)
        return round(FIRST_CONFIDENCE + (FULL_CONFIDENCE - FIRST_CONFIDENCE) * share - verdict.penalty, 3)


def _never(metrics: dict[str, Any], name: str, action: str, reason: str) -> Verdict | None:
    if float(metrics[f"{name}_max"]) > 0:
        return None
    return Verdict(action=action, reason=reason, days=float(metrics.get(f"{name}_days", 0)))
