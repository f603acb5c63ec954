"""Cutting work into calls that fit the wire. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeVar

from cardcage_finops.models import DailyCost

T = TypeVar("T")

AMOUNTS_PER_CALL: Final = 200_000
"""Amounts in one call to a detector: some 4 MiB of decimal text, a quarter of what a frame may hold."""


def chunks(items: Sequence[T], size: int) -> Iterator[list[T]]:
    """The items in lists of at most `size`."""
    for start in range(0, len(items), size):
        yield list(items[start : start + size])


def series_per_call(series: Sequence[DailyCost]) -> int:
    """How many of these series fit in one call, at least 1, by the largest of them."""
    largest = max((_amounts(one) for one in series), default=1)
    return max(1, AMOUNTS_PER_CALL // max(1, largest))


def _amounts(series: DailyCost) -> int:
    return len(series.amounts) * (1 + sum(len(keys) for keys in series.parts.values()))
