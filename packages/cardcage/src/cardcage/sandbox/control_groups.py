"""The port to the kernel's control groups: one group for each instance, with its limits, its use and what it ran into.

A driver is made for what this machine has (`group_search`); one contract suite (`tests/contract/test_group_drivers.py`)
holds every driver to what is said here. Memory means all that the kernel charges to the group: what its processes have
written to, shared memory, memory files, its tmpfs folders, the kernel's own records of it, and files that are cached
for it, which are given back before anybody is killed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cardcage.sandbox.plan import ResourceLimits

KEPT_MAX: Final = ("memory", "cpu", "pids")
"""The controllers that keep a limit, as both versions of the kernel's interface call them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupUsage:
    """What a group uses now, and has used of CPU time since it was made; None where no controller counts it."""

    memory_bytes: int | None = None
    cpu_s: float | None = None
    processes: int | None = None
    """Processes and threads of the plugin; what was started to wall it in is not among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitHits:
    """What a group ran into since it was made."""

    oom_kills: int = 0
    process_refusals: int = 0
    """Forks and new threads that were refused."""
    throttled_periods: int = 0
    throttled_s: float = 0.0


class ControlGroup(Protocol):
    """The group of one instance. Nothing of it is inherited: it belongs to the host that made it."""

    keeps: frozenset[str]
    """Which of `KEPT_MAX` keep their limit in it."""

    refused_at_s: float | None
    """When `hits` last found that more processes had been refused (`time.monotonic`); None where it never did."""

    @property
    def entries(self) -> tuple[int, ...]:
        """Descriptors: a process of one thread that writes `0` to each of them is in the group from then on."""
        ...

    def close_entries(self) -> None:
        """Let nobody else in: to be called once the first process is inside."""
        ...

    def usage(self) -> GroupUsage:
        """What it uses. A few microseconds; an ended group uses nothing."""
        ...

    def activity(self) -> float | None:
        """A number that changes whenever any of it runs: a single read. None where no controller counts CPU time."""
        ...

    def hits(self) -> LimitHits:
        """What it ran into. Still to be had after its last process has ended, until it is removed."""
        ...

    def kill(self) -> None:
        """End every process in it, those that are being forked too. Harmless where none is left."""
        ...

    def remove(self) -> bool:
        """Take the group away, ending what is left in it. Harmless twice; no descriptor stays open.

        False where the kernel holds on to it; its driver then tries again with the next group that it makes.
        """
        ...


class GroupDriver(Protocol):
    """Makes groups beneath a folder of this host's own, which other hosts leave alone for as long as it lives."""

    version: str
    keeps: frozenset[str]
    """Which of `KEPT_MAX` keep their limit here."""

    folders: tuple[Path, ...]
    """This host's own folder in each hierarchy."""

    def make(self, instance: str, limits: ResourceLimits, *, own_processes: int = 0) -> ControlGroup:
        """A group with these limits; `own_processes` more are allowed and not counted, for who walls the plugin in.

        Raises `OSError` where it cannot be made; nothing is left then.
        """
        ...

    def close(self) -> None:
        """End and remove every group that is left, and this host's folder."""
        ...
