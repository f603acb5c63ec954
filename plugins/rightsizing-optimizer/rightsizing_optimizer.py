"""Finds instances that are larger than their use: need by percentile and headroom, then the cheapest type that fits."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from cardcage_finops.instance_types import INSTANCE_TYPES, InstanceType, rivals
from cardcage_finops.interfaces import OptimizerPluginBase
from cardcage_finops.models import CloudResource, OptimizationRecommendation

FULL_CONFIDENCE_DAYS = 14
FULL_CONFIDENCE = 0.9
FEW_DAYS_PENALTY = 0.3
NO_MEMORY_PENALTY = 0.15
MEANS_ONLY_PENALTY = 0.1
MICRO = Decimal("0.000001")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """What an instance needs, and how well that is known."""

    vcpus: float
    memory_gib: float
    cpu_percent: float
    memory_percent: float | None
    days: float
    means_only: bool


class RightsizingOptimizer(OptimizerPluginBase):
    """Judges each instance whose type is known."""

    def load(self, config: dict[str, Any]) -> None:
        """Take the thresholds; the defaults are those of the manifest."""
        self.cpu_headroom = float(config.get("cpu_headroom", 0.2))
        self.memory_headroom = float(config.get("memory_headroom", 0.2))
        self.percentile = str(config.get("percentile", "p99_5"))
        self.min_days = float(config.get("min_days", 7))
        self.min_savings = Decimal(str(config.get("min_savings", 1)))

    def analyze(self, resource: CloudResource, metrics: dict[str, Any]) -> list[OptimizationRecommendation]:
        """One recommendation where a cheaper type would do."""
        present = INSTANCE_TYPES.get(resource.size)
        need = self._need(present, metrics) if present else None
        if present is None or need is None or need.days < self.min_days or not resource.monthly_cost:
            return []
        target = cheapest_fit(present, need)
        if target is None:
            return []
        savings = resource.monthly_cost * (1 - target.hourly / present.hourly)
        savings = savings.quantize(MICRO, rounding=ROUND_HALF_EVEN)
        if savings < self.min_savings:
            return []
        confidence, doubts = self._confidence(need)
        return [
            OptimizationRecommendation(
                resource_id=resource.id,
                resource_name=resource.name,
                provider=resource.provider,
                action="downsize",
                reason=self._reason(present, target, need),
                estimated_savings=savings,
                confidence=confidence,
                currency=resource.currency,
                details={
                    "finding": "oversized",
                    "from": present.name,
                    "to": target.name,
                    "need_vcpus": round(need.vcpus, 3),
                    "need_memory_gib": round(need.memory_gib, 3),
                    "days": need.days,
                    "doubts": doubts,
                },
            )
        ]

    def _need(self, present: InstanceType, metrics: dict[str, Any]) -> Need | None:
        cpu = self._level(metrics, "cpu")
        if cpu is None:
            return None
        memory = self._level(metrics, "memory")
        name = _metric(metrics, "cpu", self.percentile)
        return Need(
            vcpus=present.vcpus * cpu / 100 * (1 + self.cpu_headroom),
            memory_gib=present.memory_gib
            if memory is None
            else min(present.memory_gib, present.memory_gib * memory / 100 * (1 + self.memory_headroom)),
            cpu_percent=cpu,
            memory_percent=memory,
            days=float(metrics.get(f"{name}_days", 0)),
            means_only=name == "cpu_usage",
        )

    def _level(self, metrics: dict[str, Any], what: str) -> float | None:
        name = _metric(metrics, what, self.percentile)
        return None if name is None else float(metrics[f"{name}_{self.percentile}"])

    def _reason(self, present: InstanceType, target: InstanceType, need: Need) -> str:
        label = {"p95": "95th percentile", "p99_5": "99.5th percentile", "max": "maximum"}[self.percentile]
        memory = "memory unknown and kept" if need.memory_percent is None else f"of memory {need.memory_percent:.1f} %"
        return (
            f"the {label} of CPU is {need.cpu_percent:.1f} %, {memory}, in {need.days:.0f} days: "
            f"{target.name} fits ({target.vcpus} vCPUs, {target.memory_gib} GiB; now {present.name}, "
            f"{present.vcpus} vCPUs, {present.memory_gib} GiB)"
        )

    def _confidence(self, need: Need) -> tuple[float, list[str]]:
        confidence, doubts = FULL_CONFIDENCE, list[str]()
        if need.days < FULL_CONFIDENCE_DAYS:
            confidence -= FEW_DAYS_PENALTY * (1 - need.days / FULL_CONFIDENCE_DAYS)
            doubts.append(f"only {need.days:.0f} days of metrics")
        if need.memory_percent is None:
            confidence -= NO_MEMORY_PENALTY
            doubts.append("no memory metric")
        if need.means_only:
            confidence -= MEANS_ONLY_PENALTY
            doubts.append("interval means, no peaks")
        return round(confidence, 3), doubts


def cheapest_fit(present: InstanceType, need: Need) -> InstanceType | None:
    """The cheapest type of the same provider that is cheaper than the present one and has what is needed."""
    for candidate in rivals(present.name):
        if candidate.hourly >= present.hourly:
            return None
        if candidate.vcpus >= need.vcpus and candidate.memory_gib >= need.memory_gib:
            return candidate
    return None


def _metric(metrics: dict[str, Any], what: str, percentile: str) -> str | None:
    """Peaks of intervals where there are any, else their means."""
    for name in (f"{what}_peak", f"{what}_usage"):
        if f"{name}_{percentile}" in metrics:
            return name
    return None
