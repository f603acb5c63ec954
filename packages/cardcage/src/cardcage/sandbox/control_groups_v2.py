"""Control groups of version 2: one hierarchy, whose controllers must be handed down from group to group.

The file names and units are those of the kernel's `admin-guide/cgroup-v2` document. A group that hands controllers down
may hold no processes itself, the root apart. So where this process is alone in a group that was delegated to it
(`systemd-run --user --scope -p Delegate=yes`), it moves into a group of its own beside its plugins'.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cardcage.sandbox.control_groups_v1 import CPU_PERIOD_US, beneath, cpu_quota_us
from cardcage.sandbox.group_folders import HOST_GROUP, KERNEL, GroupFiles, HostFolder, Reading, Write
from cardcage.sandbox.plan import ResourceLimits

NEEDED: Final = ("memory", "cpu", "pids")
_ASIDE: Final = re.compile(rf"/cardcage-[0-9a-f]{{12}}/{HOST_GROUP}$")


class LayoutV2:
    """The files of version 2."""

    version = "v2"
    entry = "cgroup.procs"
    kill = "cgroup.kill"
    usage: Mapping[str, Reading] = {
        "memory_bytes": Reading(controller="memory", file="memory.current"),
        "cpu_s": Reading(controller="cpu", file="cpu.stat", key="usage_usec", scale=1e-6),
        "processes": Reading(controller="pids", file="pids.current"),
    }
    hits: Mapping[str, Reading] = {
        "oom_kills": Reading(controller="memory", file="memory.events", key="oom_kill"),
        "process_refusals": Reading(controller="pids", file="pids.events", key="max"),
        "throttled_periods": Reading(controller="cpu", file="cpu.stat", key="nr_throttled"),
        "throttled_s": Reading(controller="cpu", file="cpu.stat", key="throttled_usec", scale=1e-6),
    }

    def writes(self, limits: ResourceLimits, own_processes: int) -> tuple[Write, ...]:
        """What is written to set `limits`."""
        found: list[Write] = []
        if limits.memory_bytes is not None:
            found.append(Write(controller="memory", file="memory.max", text=str(limits.memory_bytes)))
            found.append(Write(controller="memory", file="memory.swap.max", text="0", optional=True))
            # A plugin that lost one of its processes is in a state that nobody has tested.
            found.append(Write(controller="memory", file="memory.oom.group", text="1", optional=True))
        if limits.cpu_cores is not None:
            quota = f"{cpu_quota_us(limits.cpu_cores)} {CPU_PERIOD_US}"
            found.append(Write(controller="cpu", file="cpu.max", text=quota))
        if limits.processes is not None:
            found.append(Write(controller="pids", file="pids.max", text=str(limits.processes + own_processes)))
        return tuple(found)


def find_place(mounts: str, own_groups: str) -> Path | None:
    """The folder of the group that this process is in, or None where version 2 is not mounted or not shown here.

    For a process that has moved aside, or was started by one that has, it is the group that it came from.
    """
    own = next((line.split(":", 2)[2] for line in own_groups.splitlines() if line.startswith("0::")), None)
    own = _ASIDE.sub("", own) or "/" if own is not None else None
    for line in mounts.splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split(" ", 1)[0] == "cgroup2":
            root, mount_point = fields.split()[3:5]
            return beneath(root, Path(mount_point), own)
    return None


class DelegatedFolder(HostFolder):
    """This host's folder with the controllers handed down to it."""

    def __init__(self, base: Path, files: GroupFiles = KERNEL) -> None:
        """Make it. Raises `OSError` where this user may make no groups there."""
        super().__init__(base, files)
        self._base = base
        self._moved = False
        self._handed_down: tuple[str, ...] = ()
        self.controllers: frozenset[str] = frozenset()
        self.problem = ""
        try:
            self._hand_down()
        except OSError as error:
            self.problem = f"the controllers of its group cannot be handed down: {error.strerror}"

    def _hand_down(self) -> None:
        offered = self._words(self._base / "cgroup.controllers")
        wanted = tuple(name for name in NEEDED if name in offered)
        if not wanted:
            self.problem = "its group has none of the controllers memory, cpu and pids"
            return
        missing = tuple(name for name in wanted if name not in self._words(self._base / "cgroup.subtree_control"))
        if missing:
            self._enable_in_base(missing)
        self._files.write(self.path / "cgroup.subtree_control", _plus(wanted))
        self.controllers = frozenset(wanted)

    def _enable_in_base(self, missing: tuple[str, ...]) -> None:
        try:
            self._files.write(self._base / "cgroup.subtree_control", _plus(missing))
        except OSError as error:
            if error.errno != errno.EBUSY or not self._alone():
                raise
            self._move(self.path / HOST_GROUP)
            self._moved = True
            self._files.write(self._base / "cgroup.subtree_control", _plus(missing))
        self._handed_down = missing

    def _alone(self) -> bool:
        """Whether this process is the only one in its group: others are not ours to move."""
        return self._words(self._base / "cgroup.procs") == {str(os.getpid())}

    def _move(self, folder: Path) -> None:
        self._files.make(folder)
        self._files.write(folder / "cgroup.procs", str(os.getpid()))

    def _words(self, path: Path) -> set[str]:
        return set(self._files.read(path).decode("ascii").split())

    def close(self) -> None:
        """Move back where it had to move, and remove the folder."""
        if self._moved:
            try:
                # From below: a group cannot take back what one beneath it still hands on.
                self._files.write(self.path / "cgroup.subtree_control", _minus(tuple(self.controllers)))
                self._files.write(self._base / "cgroup.subtree_control", _minus(self._handed_down))
                self._files.write(self._base / "cgroup.procs", str(os.getpid()))
                self._moved = False
            except OSError:
                return  # another host's groups hang on the same controllers: it stays, and is swept when this one ends
        super().close()


def _plus(names: tuple[str, ...]) -> str:
    return " ".join(f"+{name}" for name in names)


def _minus(names: tuple[str, ...]) -> str:
    return " ".join(f"-{name}" for name in names)
