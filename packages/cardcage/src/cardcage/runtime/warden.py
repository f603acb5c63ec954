"""Looks after the limits that no single system call keeps: one task of the host for all instances.

Where control groups keep memory, CPU and processes, it only looks now and then whether a group ran into one of them.
Where there are none it samples: a plugin over its memory is ended, one over its share of the processor is stopped and
continued. Data folders are measured in either case. An instance that has not run since the last look has taken nothing
more, so that idle ones cost next to nothing; and all looks together are spaced so as to take a hundredth of a core.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from cardcage.foundation.sizes import size_text
from cardcage.launch.runner import Exit, ExitReason, Process
from cardcage.runtime.rota import Rota
from cardcage.sandbox.control_groups import GroupUsage, LimitHits
from cardcage.sandbox.disk_use import DiskUse, measure
from cardcage.sandbox.plan import ResourceLimits
from cardcage.sandbox.process_tree import ProcessTree
from cardcage.sandbox.report import Layer, LayerName, LayerStatus
from cardcage.supervise.pacing import Pace

SAMPLE_S: Final = 0.02
"""Between two looks at an instance that runs, where there are no control groups: at 2 GB/s, 40 MB."""
IDLE_S: Final = 0.1
"""The same for one that did not run since the last look."""
HIDDEN_S: Final = 0.1
"""Between two looks for memory that belongs to no process."""
HITS_S: Final = 1.0
DISK_S: Final = 0.25
"""Between two measurements of the data folder of an instance that runs: what it can write in this time is the most by
which it can be over its limit."""
_COST_SHARE: Final = 100
"""A look that took t seconds of CPU time is not repeated before this many times t have passed."""
_CORES: Final = os.cpu_count() or 1
_UNREADABLE_LOOKS_MAX: Final = 5
"""A process that is just being made is unreadable for a moment."""
_FILES_MAX: Final = 1_000_000
"""Where to give up counting the files of who has no limit of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """A limit that an instance was ended for: its name in the manifest, and what was found."""

    limit: str
    reason: ExitReason
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceUsage:
    """What an instance uses now and has run into, beside what it may use; None where it is not known or not limited."""

    memory_bytes: int | None
    cpu_s: float | None
    processes: int | None
    disk_bytes: int | None
    files: int | None
    hits: LimitHits
    limits: ResourceLimits


@dataclass(slots=True, eq=False)
class Watch:
    """One process that is looked after. `breach` says what it was ended for, once it was."""

    process: Process
    limits: ResourceLimits
    data_dir: Path
    on_breach: Callable[[Breach], None]
    on_hit: Callable[[str], None]
    tree: ProcessTree
    breach: Breach | None = None
    hits: LimitHits = field(default_factory=LimitHits)
    disk: DiskUse | None = None
    sample_at_s: float = 0.0
    hidden_at_s: float = 0.0
    hits_at_s: float = 0.0
    ended: bool = False
    sample_activity: float = -1.0
    hidden_activity: float = -1.0
    hits_activity: float = -1.0
    disk_activity: float = -1.0
    """What `activity` was at the last look of each kind."""
    pace: Pace | None = None
    told: set[str] = field(default_factory=set[str])
    suspected: set[str] = field(default_factory=set[str])

    @property
    def sampled(self) -> bool:
        """Whether memory or CPU are kept by looking, for want of a group that keeps them."""
        keeps = self.process.group.keeps if self.process.group is not None else frozenset[str]()
        return not keeps >= {"memory", "cpu"}

    def activity(self) -> float:
        """A number that changes whenever any of it runs."""
        counted = self.process.group.activity() if self.process.group is not None else None
        return self.tree.activity() if counted is None else counted

    def usage(self) -> InstanceUsage:
        """What it uses: a few microseconds with a group, some sixty for each process without."""
        used = self.process.group.usage() if self.process.group is not None else GroupUsage()
        if used.memory_bytes is None or used.cpu_s is None or used.processes is None:
            counted = self.tree.usage()
            used = GroupUsage(
                memory_bytes=counted.memory_bytes if used.memory_bytes is None else used.memory_bytes,
                cpu_s=counted.cpu_s if used.cpu_s is None else used.cpu_s,
                processes=counted.processes if used.processes is None else used.processes,
            )
        return InstanceUsage(
            memory_bytes=used.memory_bytes,
            cpu_s=used.cpu_s,
            processes=used.processes,
            disk_bytes=self.disk.used_bytes if self.disk is not None else None,
            files=self.disk.files if self.disk is not None else None,
            hits=self.hits,
            limits=self.limits,
        )

    def judge(self, exit_: Exit) -> Exit:
        """The end as it really came about, where this watch brought it on."""
        if self.breach is None or exit_.reason not in (ExitReason.STOPPED, ExitReason.KILLED):
            return exit_
        return replace(exit_, reason=self.breach.reason, detail=self.breach.detail, limit=self.breach.limit)

    def layer(self) -> Layer | None:
        """The row of the report that this watch changes: what is sampled is neither unavailable nor enforced."""
        if not self.sampled:
            return None
        detail = (
            f"no control group: memory is looked at every {SAMPLE_S * 1000:.0f} ms while it runs, the share of the "
            "processor held by stopping it, processes by RLIMIT_NPROC"
        )
        return Layer(name=LayerName.CGROUP_LIMITS, status=LayerStatus.BEST_EFFORT, detail=detail)


class Warden:
    """Watches every process of one manager. Its tasks run while there is anything to watch."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        # Apart, or a long walk through one folder would hold up the looks at everybody's memory.
        self._rotas = (Rota(self._look), Rota(self._measure))

    def watch(
        self,
        process: Process,
        limits: ResourceLimits,
        data_dir: Path,
        *,
        own_processes: int,
        on_breach: Callable[[Breach], None],
        on_hit: Callable[[str], None],
    ) -> Watch:
        """Look after a process from now on. `on_breach` is to end it; `on_hit` hears of each kind of limit once.

        `own_processes` of those that it consists of only wall it in.
        """
        tree = ProcessTree(process.pid, own_processes=own_processes)
        process.watch = watch = Watch(process, limits, data_dir, on_breach, on_hit, tree)
        self._watches.add(watch)
        for rota in self._rotas:
            rota.add(watch)
        return watch

    def forget(self, watch: Watch) -> None:
        """The process has ended."""
        watch.ended = True
        self._watches.discard(watch)

    async def aclose(self) -> None:
        """End the tasks. What was stopped goes on."""
        for watch in tuple(self._watches):
            if watch.pace is not None and watch.pace.stopped:
                watch.tree.let_go()
            self.forget(watch)
        for rota in self._rotas:
            await rota.aclose()

    async def _look(self, watch: Watch) -> float:
        now_s, began_s = time.monotonic(), time.thread_time()
        if watch.sampled and now_s >= watch.sample_at_s:
            self._sample(watch, now_s, began_s)
        if now_s >= watch.hits_at_s:
            self._look_for_hits(watch, now_s, time.thread_time())
        return min(watch.hits_at_s, watch.sample_at_s if watch.sampled else watch.hits_at_s)

    # without control groups ---------------------------------------------------------------------------------------

    def _sample(self, watch: Watch, now_s: float, began_s: float) -> None:
        activity = watch.activity()
        stopped = watch.pace is not None and watch.pace.stopped
        # What it took into hiding since the last look there is to be found even if it never runs again.
        idle = activity == watch.sample_activity == watch.hidden_activity and not stopped
        watch.sample_activity = activity
        wait_s = IDLE_S
        if not idle:
            if now_s >= watch.hidden_at_s and not stopped:
                watch.tree.look_for_hidden()
                watch.hidden_at_s, watch.hidden_activity = now_s + HIDDEN_S, activity
            used = watch.tree.usage()
            self._check_memory(watch, used)
            self._hold_pace(watch, used, now_s)
            wait_s = SAMPLE_S if watch.pace is None else min(SAMPLE_S, watch.pace.next_look_s(_CORES))
        # CPU time, not time: on a machine that is too busy to let it finish, a look is not dear, but the more needed.
        took_s = time.thread_time() - began_s
        # Those that run may take a tenth of a core to look after, those that do not a hundredth, all of them together.
        share = _COST_SHARE * len(self._watches) if idle else _COST_SHARE / 10
        next_s = now_s + max(wait_s, took_s * share)
        watch.sample_at_s = _together(next_s, IDLE_S) if idle else next_s

    def _check_memory(self, watch: Watch, used: GroupUsage) -> None:
        limit = watch.limits.memory_bytes
        if limit is None or used.memory_bytes is None:
            return
        if max(watch.tree.unreadable.values(), default=0) > _UNREADABLE_LOOKS_MAX:
            detail = "a process of it keeps the host from counting its memory"
            self._end(watch, Breach(limit="memory", reason=ExitReason.OUT_OF_MEMORY, detail=detail))
        if used.memory_bytes <= limit:
            return
        found = watch.tree.exact_bytes()
        if found > limit:
            detail = f"the host found {size_text(found)}"
            self._end(watch, Breach(limit="memory", reason=ExitReason.OUT_OF_MEMORY, detail=detail))

    def _hold_pace(self, watch: Watch, used: GroupUsage, now_s: float) -> None:
        cores = watch.limits.cpu_cores
        if cores is None or cores >= _CORES or used.cpu_s is None:
            return
        before = watch.pace
        if before is None:
            watch.pace = Pace.begin(cores, at_s=now_s, used_s=used.cpu_s)
            return
        watch.pace = before.look(at_s=now_s, used_s=used.cpu_s)
        if watch.pace.stopped:
            watch.tree.hold()
            if not before.stopped:
                watch.hits = replace(watch.hits, throttled_periods=watch.hits.throttled_periods + 1)
        elif before.stopped:
            watch.tree.let_go()

    # in every case ------------------------------------------------------------------------------------------------

    def _look_for_hits(self, watch: Watch, now_s: float, began_s: float) -> None:
        activity = watch.activity()
        if activity != watch.hits_activity or watch.suspected - watch.told:
            watch.hits_activity = activity
            watch.hits = self._hits(watch)
            hits = (("memory", watch.hits.oom_kills), ("processes", watch.hits.process_refusals))
            found = {name for name, count in hits if count}
            # Seen twice, or a kill that ends the plugin itself would be told of beside its end.
            for name in sorted((found & watch.suspected) - watch.told):
                watch.told.add(name)
                watch.on_hit(name)
            watch.suspected = found
        took_s = time.thread_time() - began_s
        watch.hits_at_s = _together(now_s + max(HITS_S, took_s * _COST_SHARE * len(self._watches)), HITS_S)

    @staticmethod
    def _hits(watch: Watch) -> LimitHits:
        if watch.process.group is not None:
            return watch.process.group.hits()
        # Without a group nobody counts refusals: to be at the limit is taken for having run into it.
        limit = watch.limits.processes
        full = limit is not None and (watch.tree.usage().processes or 0) >= limit
        return replace(watch.hits, process_refusals=max(watch.hits.process_refusals, int(full)))

    async def _measure(self, watch: Watch) -> float:
        now_s, began_s = time.monotonic(), time.thread_time()
        activity = watch.activity()
        if activity == watch.disk_activity and watch.disk is not None:
            took_s, share = time.thread_time() - began_s, _COST_SHARE * len(self._watches)
        else:
            watch.disk_activity = activity
            watch.disk, took_s = await asyncio.to_thread(_disk_use, watch)
            self._check_disk(watch, watch.disk)
            share = _COST_SHARE / 5
        return _together(now_s + max(DISK_S, took_s * share), DISK_S)

    def _check_disk(self, watch: Watch, use: DiskUse) -> None:
        limits, reason = watch.limits, ExitReason.DISK_LIMIT
        if limits.disk_bytes is not None and use.used_bytes > limits.disk_bytes:
            detail = f"its data folder holds {size_text(use.used_bytes)}"
            self._end(watch, Breach(limit="disk", reason=reason, detail=detail))
        elif limits.inodes is not None and use.files > limits.inodes:
            detail = f"its data folder holds {use.files} files or more"
            self._end(watch, Breach(limit="inodes", reason=reason, detail=detail))
        elif use.problem and limits.disk_bytes is not None:
            self._end(watch, Breach(limit="disk", reason=reason, detail=f"its data folder hides files: {use.problem}"))

    def _end(self, watch: Watch, breach: Breach) -> None:
        if watch.breach is None and not watch.ended:
            watch.breach = breach
            watch.ended = True
            watch.on_breach(breach)


def _disk_use(watch: Watch) -> tuple[DiskUse, float]:
    """What it takes up, and the CPU time that it took to find out."""
    began_s = time.thread_time()
    use = measure(watch.data_dir, files_max=watch.limits.inodes or _FILES_MAX)
    deleted_bytes = watch.tree.deleted_bytes(os.stat(watch.data_dir).st_dev)
    return replace(use, used_bytes=use.used_bytes + deleted_bytes), time.thread_time() - began_s


def _together(at_s: float, grid_s: float) -> float:
    """The next moment of a grid that all share: a thousand that each wake the host alone cost more than their looks."""
    return math.ceil(at_s / grid_s) * grid_s
