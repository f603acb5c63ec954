"""Instance types with their sizes and hourly list prices, as data: what right-sizing chooses among.

Prices in USD: `aws` are the public on-demand prices of Linux in us-east-1 (aws.amazon.com/ec2/pricing/on-demand), of
the general (m), compute (c) and memory (r) families of two generations; `Example Cloud` is the made-up provider of
sample estates. In a family the price grows with the size, so ratios hold in other regions too, though amounts differ.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from msgspec import Struct


class InstanceType(Struct, frozen=True, kw_only=True):
    """What can be rented by the hour."""

    name: str
    provider: str
    family: str
    vcpus: int
    memory_gib: int
    hourly: Decimal


_SIZES: Final = {"large": 1, "xlarge": 2, "2xlarge": 4, "4xlarge": 8, "8xlarge": 16, "12xlarge": 24, "16xlarge": 32}
_SAMPLE_SIZES: Final = {"large": 1, "xlarge": 2, "2xlarge": 4, "4xlarge": 8, "8xlarge": 16}

_FAMILIES: Final[tuple[tuple[str, str, int, str], ...]] = (
    ("aws", "m5", 8, "0.096"),
    ("aws", "c5", 4, "0.085"),
    ("aws", "r5", 16, "0.126"),
    ("aws", "m6i", 8, "0.096"),
    ("aws", "c6i", 4, "0.085"),
    ("aws", "r6i", 16, "0.126"),
    ("Example Cloud", "general", 8, "0.100"),
    ("Example Cloud", "compute", 4, "0.086"),
    ("Example Cloud", "memory", 16, "0.130"),
)
"""Provider, family, GiB of its `large` (2 vCPUs), price of that an hour."""

_NOT_RENTED: Final = frozenset({"c5.8xlarge", "c5.16xlarge"})
"""The c5 family has 9xlarge and 18xlarge in their places."""


def _types() -> dict[str, InstanceType]:
    types: dict[str, InstanceType] = {}
    for provider, family, memory_gib, price in _FAMILIES:
        for size, factor in (_SIZES if provider == "aws" else _SAMPLE_SIZES).items():
            name = f"{family}.{size}"
            if name not in _NOT_RENTED:
                types[name] = InstanceType(
                    name=name,
                    provider=provider,
                    family=family,
                    vcpus=2 * factor,
                    memory_gib=memory_gib * factor,
                    hourly=Decimal(price) * factor,
                )
    return types


INSTANCE_TYPES: Final[dict[str, InstanceType]] = _types()
"""By name."""


def rivals(name: str) -> list[InstanceType]:
    """The types of the same provider, cheapest first; empty where the name is not known."""
    own = INSTANCE_TYPES.get(name)
    if own is None:
        return []
    same = (candidate for candidate in INSTANCE_TYPES.values() if candidate.provider == own.provider)
    return sorted(same, key=lambda candidate: (candidate.hourly, candidate.family != own.family, candidate.name))
