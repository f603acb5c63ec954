"""The daily costs of an estate without writing its bill: the same integers, added up. For evaluating detectors."""

from __future__ import annotations

from decimal import Decimal

from cardcage_finops.models import DailyCost
from cardcage_finops.sample.generator import day_level, hour_quantity
from cardcage_finops.sample.plan import UNITS, EstatePlan, hours_of
from cardcage_finops.sample.world import ACCOUNTS, REGIONS

Days = list[int]


def daily_series(plan: EstatePlan) -> list[DailyCost]:
    """EffectiveCost by day of each service and account, fees included, split by region and resource."""
    series: dict[tuple[str, int], Days] = {}
    parts: dict[tuple[str, int], dict[str, dict[str, Days]]] = {}
    for resource in plan.resources:
        key = (resource.kind.service, resource.account)
        shape = hours_of(resource, plan.shapes[key].weekend)
        for day in range(plan.days):
            level = day_level(plan, resource, day)
            listed = [hour_quantity(resource, level, hour) * resource.price for hour in shape]
            cost = sum(amount * 7 // 10 for amount in listed) if resource.committed else sum(listed)
            split = parts.setdefault(key, {"RegionId": {}, "ResourceId": {}})
            for days in (
                series.setdefault(key, [0] * plan.days),
                split["RegionId"].setdefault(REGIONS[resource.region][0], [0] * plan.days),
                split["ResourceId"].setdefault(resource.id, [0] * plan.days),
            ):
                days[day] += cost
    for fee in plan.fees:
        series.setdefault((fee.service, fee.account), [0] * plan.days)[fee.day] += fee.effective
    return [
        DailyCost(
            service=key[0],
            account=ACCOUNTS[key[1]][0],
            first_day=plan.day(0).isoformat(),
            amounts=_exact(days),
            parts={name: {part: _exact(found) for part, found in split.items()} for name, split in parts[key].items()}
            if key in parts
            else {},
        )
        for key, days in sorted(series.items())
    ]


def _exact(days: Days) -> list[Decimal]:
    return [Decimal(amount) / UNITS for amount in days]
