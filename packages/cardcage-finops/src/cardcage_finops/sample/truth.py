"""What is true of an estate: exact totals, the anomalies injected, the findings that are there to be made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cardcage_finops.sample.plan import UNITS, EstatePlan, Fee, Resource
from cardcage_finops.sample.world import ACCOUNTS

Costs = list[int]
"""[billed, effective, list, contracted], in units."""


def plain(amount: int) -> str:
    """An exact amount as a decimal string without zeros that say nothing."""
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    text = f"{sign}{amount // UNITS}.{amount % UNITS:010d}".rstrip("0").rstrip(".")
    return "0" if text in ("", "-0") else text


@dataclass(slots=True)
class DayTotals:
    """What one day costs, by service and account, and by resource where an anomaly may be in it."""

    series: dict[tuple[str, int], Costs] = field(default_factory=dict[tuple[str, int], Costs])
    resources: dict[str, int] = field(default_factory=dict[str, int])
    """EffectiveCost."""
    rows: int = 0

    def add(self, resource: Resource, *, billed: int, effective: int, listed: int) -> None:
        """Count one row."""
        key = (resource.kind.service, resource.account)
        costs = self.series.get(key)
        if costs is None:
            costs = self.series[key] = [0, 0, 0, 0]
        costs[0] += billed
        costs[1] += effective
        costs[2] += listed
        costs[3] += listed
        self.resources[resource.id] = self.resources.get(resource.id, 0) + effective
        self.rows += 1


@dataclass(slots=True, kw_only=True)
class Truth:
    """Gathers the truth while the bill is written."""

    plan: EstatePlan
    rows: int = 0
    totals: Costs = field(default_factory=lambda: [0, 0, 0, 0])
    by_service: dict[str, Costs] = field(default_factory=dict[str, Costs])
    by_account: dict[str, Costs] = field(default_factory=dict[str, Costs])
    by_day: dict[str, Costs] = field(default_factory=dict[str, Costs])
    daily: dict[tuple[str, int], list[int]] = field(default_factory=dict[tuple[str, int], list[int]])
    """EffectiveCost of each series by day, fees included."""
    usage: dict[tuple[str, int], list[int]] = field(default_factory=dict[tuple[str, int], list[int]])
    """The same of usage alone."""
    resource_costs: dict[str, int] = field(default_factory=dict[str, int])
    boosted: dict[tuple[str, int], int] = field(default_factory=dict[tuple[str, int], int])
    """EffectiveCost of a resource on a day on which an anomaly raised it."""

    def close_day(self, day: int, totals: DayTotals, fees: list[Fee]) -> None:
        """Take over what one day came to."""
        name = self.plan.day(day).isoformat()
        self.rows += totals.rows + len(fees)
        for key, costs in totals.series.items():
            self._add(name, day, key, costs)
            self._series(self.usage, key)[day] += costs[1]
        for fee in fees:
            self._add(name, day, (fee.service, fee.account), [fee.billed, fee.effective, fee.list, fee.contracted])
        for resource, amount in totals.resources.items():
            self.resource_costs[resource] = self.resource_costs.get(resource, 0) + amount
        for anomaly in self.plan.anomalies:
            if anomaly.first_day <= day <= anomaly.last_day:
                self.boosted[anomaly.resource_id, day] = totals.resources[anomaly.resource_id]

    def document(self, metrics_days: int) -> dict[str, Any]:
        """All of it as plain data."""
        plan = self.plan
        return {
            "synthetic": True,
            "seed": plan.seed,
            "first_day": plan.day(0).isoformat(),
            "last_day": plan.day(plan.days - 1).isoformat(),
            "days": plan.days,
            "metrics_days": metrics_days,
            "rows": self.rows,
            "currency": "USD",
            "totals": _costs(self.totals),
            "by": {
                "service": {key: _costs(value) for key, value in sorted(self.by_service.items())},
                "account": {key: _costs(value) for key, value in sorted(self.by_account.items())},
                "day": {key: _costs(value) for key, value in sorted(self.by_day.items())},
            },
            "anomalies": [self._anomaly(index) for index in range(len(plan.anomalies))],
            "idle": [self._finding(one.resource_id, one.kind) for one in plan.idle],
            "oversized": [{**self._finding(one.resource_id, one.kind), "target": one.target} for one in plan.oversized],
            "not_findings": [self._finding(one.resource_id, one.kind) for one in plan.decoys],
            "not_anomalies": [_fee(plan, fee) for fee in plan.fees],
        }

    def _add(self, name: str, day: int, key: tuple[str, int], costs: Costs) -> None:
        service, account = key[0], ACCOUNTS[key[1]][0]
        for table, label in ((self.by_service, service), (self.by_account, account), (self.by_day, name)):
            _sum(table.setdefault(label, [0, 0, 0, 0]), costs)
        _sum(self.totals, costs)
        self._series(self.daily, key)[day] += costs[1]

    def _series(self, table: dict[tuple[str, int], list[int]], key: tuple[str, int]) -> list[int]:
        if key not in table:
            table[key] = [0] * self.plan.days
        return table[key]

    def _anomaly(self, index: int) -> dict[str, Any]:
        anomaly = self.plan.anomalies[index]
        resource = next(one for one in self.plan.resources if one.id == anomaly.resource_id)
        days = range(anomaly.first_day, anomaly.last_day + 1)
        extra = sum(
            self.boosted[resource.id, day] - int(self.boosted[resource.id, day] / resource.boosts[day]) for day in days
        )
        return {
            "kind": anomaly.kind,
            "service": anomaly.service,
            "account": ACCOUNTS[anomaly.account][0],
            "resource_id": anomaly.resource_id,
            "first_day": self.plan.day(anomaly.first_day).isoformat(),
            "last_day": self.plan.day(anomaly.last_day).isoformat(),
            "magnitude": round(anomaly.magnitude, 4),
            "extra_cost": plain(round(extra / (UNITS // 100)) * (UNITS // 100)),
        }

    def _finding(self, resource_id: str, kind: str) -> dict[str, Any]:
        resource = next(one for one in self.plan.resources if one.id == resource_id)
        monthly = self.resource_costs[resource_id] * 30 // self.plan.days
        return {"resource_id": resource_id, "kind": kind, "size": resource.size, "monthly_cost": plain(monthly)}


def _fee(plan: EstatePlan, fee: Fee) -> dict[str, str]:
    return {
        "day": plan.day(fee.day).isoformat(),
        "account": ACCOUNTS[fee.account][0],
        "service": fee.service,
        "description": fee.description,
        "billed": plain(fee.billed),
    }


def _sum(into: Costs, costs: Costs) -> None:
    for index, value in enumerate(costs):
        into[index] += value


def _costs(costs: Costs) -> dict[str, str]:
    return dict(zip(("billed", "effective", "list", "contracted"), map(plain, costs), strict=True))
