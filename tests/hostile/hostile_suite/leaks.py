"""What a host holds: counted before and after, so that what was left behind shows."""

from __future__ import annotations

import asyncio
import gc
import os
from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Counts of everything that a start makes and a stop must take away; memory in KiB."""

    processes: int
    descriptors: int
    server_descriptors: int
    sockets: int
    mounts: int
    namespaces: int
    control_groups: int
    files: int
    tasks: int
    memory_kib: int
    server_memory_kib: int

    def to_json(self) -> dict[str, int]:
        """The counts by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


GROWTH_ALLOWED_KIB = {"memory_kib": 24 * 1024, "server_memory_kib": 4 * 1024}
"""Memory is not given back to the last page; what leaks grows with the number of starts."""


def growth(before: Holdings, after: Holdings) -> dict[str, tuple[int, int]]:
    """What has grown beyond what is allowed: nothing, where nothing leaks."""
    then, now = before.to_json(), after.to_json()
    return {name: (then[name], now[name]) for name in then if now[name] > then[name] + GROWTH_ALLOWED_KIB.get(name, 0)}


def count(folder: Path) -> Holdings:
    """Count what this process, its fork server and the manager's `folder` hold, while no instance runs.

    What then came of this process is the fork server: the process that was started, and the one that forks.
    """
    gc.collect()
    servers = descendants(os.getpid())
    return Holdings(
        processes=len(servers),
        descriptors=len(_descriptors(os.getpid())),
        server_descriptors=sum(len(_descriptors(pid)) for pid in servers),
        sockets=sum(target.startswith("socket:") for pid in (os.getpid(), *servers) for target in _descriptors(pid)),
        mounts=sum(_lines(f"/proc/{pid}/mountinfo") for pid in (os.getpid(), *servers)),
        namespaces=len(_namespaces([os.getpid(), *servers])),
        control_groups=_groups(),
        # The audit log and the registry grow by what they record, each within bounds of its own.
        files=sum(1 for path in folder.rglob("*") if path.name != "registry.db" and "audit" not in path.parts),
        tasks=_tasks(),
        memory_kib=resident_kib(os.getpid()),
        server_memory_kib=sum(resident_kib(pid) for pid in servers),
    )


def descendants(pid: int) -> list[int]:
    """Every process that came of this one, zombies too."""
    parents: dict[int, list[int]] = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            text = Path(f"/proc/{name}/stat").read_text()
        except OSError:
            continue
        parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def _groups() -> int:
    """Folders of control groups, in every folder that this host holds locked."""
    held = {target for target in _descriptors(os.getpid()) if "/cardcage-" in target and os.path.isdir(target)}
    return sum(1 + sum(len(names) for _, names, _ in os.walk(folder)) for folder in held)


def _descriptors(pid: int) -> list[str]:
    found: list[str] = []
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return []
    for name in names:
        try:
            found.append(os.readlink(f"/proc/{pid}/fd/{name}"))
        except OSError:
            continue
    return found


def _namespaces(pids: list[int]) -> set[str]:
    found: set[str] = set()
    for pid in pids:
        try:
            found.update(os.readlink(f"/proc/{pid}/ns/{name}") for name in os.listdir(f"/proc/{pid}/ns"))
        except OSError:
            continue
    return found


def _lines(path: str) -> int:
    try:
        return len(Path(path).read_text().splitlines())
    except OSError:
        return 0


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:
        return 0


def resident_kib(pid: int | None = None) -> int:
    """Private memory where the kernel tells it, which what is shared with forks does not disturb."""
    for name, key in (("smaps_rollup", "Private_Dirty:"), ("status", "VmRSS:")):
        try:
            lines = Path(f"/proc/{pid or os.getpid()}/{name}").read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            if line.startswith(key):
                return int(line.split()[1])
    return 0
