"""The processes of one instance as the kernel lists them: the init of its pid namespace, and what serves below it."""

from __future__ import annotations

import os
from pathlib import Path


def family(pid: int) -> list[int]:
    """`pid` and all its descendants, parents first. The last is the one that answers calls."""
    below: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := _parent(int(entry))) is not None:
            below.setdefault(parent, []).append(int(entry))
    found = [pid]
    for each in found:  # grows while it is walked
        found += sorted(below.get(each, []))
    return found


def pin(pid: int, cpu: int) -> None:
    """Keep a process and all its descendants on one CPU."""
    for each in family(pid):
        os.sched_setaffinity(each, {cpu})


def private_bytes(pid: int) -> int:
    """What a process and its descendants hold for themselves alone."""
    return sum(map(_private_bytes, family(pid)))


def _private_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))


def _parent(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:  # it ended while we looked
        return None
    return int(stat.rpartition(")")[2].split()[1])
