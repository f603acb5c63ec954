"""The made-up provider of sample estates: its accounts, regions, services and kinds of resource, as data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final

from cardcage_finops.instance_types import INSTANCE_TYPES, InstanceType
from cardcage_finops.sample.shapes import Metrics

PROVIDER: Final = "Example Cloud"
BILLING_ACCOUNT: Final = ("9000000001", "Example Company")
ACCOUNTS: Final = (
    ("100000000001", "payments"),
    ("100000000002", "search"),
    ("100000000003", "data platform"),
    ("100000000004", "web shop"),
    ("100000000005", "internal tools"),
)
REGIONS: Final = (("north-1", "North"), ("west-1", "West"), ("south-2", "South"))
PURPOSES: Final = ("checkout", "catalogue", "ranking", "ledger", "reports", "intranet", "images", "mail")

Choice = tuple[str, int, Metrics]
"""Size, price of a unit in millionths of a dollar, metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceKind:
    """One kind of thing that costs money."""

    type: str
    prefix: str
    service: str
    category: str
    subcategory: str
    unit: str
    fixed: bool
    """True where it runs and costs the same each hour."""
    quantity: float
    """Units an hour, on average, where it is not fixed."""
    can_commit: bool
    choose: Callable[[Random, int], Choice]
    """Size, price and metrics of the number-th of its kind."""


def _micro(instance: InstanceType) -> int:
    return int(instance.hourly * 1_000_000)


def _instance(rng: Random, number: int) -> Choice:
    """Mostly busy ones; in fixed turns idle ones, oversized ones and decoys, so that every estate of size has each."""
    turn = _INSTANCE_TURNS[number % len(_INSTANCE_TURNS)]
    name, metrics = turn(rng)
    return name, _micro(INSTANCE_TYPES[name]), metrics


def _size(rng: Random, *sizes: str) -> str:
    return sizes[int(rng.random() * len(sizes))]


def _between(rng: Random, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _busy(rng: Random) -> tuple[str, Metrics]:
    """Peaks so high that nothing smaller fits."""
    family = _size(rng, "general", "compute", "memory")
    size = _size(rng, "large", "xlarge", "2xlarge", "4xlarge")
    return f"{family}.{size}", Metrics(
        cpu_peak=_between(rng, 62, 80),
        memory_peak=_between(rng, 62, 80),
        network_bytes=_between(rng, 1e9, 2e10),
        disk_ops=_between(rng, 1e3, 1e5),
    )


def _idle(rng: Random) -> tuple[str, Metrics]:
    return f"general.{_size(rng, 'xlarge', '2xlarge', '4xlarge')}", Metrics(
        label="idle", cpu_peak=2.5, memory_peak=_between(rng, 5, 12), network_bytes=4e4, disk_ops=20.0
    )


_STEPS: Final = ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge")


def _oversized(rng: Random) -> tuple[str, Metrics]:
    """One to three sizes too large: the need, headroom included, is 72 to 88 % of the target."""
    family, shrink = _size(rng, "general", "compute", "memory"), 1 + int(rng.random() * 3)
    own = max(shrink, 1) + int(rng.random() * (len(_STEPS) - shrink))
    fill_cpu, fill_memory = _between(rng, 61, 73), _between(rng, 61, 73)
    return f"{family}.{_STEPS[own]}", Metrics(
        label="oversized",
        target=f"{family}.{_STEPS[own - shrink]}",
        cpu_peak=fill_cpu / 2**shrink,
        memory_peak=fill_memory / 2**shrink,
        network_bytes=_between(rng, 1e8, 2e9),
        disk_ops=_between(rng, 1e3, 1e5),
    )


def _oversized_no_memory_metric(rng: Random) -> tuple[str, Metrics]:
    """Half of the CPU would do, and nobody knows about memory: the memory family has it with half the CPU."""
    own = 1 + int(rng.random() * (len(_STEPS) - 1))
    return f"general.{_STEPS[own]}", Metrics(
        label="oversized_no_memory_metric",
        target=f"memory.{_STEPS[own - 1]}",
        cpu_peak=_between(rng, 30, 36),
        network_bytes=_between(rng, 1e8, 2e9),
        disk_ops=_between(rng, 1e3, 1e5),
    )


def _quiet_proxy(rng: Random) -> tuple[str, Metrics]:
    """Little CPU, but much traffic, on the smallest type: neither idle nor oversized."""
    return "general.large", Metrics(
        label="quiet_proxy", cpu_peak=6.0, memory_peak=_between(rng, 62, 70), network_bytes=5e9, disk_ops=100.0
    )


def _daily_batch(rng: Random) -> tuple[str, Metrics]:
    """Asleep but for one hour of hard work a day: neither idle nor oversized."""
    return f"compute.{_size(rng, 'xlarge', '2xlarge')}", Metrics(
        label="batch_job",
        cpu_peak=80.0,
        memory_peak=_between(rng, 65, 78),
        network_bytes=2e8,
        disk_ops=500.0,
        burst_every_h=24,
    )


def _newcomer(rng: Random) -> tuple[str, Metrics]:
    """Quiet, but only three days old: too early to judge."""
    return "general.2xlarge", Metrics(
        label="new", cpu_peak=_between(rng, 3, 9), memory_peak=12.0, network_bytes=5e7, disk_ops=100.0, last_days_only=3
    )


_INSTANCE_TURNS: Final = (
    *(_busy, _idle, _busy, _oversized, _busy, _quiet_proxy, _busy, _busy, _oversized_no_memory_metric, _busy),
    *(_busy, _daily_batch, _busy, _oversized, _busy, _busy, _newcomer, _busy, _busy, _busy, _busy),
)


def _database(rng: Random, number: int) -> Choice:
    idle = number > 0 and rng.random() < 0.25
    metrics = (
        Metrics(label="idle", cpu_peak=3.0, connections=0.0)
        if idle
        else Metrics(cpu_peak=_between(rng, 40, 80), connections=_between(rng, 5, 200))
    )
    return "db.standard.xlarge", 380_000, metrics


def _volume(rng: Random, number: int) -> Choice:
    size_gib = (100, 250, 500, 1000)[int(rng.random() * 4)]
    idle = number > 0 and rng.random() < 0.2
    metrics = Metrics(label="idle", disk_ops=0.0) if idle else Metrics(disk_ops=_between(rng, 100, 1e5))
    return f"ssd-{size_gib}", 110 * size_gib, metrics


def _balancer(rng: Random, number: int) -> Choice:
    idle = number > 0 and rng.random() < 0.25
    metrics = Metrics(label="idle", requests=0.0) if idle else Metrics(requests=_between(rng, 1e3, 1e6))
    return "", 25_000, metrics


def _unmetered(price: int) -> Callable[[Random, int], Choice]:
    return lambda rng, number: ("", price, Metrics())


def _kind(
    type_: str,
    prefix: str,
    service: tuple[str, str, str],
    unit: str,
    choose: Callable[[Random, int], Choice],
    *,
    quantity: float = 0.0,
    can_commit: bool = False,
) -> ResourceKind:
    return ResourceKind(
        type=type_,
        prefix=prefix,
        service=service[0],
        category=service[1],
        subcategory=service[2],
        unit=unit,
        fixed=not quantity,
        quantity=quantity,
        can_commit=can_commit,
        choose=choose,
    )


_Service = tuple[str, str, str]
"""Name, category, subcategory."""
_MACHINES: Final[_Service] = ("Virtual Machines", "Compute", "Virtual Machines")
_WORKERS: Final[_Service] = ("Batch Workers", "Compute", "Virtual Machines")
_VOLUMES: Final[_Service] = ("Block Storage", "Storage", "Block Storage")
_OBJECTS: Final[_Service] = ("Object Storage", "Storage", "Object Storage")
_DATABASES: Final[_Service] = ("Managed Database", "Databases", "Relational Databases")
_BALANCERS: Final[_Service] = ("Load Balancing", "Networking", "Application Networking")
_TRANSFER: Final[_Service] = ("Data Transfer", "Networking", "Content Delivery")
_FUNCTIONS: Final[_Service] = ("Functions", "Compute", "Serverless Compute")
_LOGS: Final[_Service] = ("Log Analytics", "Management and Governance", "Observability")
_QUEUES: Final[_Service] = ("Message Queue", "Integration", "Messaging")

KINDS: Final[dict[str, ResourceKind]] = {
    "instance": _kind("instance", "vm", _MACHINES, "Hours", _instance, can_commit=True),
    "fleet": _kind("instance group", "fleet", _WORKERS, "Hours", _unmetered(86_000), quantity=30),
    "volume": _kind("volume", "vol", _VOLUMES, "Hours", _volume),
    "bucket": _kind("bucket", "bkt", _OBJECTS, "GB-Hours", _unmetered(32), quantity=60_000),
    "database": _kind("database", "db", _DATABASES, "Hours", _database),
    "balancer": _kind("load balancer", "lb", _BALANCERS, "Hours", _balancer),
    "gateway": _kind("gateway", "gw", _TRANSFER, "GB", _unmetered(85_000), quantity=25),
    "function": _kind("function", "fn", _FUNCTIONS, "GB-Hours", _unmetered(60_000), quantity=40),
    "logs": _kind("log group", "log", _LOGS, "GB", _unmetered(500_000), quantity=4),
    "queue": _kind("queue", "mq", _QUEUES, "Million Requests", _unmetered(400_000), quantity=6),
}
