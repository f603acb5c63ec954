"""Control groups as folders and files: what both versions of the kernel's interface have in common.

Each host has one folder of its own in each hierarchy, and holds a lock on it (`flock`) which the kernel drops when the
host ends, however that comes. Whoever can take the lock of such a folder knows that its host is gone, and removes it:
that holds across containers too, where a process number would mean another process.
"""

from __future__ import annotations

import fcntl
import os
import re
import resource
import secrets
import select
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

from cardcage.sandbox.control_groups import KEPT_MAX, GroupUsage, LimitHits
from cardcage.sandbox.plan import ResourceLimits

HOST_GROUP: Final = "host"
"""Where a host of version 2 moves to, and with it whatever its program starts besides plugins."""

_OURS: Final = re.compile("cardcage-[0-9a-f]{12}")
"""A host's folder. Nothing that merely begins so, such as a service's or a container's own group, is ever swept."""

_SWEPT_FOLDERS_MAX: Final = 2000
"""Where to leave off looking for abandoned ones: a machine of thousands of groups has somebody else to tidy up."""

_KILL_ROUNDS_MAX: Final = 100
_KILL_PATIENCE_MS: Final = 100
_OPEN_SHARE: Final = 4
"""Of the descriptors that the host may open, one in so many is used to keep usage files open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """A limit: the controller that keeps it, its file, and what is written there."""

    controller: str
    file: str
    text: str
    optional: bool = False
    """Left out where this kernel has no such file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A number in a file: the whole of it, or the one behind `key`; `scale` turns it into our unit."""

    controller: str
    file: str
    key: str = ""
    scale: float = 1

    def read(self, content: bytes) -> float:
        """The number, or 0 where it is not there."""
        words = content.split()
        if not self.key:
            return int(words[0]) * self.scale if words and words[0].isdigit() else 0
        key = self.key.encode()
        return next((int(value) * self.scale for name, value in pairwise(words) if name == key), 0)


class Layout(Protocol):
    """The file names and formats of one version."""

    version: str
    entry: str
    """The file that a process writes itself into."""
    usage: Mapping[str, Reading]
    """By the fields of `GroupUsage`."""
    hits: Mapping[str, Reading]
    """By the fields of `LimitHits`."""
    kill: str
    """The file that ends everything in a group, or nothing where there is none."""

    def writes(self, limits: ResourceLimits, own_processes: int) -> tuple[Write, ...]:
        """What is written to set `limits`."""
        ...


class GroupFiles:
    """The file operations on groups, apart so that a plain folder can stand in for the kernel's."""

    def make(self, folder: Path) -> None:
        os.mkdir(folder, 0o755)

    def remove(self, folder: Path) -> None:
        os.rmdir(folder)

    def read(self, path: Path) -> bytes:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 65536)
        finally:
            os.close(descriptor)

    def write(self, path: Path, text: str) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
        try:
            os.write(descriptor, text.encode("ascii"))
        finally:
            os.close(descriptor)


KERNEL: Final = GroupFiles()


class HostFolder:
    """This host's folder in one hierarchy, beneath the group that the host itself is in."""

    def __init__(self, base: Path, files: GroupFiles = KERNEL) -> None:
        """Make it. Raises `OSError` where this user may make no groups there."""
        self._files = files
        self.lock = -1
        while self.lock < 0:
            self.path = base / f"cardcage-{secrets.token_hex(6)}"
            files.make(self.path)
            # Another host that sweeps may see the folder before it is locked, and take it for an abandoned one.
            self.lock = _lock(self.path)

    def close(self) -> None:
        """Remove it with whatever is left in it."""
        if self.lock >= 0:
            remove_tree(self.path, self._files)
            os.close(self.lock)
            self.lock = -1


def sweep(base: Path, files: GroupFiles = KERNEL) -> int:
    """Remove the folders of hosts that are gone, in the whole hierarchy that `base` is in; returns how many.

    A host is seldom started again in the very group that it died in. Those of living hosts are locked, and stay.
    """
    removed, seen = 0, 0
    for folder, names, _ in os.walk(_top(base)):
        seen += len(names)
        for name in [name for name in names if _OURS.fullmatch(name)]:
            names.remove(name)  # what is in it is its host's
            path = Path(folder, name)
            lock = _lock(path)
            if lock >= 0:
                removed += remove_tree(path, files)
                os.close(lock)
        if seen > _SWEPT_FOLDERS_MAX:
            break
    return removed


def _top(base: Path) -> Path:
    """Where the hierarchy of a group is mounted; the group itself where it is no part of one."""
    return next((folder for folder in (base, *base.parents[:-1]) if os.path.ismount(folder)), base)


def _lock(folder: Path) -> int:
    """A descriptor that holds the folder's lock, or -1 where another host has it or the folder is gone."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), os.stat(folder)):
            return descriptor
    except OSError:
        pass
    os.close(descriptor)
    return -1


def remove_tree(folder: Path, files: GroupFiles = KERNEL) -> bool:
    """End what runs in a group and its children, and remove them; False where something would not go."""
    try:
        children = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return True
    if False in {remove_tree(child, files) for child in children}:
        return False
    try:
        files.remove(folder)
    except FileNotFoundError:
        return True
    except OSError:
        if folder.name == HOST_GROUP:
            return False  # what the program beside us started, which is not ours to end
        kill_members(folder, files)
        try:
            files.remove(folder)
        except OSError:
            return False
    return True


def kill_members(folder: Path, files: GroupFiles = KERNEL) -> None:
    """End every process of a group that has no `cgroup.kill`.

    New processes are forbidden first, or one that forks fast enough would outrun this; a frozen group, which is the
    usual way to hold still what is to be killed, would not die before it is thawed.
    """
    try:
        files.write(folder / "pids.max", "0")
    except OSError:
        pass  # not the hierarchy of that controller
    for _ in range(_KILL_ROUNDS_MAX):
        members = _members(folder, files)
        if not members:
            return
        for pid in members:
            _kill_member(pid, folder, files)


def _members(folder: Path, files: GroupFiles) -> list[int]:
    try:
        return [int(line) for line in files.read(folder / "cgroup.procs").split() if line != b"0"]
    except OSError:
        return []


def _kill_member(pid: int, folder: Path, files: GroupFiles) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        # Held by now; where it is still a member, the number has not passed to somebody else in between.
        if pid in _members(folder, files):
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            end = select.poll()
            end.register(pidfd, select.POLLIN)
            end.poll(_KILL_PATIENCE_MS)
    except OSError:
        pass  # ended by itself
    finally:
        os.close(pidfd)


class FolderGroup:
    """One instance's group: a folder in each hierarchy."""

    def __init__(self, name: str, places: Mapping[str, Path], layout: Layout, files: GroupFiles) -> None:
        """`places` gives each controller the folder in which this group is made."""
        self._layout = layout
        self._files = files
        self._folders = {controller: place / name for controller, place in places.items()}
        self.keeps = frozenset(places) & set(KEPT_MAX)
        self._unique = tuple(dict.fromkeys(self._folders.values()))
        self._own_processes = 0
        self.entries: tuple[int, ...] = ()
        self._open: dict[str, int] = {}
        self._refusals = 0
        self.refused_at_s: float | None = None

    def make(self, limits: ResourceLimits, own_processes: int, *, keep_open: bool) -> None:
        """Make the folders, set the limits, open the files."""
        self._own_processes = own_processes
        try:
            for folder in self._unique:
                self._files.make(folder)
            for write in self._layout.writes(limits, own_processes):
                self._write(write)
            entries = (os.open(folder / self._layout.entry, os.O_WRONLY | os.O_CLOEXEC) for folder in self._unique)
            for entry in entries:
                self.entries = (*self.entries, entry)
            if keep_open:
                for name, path in self._paths(self._layout.usage):
                    self._open[name] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except BaseException:
            self.remove()
            raise

    def _write(self, write: Write) -> None:
        folder = self._folders.get(write.controller)
        if folder is None:
            return
        try:
            self._files.write(folder / write.file, write.text)
        except FileNotFoundError:
            if not write.optional:
                raise

    def _paths(self, readings: Mapping[str, Reading]) -> list[tuple[str, Path]]:
        return [
            (name, self._folders[reading.controller] / reading.file)
            for name, reading in readings.items()
            if reading.controller in self._folders
        ]

    def close_entries(self) -> None:
        """Let nobody else in."""
        for entry in self.entries:
            os.close(entry)
        self.entries = ()

    def usage(self) -> GroupUsage:
        """What it uses now."""
        found: dict[str, float] = {}
        for name, path in self._paths(self._layout.usage) if not self._open else ():
            content = self._content(path)
            if content:
                found[name] = self._layout.usage[name].read(content)
        for name, descriptor in self._open.items():
            try:
                found[name] = self._layout.usage[name].read(os.pread(descriptor, 4096, 0))
            except OSError:
                continue  # the group is gone
        processes = found.get("processes")
        return GroupUsage(
            memory_bytes=int(found["memory_bytes"]) if "memory_bytes" in found else None,
            cpu_s=found.get("cpu_s"),
            processes=None if processes is None else max(0, int(processes) - self._own_processes),
        )

    def activity(self) -> float | None:
        """A number that changes whenever any of it runs."""
        descriptor = self._open.get("cpu_s")
        if descriptor is None:
            return self.usage().cpu_s
        try:
            return self._layout.usage["cpu_s"].read(os.pread(descriptor, 4096, 0))
        except OSError:
            return None  # the group is gone

    def hits(self) -> LimitHits:
        """What it ran into."""
        read: dict[Path, bytes] = {}
        found: dict[str, float] = {}
        for name, path in self._paths(self._layout.hits):
            if path not in read:
                read[path] = self._content(path)
            found[name] = self._layout.hits[name].read(read[path])
        refusals = int(found.get("process_refusals", 0))
        if refusals > self._refusals:
            self._refusals, self.refused_at_s = refusals, time.monotonic()
        return LimitHits(
            oom_kills=int(found.get("oom_kills", 0)),
            process_refusals=refusals,
            throttled_periods=int(found.get("throttled_periods", 0)),
            throttled_s=found.get("throttled_s", 0.0),
        )

    def _content(self, path: Path) -> bytes:
        try:
            return self._files.read(path)
        except OSError:
            return b""

    def kill(self) -> None:
        """End every process in it."""
        for folder in self._unique:
            if self._layout.kill:
                try:
                    self._files.write(folder / self._layout.kill, "1")
                    continue
                except OSError:
                    pass  # older than Linux 5.14, or gone
            kill_members(folder, self._files)

    def remove(self) -> bool:
        """Take it away; False where something would not go yet."""
        self.close_entries()
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open = {}
        # Each folder is tried, also where one before it would not go.
        return {remove_tree(folder, self._files) for folder in self._unique} <= {True}


class FolderDriver:
    """Makes groups in this host's folders."""

    def __init__(
        self, layout: Layout, places: Mapping[str, Path], folders: tuple[HostFolder, ...], files: GroupFiles = KERNEL
    ) -> None:
        """`places` gives each controller this host's folder in its hierarchy, all of them among `folders`."""
        self.version = layout.version
        self.keeps = frozenset(places) & set(KEPT_MAX)
        self._layout = layout
        self._places = dict(places)
        self.folders = tuple(folder.path for folder in folders)
        self._hosts = folders
        self._files = files
        self._last_number = 0
        self._stubborn: list[FolderGroup] = []
        self._kept_open = 0
        self._live: set[_Counted] = set()

    def make(self, instance: str, limits: ResourceLimits, *, own_processes: int = 0) -> _Counted:
        """A group with these limits."""
        self._stubborn = [group for group in self._stubborn if not group.remove()]
        self._last_number += 1
        readable = re.sub(r"[^A-Za-z0-9_.-]", "@", instance)[:80]
        keep_open = (len(self._live) + 1) * len(self._layout.usage) * _OPEN_SHARE < _open_files_max()
        group = _Counted(self, f"{self._last_number}-{readable}", self._places, self._layout, self._files)
        group.make(limits, own_processes, keep_open=keep_open)
        self._live.add(group)
        return group

    def forget(self, group: _Counted, *, gone: bool) -> None:
        """A group was removed, or (`gone` is False) is to be removed with the next one that is made."""
        if group in self._live:
            self._live.discard(group)
            if not gone:
                self._stubborn.append(group)

    def close(self) -> None:
        """End and remove every group that is left, and this host's folders."""
        for group in tuple(self._live):
            group.kill()
            group.remove()
        for folder in self._hosts:
            folder.close()


class _Counted(FolderGroup):
    """A group that tells its driver when it is gone."""

    def __init__(
        self, driver: FolderDriver, name: str, places: Mapping[str, Path], layout: Layout, files: GroupFiles
    ) -> None:
        super().__init__(name, places, layout, files)
        self._driver = driver

    def remove(self) -> bool:
        gone = super().remove()
        self._driver.forget(self, gone=gone)
        return gone


def _open_files_max() -> float:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return float("inf") if soft == resource.RLIM_INFINITY else soft
