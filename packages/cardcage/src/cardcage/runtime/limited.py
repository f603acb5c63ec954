"""A runner whose processes are looked after: each that it starts is watched for its limits from the first moment."""

from __future__ import annotations

from collections.abc import Callable

from cardcage.launch.runner import Exit, LaunchSpec, Process, Runner
from cardcage.runtime.warden import InstanceUsage, Warden, Watch
from cardcage.sandbox.control_groups import LimitHits
from cardcage.sandbox.plan import OWN_PROCESSES, ResourceLimits
from cardcage.sandbox.process_tree import ProcessTree

OnHit = Callable[[str, str], None]
"""Called with an instance's id and the limit that it ran into without ending by it."""


class LimitedRunner:
    """Another runner, with the limits kept that it does not keep itself."""

    def __init__(self, runner: Runner, warden: Warden, *, on_hit: OnHit) -> None:
        self.name = runner.name
        self._runner = runner
        self._warden = warden
        self._on_hit = on_hit

    async def start(self, spec: LaunchSpec) -> Process:
        """Start the process and watch it."""
        process = await self._runner.start(spec)
        watch = self._warden.watch(
            process,
            spec.plan.limits,
            spec.data_dir,
            own_processes=OWN_PROCESSES if spec.plan.isolation in ("process", "container") else 0,
            on_breach=lambda _: self._runner.kill(process),
            on_hit=lambda limit: self._on_hit(str(spec.instance), limit),
        )
        layer = watch.layer()
        if layer is not None:
            process.report = process.report.with_layer(layer)
        return process

    async def wait(self, process: Process) -> Exit:
        """Wait for the end and say why it came: also where it was a limit that the watch keeps."""
        exit_ = await self._runner.wait(process)
        if not isinstance(process.watch, Watch):
            return exit_
        self._warden.forget(process.watch)
        return process.watch.judge(exit_)

    def kill(self, process: Process) -> None:
        """End the process and all its descendants at once."""
        self._runner.kill(process)

    async def aclose(self) -> None:
        """End all that is left."""
        await self._runner.aclose()


def usage_of(process: Process, limits: ResourceLimits) -> InstanceUsage:
    """What a process uses; of one that nobody watches because its own walls keep its limits, without its disk."""
    if isinstance(process.watch, Watch):
        return process.watch.usage()
    used = process.group.usage() if process.group is not None else ProcessTree(process.pid).usage()
    hits = process.group.hits() if process.group is not None else LimitHits()
    return InstanceUsage(
        memory_bytes=used.memory_bytes,
        cpu_s=used.cpu_s,
        processes=used.processes,
        disk_bytes=None,
        files=None,
        hits=hits,
        limits=limits,
    )
