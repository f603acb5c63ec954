"""The plan of an estate: its resources, how each one's use goes up and down, and what is wrong. Pure; from one seed.

Amounts are integers (`UNITS` to the dollar) and the noise is built from sums and products alone, so that a seed gives
the same bytes on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta
from random import Random
from typing import Final

from cardcage_finops.sample.shapes import Metrics, business_hours, flat_hours
from cardcage_finops.sample.world import ACCOUNTS, KINDS, PURPOSES, REGIONS, ResourceKind

UNITS: Final = 10**10
"""Money is counted in ten-thousandths of a millionth of a dollar: quantity (1/10,000) x price (1/1,000,000)."""
QUIET_DAYS: Final = 21
"""Nothing is wrong before this day: a detector needs a past to compare with."""


@dataclass(slots=True, kw_only=True)
class Resource:
    """One thing on the bill."""

    id: str
    name: str
    kind: ResourceKind
    account: int
    region: int
    size: str
    price: int
    """Millionths of a dollar for a unit of quantity."""
    quantity: float
    """Units an hour, on average."""
    committed: bool
    tags: dict[str, str]
    metrics: Metrics
    boosts: dict[int, float] = field(default_factory=dict[int, float])
    """Day to the factor by which an injected anomaly raises its use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesShape:
    """How the use of one service in one account goes over the days; a factor a day."""

    service: str
    account: int
    weekend: float
    factors: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """Something injected: which series, which days, which resource."""

    kind: str
    service: str
    account: int
    resource_id: str
    first_day: int
    last_day: int
    magnitude: float
    """The rise over the series' usual cost; of a drift, at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fee:
    """A row that belongs to a day, not to an hour of a resource: a fee, a credit, a refund."""

    day: int
    account: int
    service: str
    category: str
    charge_class: str
    frequency: str
    description: str
    billed: int
    effective: int
    list: int
    contracted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An idle or oversized resource, or one that only looks like one."""

    resource_id: str
    kind: str
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EstatePlan:
    """Everything that decides what the files will hold."""

    seed: int
    start: date
    days: int
    resources: list[Resource]
    shapes: dict[tuple[str, int], SeriesShape]
    anomalies: list[Anomaly]
    fees: list[Fee]
    idle: list[Finding]
    oversized: list[Finding]
    decoys: list[Finding]

    def day(self, index: int) -> date:
        """The date of a day of the estate."""
        return self.start + timedelta(days=index)


def plan_estate(*, seed: int = 1, days: int = 60, resources: int = 100, start: date = date(2025, 3, 3)) -> EstatePlan:
    """Decide an estate. Fewer than 14 days have no room for anomalies, fewer than 30 resources not for all findings."""
    rng = Random(seed)  # noqa: S311 - a repeatable estate, not a secret
    accounts = max(1, min(len(ACCOUNTS), resources // 20))
    made = _resources(rng, resources, accounts)
    shapes = _shapes(rng, made, start, days)
    anomalies = _anomalies(rng, made, shapes, days)
    return EstatePlan(
        seed=seed,
        start=start,
        days=days,
        resources=made,
        shapes=shapes,
        anomalies=anomalies,
        fees=_fees(rng, made, start, days, accounts),
        idle=[Finding(resource_id=one.id, kind=one.kind.type) for one in made if one.metrics.label == "idle"],
        oversized=[
            Finding(resource_id=one.id, kind=one.metrics.label, target=one.metrics.target)
            for one in made
            if one.metrics.target
        ],
        decoys=[
            Finding(resource_id=one.id, kind=one.metrics.label)
            for one in made
            if one.metrics.label not in ("busy", "idle") and not one.metrics.target
        ],
    )


def _resources(rng: Random, count: int, accounts: int) -> list[Resource]:
    made: list[Resource] = []
    of_kind: dict[str, int] = {}
    for index in range(count):
        kind = _KIND_ORDER[index % len(_KIND_ORDER)]
        number = of_kind[kind] = of_kind.get(kind, -1) + 1
        made.append(_resource(rng, index, KINDS[kind], number, accounts))
    return made


def _resource(rng: Random, index: int, kind: ResourceKind, number: int, accounts: int) -> Resource:
    purpose, account = _pick(rng, PURPOSES), (index + index // len(_KIND_ORDER)) % accounts
    size, price, metrics = kind.choose(rng, number)
    stage = "prod" if rng.random() < 0.7 else "dev"
    return Resource(
        id=f"{kind.prefix}-{index:06d}{int(rng.random() * 16**6):06x}",
        name=f"{purpose}-{kind.prefix}-{index}",
        kind=kind,
        account=account,
        region=account % len(REGIONS) if rng.random() < 0.8 else int(rng.random() * len(REGIONS)),
        size=size,
        price=price,
        quantity=1.0 if kind.fixed else kind.quantity * (0.6 + 0.8 * rng.random()),
        committed=kind.can_commit and rng.random() < 0.3,
        tags={"application": purpose, "environment": stage, "owner": f"{purpose}@example.com"},
        metrics=metrics,
    )


_KIND_ORDER: Final = (
    *("instance", "volume", "gateway", "instance", "function", "logs", "instance", "bucket", "fleet", "instance"),
    *("database", "instance", "queue", "volume", "balancer", "instance", "gateway", "instance", "logs", "instance"),
)
"""The mix of kinds: twenty resources in a row hold every kind."""


def _pick(rng: Random, values: tuple[str, ...]) -> str:
    return values[int(rng.random() * len(values))]


def bell(rng: Random) -> float:
    """Noise about 0 with deviation 1, never beyond 3.5: the sum of twelve even ones, less six, cut."""
    return max(-3.5, min(3.5, sum(rng.random() for _ in range(12)) - 6.0))


def _shapes(rng: Random, resources: list[Resource], start: date, days: int) -> dict[tuple[str, int], SeriesShape]:
    shapes: dict[tuple[str, int], SeriesShape] = {}
    for one in resources:
        key = (one.kind.service, one.account)
        if key in shapes:
            continue
        weekend = 0.35 + 0.5 * rng.random() if rng.random() < 0.6 else 1.0
        noise, growth = 0.03 + 0.07 * rng.random(), 1.0 + 0.002 * rng.random()
        factors: list[float] = []
        level = 1.0
        for day in range(days):
            level *= growth
            week = weekend if (start + timedelta(days=day)).weekday() >= 5 else 1.0
            factors.append(level * week * max(0.05, 1.0 + noise * bell(rng)))
        shapes[key] = SeriesShape(service=key[0], account=key[1], weekend=weekend, factors=tuple(factors))
    return shapes


def _anomalies(
    rng: Random, resources: list[Resource], shapes: dict[tuple[str, int], SeriesShape], days: int
) -> list[Anomaly]:
    """One in three of the series whose use varies gets something; what is injected is worth looking at in money."""
    quiet = max(QUIET_DAYS, days // 3)
    if days - quiet < 7:
        return []
    series: dict[tuple[str, int], list[Resource]] = {}
    for one in resources:
        series.setdefault((one.kind.service, one.account), []).append(one)
    usual = {key: sum(one.price * one.quantity * 24 for one in group) for key, group in series.items()}
    varied = [key for key in shapes if not all(one.kind.fixed for one in series[key]) and usual[key] >= 20e6]
    found: list[Anomaly] = []
    for count, key in enumerate(_shuffled(rng, varied)[: max(3, len(varied) // 3)]):
        kind = ("spike", "step", "drift")[count % 3] if days - quiet >= 21 else "spike"
        culprit = max((one for one in series[key] if not one.kind.fixed), key=lambda one: one.price * one.quantity)
        share = culprit.price * culprit.quantity * 24 / usual[key]
        anomaly = _anomaly(rng, kind, key, culprit, quiet, days)
        for day in range(anomaly.first_day, anomaly.last_day + 1):
            rise = anomaly.magnitude
            if kind == "drift":
                rise *= (day - anomaly.first_day + 1) / (anomaly.last_day - anomaly.first_day + 1)
            culprit.boosts[day] = 1.0 + rise / share
        found.append(anomaly)
    return sorted(found, key=lambda one: (one.first_day, one.service, one.account))


def _anomaly(rng: Random, kind: str, key: tuple[str, int], culprit: Resource, quiet: int, days: int) -> Anomaly:
    if kind == "spike":
        first = quiet + int(rng.random() * (days - quiet - 3))
        last, magnitude = first + int(rng.random() * 3), 0.6 + 1.2 * rng.random()
    elif kind == "step":
        first = quiet + int(rng.random() * (days - quiet - 14))
        last, magnitude = days - 1, 0.4 + 0.6 * rng.random()
    else:
        first = quiet + int(rng.random() * (days - quiet - 20))
        last, magnitude = days - 1, 0.8 + 0.7 * rng.random()
    return Anomaly(
        kind=kind,
        service=key[0],
        account=key[1],
        resource_id=culprit.id,
        first_day=first,
        last_day=last,
        magnitude=magnitude,
    )


def _shuffled(rng: Random, values: list[tuple[str, int]]) -> list[tuple[str, int]]:
    left, taken = list(values), list[tuple[str, int]]()
    while left:
        taken.append(left.pop(int(rng.random() * len(left))))
    return taken


def _fees(rng: Random, resources: list[Resource], start: date, days: int, accounts: int) -> list[Fee]:
    """What is no anomaly: the month's support fee and commitment, a credit, a refund."""
    fees: list[Fee] = []
    for account in range(accounts):
        committed = sum(one.price * 10_000 * 24 * 30 for one in resources if one.committed and one.account == account)
        support = (100 + int(rng.random() * 900)) * UNITS
        for day in range(days):
            if (start + timedelta(days=day)).day == 1:
                fees.append(_purchase(day, account, "Support", "Support fee of the month", support, support))
                if committed:
                    paid = committed * 7 // 10
                    fees.append(_purchase(day, account, "Virtual Machines", "Commitment of the month", paid, 0))
        if days >= 10:
            given = -(20 + int(rng.random() * 200)) * UNITS
            day = int(rng.random() * days)
            fees.append(_adjustment(day, account, "Credit", "", "Promotional credit", given))
            day = int(rng.random() * days)
            fees.append(_adjustment(day, account, "Usage", "Correction", "Refund of a disturbance", given // 4))
    return sorted(fees, key=lambda fee: (fee.day, fee.account, fee.description))


def _purchase(day: int, account: int, service: str, description: str, billed: int, effective: int) -> Fee:
    return Fee(
        day=day,
        account=account,
        service=service,
        category="Purchase",
        charge_class="",
        frequency="Recurring",
        description=description,
        billed=billed,
        effective=effective,
        list=billed,
        contracted=billed,
    )


def _adjustment(day: int, account: int, category: str, charge_class: str, description: str, amount: int) -> Fee:
    return Fee(
        day=day,
        account=account,
        service="Object Storage",
        category=category,
        charge_class=charge_class,
        frequency="One-Time",
        description=description,
        billed=amount,
        effective=amount,
        list=amount,
        contracted=amount,
    )


def hours_of(resource: Resource, weekend: float) -> tuple[float, ...]:
    """The factor of each hour of a day; their mean is 1."""
    return flat_hours() if resource.kind.fixed or weekend >= 1.0 else business_hours()
