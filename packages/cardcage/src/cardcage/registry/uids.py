"""Which user ids instances may get where the host runs as root.

Every instance gets an id of its own, so that one that broke out of its namespaces would still meet the file permissions
of a stranger. Ids are never given twice, even after an instance is removed: files in its data folder may outlive it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from cardcage.foundation.errors import Misuse


@dataclass(frozen=True, slots=True, kw_only=True)
class UidRange:
    """`count` user ids from `base` on."""

    base: int
    count: int

    def __contains__(self, uid: object) -> bool:
        return isinstance(uid, int) and self.base <= uid < self.base + self.count

    def __str__(self) -> str:
        return f"{self.base}-{self.base + self.count - 1}"


DEFAULT_UID_RANGE: Final = UidRange(base=2_100_000_000, count=1_000_000)
"""Clear of people and services (below 65,536), of systemd's dynamic and container ranges (to 1,879,048,191) and its
foreign range (from 2,147,352,576), of subordinate ids as distributions hand them out (100,000 to 600,100,000), of the
ids that SSSD and FreeIPA derive for directory users (to 2,000,200,000), and below 2**31, where some tools still count
with a sign."""


NOBODY: Final = 65_534
"""Whom the kernel shows where an id has no name; nobody's files are anybody's."""

USEFUL_COUNT: Final = 1024
"""Where fewer ids are mapped there is no room for instances beside the users that are there."""


def choose_uid_range(mapped: Sequence[UidRange], wanted: UidRange = DEFAULT_UID_RANGE) -> UidRange:
    """`wanted` where this machine can use it; otherwise the upper half of the largest range that it can.

    A host in a container has only the ids that its user namespace maps (`mapped`, as in /proc/self/uid_map), often
    65,536 of them. The upper half keeps clear of the container's own users. Where there is no room at all the answer is
    `wanted` too: a start as another user fails then, and says why.
    """
    if any(wanted.base in each and wanted.base + wanted.count - 1 in each for each in mapped):
        return wanted
    largest = max(mapped, key=lambda each: each.count, default=None)
    if largest is None or largest.count < USEFUL_COUNT:
        return wanted
    base, end = largest.base + largest.count // 2, largest.base + largest.count
    return UidRange(base=base, count=(NOBODY if base <= NOBODY < end else end) - base)


def parse_uid_map(text: str) -> tuple[UidRange, ...]:
    """The ranges that a /proc/self/uid_map of this text makes usable."""
    rows = (line.split() for line in text.splitlines() if line.strip())
    return tuple(UidRange(base=int(row[0]), count=int(row[2])) for row in rows)


def next_uid(allowed: UidRange, highest_given: int | None) -> int:
    """The id after the highest that was given in this range. Raises `Misuse` once the range is used up."""
    uid = allowed.base if highest_given is None else highest_given + 1
    if uid not in allowed:
        raise Misuse(
            f"no user id is left for a new instance: all of {allowed} were given, and none is given twice",
            code="uids_exhausted",
            hint="configure a larger range",
        )
    return uid
