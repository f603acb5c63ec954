"""Which control groups this process may divide further: found by making a group, setting its limit, removing it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_LIMITS_V1: Final = {
    "memory": ("memory.limit_in_bytes", str(1 << 30)),
    "pids": ("pids.max", "100"),
    "cpu": ("cpu.cfs_quota_us", "100000"),
    "cpuacct": ("", ""),
    "freezer": ("", ""),
    "blkio": ("", ""),
}
_LIMITS_V2: Final = {"memory": ("memory.max", str(1 << 30)), "pids": ("pids.max", "100"), "cpu": ("cpu.max", "max")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One controller as it is found here."""

    controller: str
    folder: Path
    usable: bool
    detail: str


def probe() -> tuple[Group, ...]:
    """Try every controller whose hierarchy is mounted."""
    own = _own_groups()
    found: list[Group] = []
    for controllers, folder in _hierarchies():
        place = folder / own.get(",".join(controllers), own.get("", "/")).lstrip("/")
        if controllers:
            found += [_probe_v1(name, place) for name in controllers if name in _LIMITS_V1]
        else:
            found += _probe_v2(place)
    return tuple(found)


def _own_groups() -> dict[str, str]:
    """This process's group in each hierarchy; the v2 one has no name."""
    lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    return {names: path for _, names, path in (line.split(":", 2) for line in lines)}


def _hierarchies() -> Iterable[tuple[tuple[str, ...], Path]]:
    """Controllers and mount point of each hierarchy; the v2 one has no controllers of its own."""
    for line in Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines():
        _, folder, kind, options, *_ = line.split()
        if kind == "cgroup2":
            yield (), Path(folder)
        elif kind == "cgroup":
            yield tuple(name for name in options.split(",") if name in _LIMITS_V1), Path(folder)


def _probe_v1(controller: str, place: Path) -> Group:
    problem = _try_group(place, *_LIMITS_V1[controller])
    return _group(controller, place, problem, "v1")


def _probe_v2(place: Path) -> list[Group]:
    try:
        offered = (place / "cgroup.subtree_control").read_text(encoding="utf-8").split()
    except OSError as error:
        return [_group("unified", place, str(error.strerror), "v2")]
    found = [_group("unified", place, _try_group(place, "", ""), "v2")]
    return found + [_group(n, place, _try_group(place, *_LIMITS_V2[n]), "v2") for n in offered if n in _LIMITS_V2]


def _group(controller: str, place: Path, problem: str, version: str) -> Group:
    detail = f"{version}, usable" if not problem else f"{version}, {problem}"
    return Group(controller=controller, folder=place, usable=not problem, detail=detail)


def _try_group(place: Path, limit: str, value: str) -> str:
    """Why no group can be made here, or nothing where one can."""
    group = place / f"cardcage-probe-{secrets.token_hex(4)}"
    try:
        group.mkdir()
    except OSError as error:
        return f"no group can be made: {error.strerror}"
    try:
        if limit:
            (group / limit).write_text(value, encoding="ascii")
    except OSError as error:
        return f"{limit} cannot be set: {error.strerror}"
    finally:
        os.rmdir(group)
    return ""
