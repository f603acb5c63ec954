"""Control groups of version 1: a hierarchy for each controller, found where it is mounted.

The file names and units are those of the kernel's `admin-guide/cgroup-v1` documents. A process enters by `tasks`, one
thread at a time: `cgroup.procs` would first wait until no thread of the whole machine is just being made.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cardcage.sandbox.group_folders import Reading, Write
from cardcage.sandbox.plan import ResourceLimits

CPU_PERIOD_US: Final = 100_000
CPU_QUOTA_US_MIN: Final = 1_000
"""The kernel takes no less."""

NEEDED: Final = ("memory", "cpu", "pids", "cpuacct")
"""The hierarchies in which a group is made; `cpuacct` counts what `cpu` bounds."""


def cpu_quota_us(cores: float) -> int:
    """The CPU time in each period that amounts to `cores`."""
    return max(CPU_QUOTA_US_MIN, round(cores * CPU_PERIOD_US))


class LayoutV1:
    """The files of version 1."""

    version = "v1"
    entry = "tasks"
    kill = ""
    usage: Mapping[str, Reading] = {
        "memory_bytes": Reading(controller="memory", file="memory.usage_in_bytes"),
        "cpu_s": Reading(controller="cpuacct", file="cpuacct.usage", scale=1e-9),
        "processes": Reading(controller="pids", file="pids.current"),
    }
    hits: Mapping[str, Reading] = {
        # Not `memory.failcnt`, which also counts every time that cached files were given back in time.
        "oom_kills": Reading(controller="memory", file="memory.oom_control", key="oom_kill"),
        "process_refusals": Reading(controller="pids", file="pids.events", key="max"),
        "throttled_periods": Reading(controller="cpu", file="cpu.stat", key="nr_throttled"),
        "throttled_s": Reading(controller="cpu", file="cpu.stat", key="throttled_time", scale=1e-9),
    }

    def writes(self, limits: ResourceLimits, own_processes: int) -> tuple[Write, ...]:
        """What is written to set `limits`."""
        found: list[Write] = []
        if limits.memory_bytes is not None:
            memory = str(limits.memory_bytes)
            found.append(Write(controller="memory", file="memory.limit_in_bytes", text=memory))
            # Memory and swap together: without it a group at its limit goes on in swap.
            found.append(Write(controller="memory", file="memory.memsw.limit_in_bytes", text=memory, optional=True))
        if limits.cpu_cores is not None:
            found.append(Write(controller="cpu", file="cpu.cfs_period_us", text=str(CPU_PERIOD_US)))
            found.append(Write(controller="cpu", file="cpu.cfs_quota_us", text=str(cpu_quota_us(limits.cpu_cores))))
        if limits.processes is not None:
            found.append(Write(controller="pids", file="pids.max", text=str(limits.processes + own_processes)))
        return tuple(found)


def find_places(mounts: str, own_groups: str) -> dict[str, Path]:
    """For each controller the folder of the group that this process is in.

    `mounts` is `/proc/self/mountinfo`, `own_groups` is `/proc/self/cgroup`. A hierarchy that is mounted without the
    part in which this process is (a container that shows another) is left out.
    """
    own: dict[str, str] = {}
    for line in own_groups.splitlines():
        _, names, path = line.split(":", 2)
        own |= dict.fromkeys(names.split(","), path)
    places: dict[str, Path] = {}
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind != "cgroup":
            continue
        root, mount_point = fields.split()[3:5]
        for name in options.split(","):
            place = beneath(root, Path(mount_point), own.get(name)) if name in NEEDED else None
            if place is not None:
                places.setdefault(name, place)
    return places


def beneath(root: str, mount_point: Path, group: str | None) -> Path | None:
    """Where `group` is seen in a mount that shows the hierarchy from `root` on; None where it is not."""
    if group is None or ".." in group.split("/"):
        return None
    if root != "/" and group == root:
        return mount_point
    inside = group.removeprefix(root if root == "/" else f"{root}/")
    if root != "/" and inside == group:
        # Inside a control group namespace paths begin at its root, which is what is mounted.
        return mount_point / group.lstrip("/") if group == "/" else None
    return mount_point / inside.lstrip("/")
