"""What a process and all that came of it use, read from `/proc`: for machines on which no control group can be made.

Memory means here: private memory, shared memory, memory files and the tmpfs folders. The first look is a cheap sum that
counts shared pages for each process anew; only where it is over the limit a second one asks the kernel for each
process's proportional share. What a process keeps from being looked at stays counted by the first.

Its gaps, because of which it is called best-effort: memory between two looks; memory files that are neither mapped nor
open by number, such as those in flight over a socket; CPU time of children whose parent does not wait for them.
"""

from __future__ import annotations

import os
import signal
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cardcage.sandbox.control_groups import GroupUsage
from cardcage.sandbox.plan import SHM_DIR, TEMP_DIR

_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_SIGNAL_ROUNDS_MAX: Final = 4
_READ_BYTES: Final = 65536
_STATE, _CHILDREN_USER, _CHILDREN_SYSTEM, _THREADS = 0, 13, 14, 17
_USER, _SYSTEM = 11, 12
_RESIDENT: Final = (b"RssAnon:", b"RssShmem:")
_TMPFS_MAJOR: Final = 0
"""Memory files and tmpfs have no device; neither have some file systems on disks."""


class ProcessTree:
    """The processes that came of one. `own_processes` of them wall the plugin in, and are not counted as its own."""

    def __init__(self, root: int, *, own_processes: int = 0) -> None:
        self._root = root
        self._own_processes = own_processes
        self._clocks: dict[int, int] = {}
        self._cpu_s = 0.0
        self._activity = 0
        self.hidden_bytes = 0
        """What `look_for_hidden` found last."""
        self.unreadable: dict[int, int] = {}
        """Processes that did not let their open files be looked at, with how often in a row."""

    def members(self) -> list[int]:
        """Every process of it, the root first."""
        found = [self._root]
        for pid in found:  # grows while it is gone through
            found += _children(pid)
        return found

    def activity(self) -> int:
        """A number that changes whenever any of it runs: what has not run has taken nothing. About 1 us a process."""
        now = self._sum_clocks()
        if now < 0 or now != self._activity or not self._clocks:
            # Only what runs can have started others.
            self._clocks = {pid: _cpu_clock(pid) for pid in self.members()}
            self._activity = self._sum_clocks()
        return self._activity

    def _sum_clocks(self) -> int:
        total = 0
        for clock in self._clocks.values():
            try:
                total += time.clock_gettime_ns(clock)
            except OSError:
                return -1
        return total

    def usage(self) -> GroupUsage:
        """What all of it uses; about 60 us a process."""
        memory, cpu_s, threads = self.hidden_bytes, 0.0, 0
        for pid in self.members():
            fields = _stat(pid)
            if not fields:
                continue
            cpu_s += _own_cpu_s(pid, fields)
            cpu_s += (int(fields[_CHILDREN_USER]) + int(fields[_CHILDREN_SYSTEM])) * _TICK_S
            memory += _sum_kib(f"/proc/{pid}/status", _RESIDENT)
            threads += int(fields[_THREADS])
        self._cpu_s = max(self._cpu_s, cpu_s)
        return GroupUsage(memory_bytes=memory, cpu_s=self._cpu_s, processes=max(0, threads - self._own_processes))

    def look_for_hidden(self) -> int:
        """Memory that is no process's: open memory files that are not mapped, and the tmpfs folders."""
        files: dict[tuple[int, int], int] = {}
        folders: dict[int, int] = {}
        members = self.members()
        self.unreadable = {pid: self.unreadable.get(pid, 0) + 1 for pid in members[1:] if not _readable(pid)}
        for pid in members:
            for place in (TEMP_DIR, SHM_DIR):
                _add_tmpfs(Path(f"/proc/{pid}/root{place}"), folders)
            for path, found in _deleted_files(pid):
                if os.major(found.st_dev) == _TMPFS_MAJOR and _is_memory_file(path):
                    files[found.st_dev, found.st_ino] = found.st_blocks * 512
        self.hidden_bytes = sum(files.values()) + sum(folders.values())
        return self.hidden_bytes

    def exact_bytes(self) -> int:
        """Memory with each shared page counted once, but for processes that do not let themselves be looked at."""
        private = shared = 0
        for pid in self.members():
            path = f"/proc/{pid}/smaps_rollup"
            try:
                private += _sum_kib(path, (b"Pss_Anon:",), strict=True)
                shared += _sum_kib(path, (b"Pss_Shmem:",), strict=True)
            except ProcessLookupError:
                continue
            except OSError:
                private += _sum_kib(f"/proc/{pid}/status", _RESIDENT)
        return private + max(shared, self.look_for_hidden())

    def deleted_bytes(self, device: int) -> int:
        """What open files on that device take up that no folder lists any more."""
        files: dict[int, int] = {}
        for pid in self.members():
            for _, found in _deleted_files(pid):
                if found.st_dev == device:
                    files[found.st_ino] = found.st_blocks * 512
        return sum(files.values())

    def hold(self) -> None:
        """Stop every process of the plugin, those too that are forked meanwhile."""
        held: set[int] = set()
        for _ in range(_SIGNAL_ROUNDS_MAX):
            running = [pid for pid in self.members() if pid not in held or _runs(pid)]
            if not running:
                return
            for pid in running:
                self._signal(pid, signal.SIGSTOP)
                held.add(pid)

    def let_go(self) -> None:
        """Let every process of the plugin go on."""
        for pid in self.members():
            self._signal(pid, signal.SIGCONT)

    def _signal(self, pid: int, number: signal.Signals) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return
        try:
            # Held by now; where it is still one of ours, the number has not passed to somebody else in between.
            if pid in self.members():
                signal.pidfd_send_signal(pidfd, number)
        except OSError:
            pass  # it has ended
        finally:
            os.close(pidfd)


def _cpu_clock(pid: int) -> int:
    """The kernel's number for the clock of a process's CPU time (`MAKE_PROCESS_CPUCLOCK` with `CPUCLOCK_SCHED`)."""
    return (~pid << 3) | 2


def _own_cpu_s(pid: int, fields: list[bytes]) -> float:
    try:
        return time.clock_gettime(_cpu_clock(pid))
    except OSError:
        return (int(fields[_USER]) + int(fields[_SYSTEM])) * _TICK_S


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        content = os.read(descriptor, _READ_BYTES)
        # A list of children comes a page at a time: whoever is on the second must be counted like all others.
        while content and (more := os.read(descriptor, _READ_BYTES)):
            content += more
        return content
    finally:
        os.close(descriptor)


def _stat(pid: int) -> list[bytes]:
    """The fields of `/proc/PID/stat` from the state on (names may hold brackets); empty where it has ended."""
    try:
        return _read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except OSError:
        return []


def _runs(pid: int) -> bool:
    fields = _stat(pid)
    return bool(fields) and fields[_STATE] not in (b"T", b"Z", b"X")


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
        except OSError:
            continue
    return found


def _sum_kib(path: str, names: tuple[bytes, ...], *, strict: bool = False) -> int:
    """The sum of the named lines of a file of `NAME: COUNT kB` lines, in bytes."""
    try:
        content = _read(path)
    except OSError:
        if strict:
            raise
        return 0
    return sum(int(line.split()[1]) * 1024 for line in content.splitlines() if line.startswith(names))


def _deleted_files(pid: int) -> Iterator[tuple[str, os.stat_result]]:
    """The open files of a process that have no name any more, or never had one."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return
    for name in names:
        path = f"/proc/{pid}/fd/{name}"
        try:
            found = os.stat(path)
        except OSError:
            continue
        if found.st_nlink == 0 and stat.S_ISREG(found.st_mode):
            yield path, found


def _readable(pid: int) -> bool:
    try:
        os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return False
    except OSError:
        return True  # it has ended
    return True


def _is_memory_file(path: str) -> bool:
    try:
        return os.readlink(path).startswith("/memfd:")
    except OSError:
        return False


def _add_tmpfs(folder: Path, folders: dict[int, int]) -> None:
    """What the tmpfs at `folder` holds, by its device; nothing for a folder of the host's."""
    try:
        device, size = os.stat(folder).st_dev, os.statvfs(folder)
    except OSError:
        return
    if os.major(device) == _TMPFS_MAJOR and device != _HOST_DEVICES.get(folder.name):
        folders[device] = (size.f_blocks - size.f_bfree) * size.f_frsize


def _device_of(path: str) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


_HOST_DEVICES: Final = {Path(place).name: _device_of(place) for place in (TEMP_DIR, SHM_DIR)}
