"""Which control groups this machine really lets this process use: found by making one, and putting limits on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cardcage.sandbox.control_groups import KEPT_MAX, GroupDriver
from cardcage.sandbox.control_groups_v1 import LayoutV1, find_places
from cardcage.sandbox.control_groups_v2 import DelegatedFolder, LayoutV2, find_place
from cardcage.sandbox.group_folders import FolderDriver, HostFolder, sweep
from cardcage.sandbox.plan import ResourceLimits

_USABLE: Final = "usable"
TRIAL: Final = ResourceLimits(memory_bytes=64 * 1024 * 1024, cpu_cores=0.5, processes=8)


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupsFound:
    """The driver for this machine, or why there is none, with a word on every hierarchy that was tried."""

    driver: GroupDriver | None
    tried: dict[str, str] = field(default_factory=dict[str, str])
    swept: int = 0
    """Groups that a host which is gone had left behind."""

    @property
    def why_not(self) -> str:
        """Why a limit is not kept by a group, in one phrase; nothing where all are."""
        missing = [name for name in KEPT_MAX if self.driver is None or name not in self.driver.keeps]
        reasons = dict.fromkeys(text.partition(" (")[0] for text in self.tried.values() if not text.startswith(_USABLE))
        return f"{', '.join(missing)}: {'; '.join(reasons) or 'not mounted'}" if missing else ""


def find_groups() -> GroupsFound:
    """The driver that keeps most limits here, version 2 where both do. Leaves nothing behind but its own folders.

    The driver must be closed.
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8")
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8")
    except OSError as error:
        return GroupsFound(driver=None, tried={"cgroups": error.strerror or "no /proc"})
    tried: dict[str, str] = {}
    swept = 0
    base = find_place(mounts, own)
    if base is not None:
        swept += _sweep(base)
        second = _open_v2(base, tried)
        if second is not None and second.keeps == frozenset(KEPT_MAX):
            return GroupsFound(driver=second, tried=tried, swept=swept)
        if second is not None:
            second.close()
    places = find_places(mounts, own)
    for place in dict.fromkeys(places.values()):
        swept += _sweep(place)
    return GroupsFound(driver=_open_v1(places, tried), tried=tried, swept=swept)


def _sweep(base: Path) -> int:
    try:
        return sweep(base)
    except OSError:
        return 0


def _open_v2(base: Path, tried: dict[str, str]) -> GroupDriver | None:
    try:
        folder = DelegatedFolder(base)
    except OSError as error:
        tried["v2"] = f"no group can be made: {error.strerror} ({base})"
        return None
    if not folder.controllers:
        tried["v2"] = f"{folder.problem} ({base})"
        folder.close()
        return None
    return _tested(FolderDriver(LayoutV2(), dict.fromkeys(folder.controllers, folder.path), (folder,)), "v2", tried)


def _open_v1(places: dict[str, Path], tried: dict[str, str]) -> GroupDriver | None:
    made: dict[Path, HostFolder] = {}
    hosts: dict[str, Path] = {}
    for controller, place in places.items():
        try:
            if place not in made:
                made[place] = HostFolder(place)
            hosts[controller] = made[place].path
        except OSError as error:
            tried[f"v1 {controller}"] = f"no group can be made: {error.strerror} ({place})"
    if not made:
        return None
    return _tested(FolderDriver(LayoutV1(), hosts, tuple(made.values())), "v1", tried)


def _tested(driver: FolderDriver, name: str, tried: dict[str, str]) -> GroupDriver | None:
    """The driver, where a group with every limit can be made; else nothing."""
    problem = ""
    try:
        driver.make("trial", TRIAL).remove()
    except OSError as error:
        problem = f"{error.filename or 'a limit'}: {error.strerror}"
    if problem:
        tried[name] = f"limits cannot be set: {problem}"
        driver.close()
        return None
    tried[name] = f"{_USABLE}: {', '.join(sorted(driver.keeps))}"
    return driver
