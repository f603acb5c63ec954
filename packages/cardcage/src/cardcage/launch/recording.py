"""Starting plugins behind the usual walls while what they try is written down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

import msgspec

from cardcage.foundation.errors import Refused
from cardcage.launch.recorder import NSSWITCH_CONF, RESOLV_CONF, Recorder, Tried
from cardcage.launch.runner import Exit, LaunchSpec, Process, Runner
from cardcage.sandbox.plan import SandboxPlan, SystemCalls

_FILES: Final = {"/etc/resolv.conf": RESOLV_CONF, "/etc/nsswitch.conf": NSSWITCH_CONF}


class RecordingRunner:
    """A runner around another, for plans with namespaces. `on_end` gets what each process tried, when it has ended."""

    name = "process"

    def __init__(self, inner: Runner, on_end: Callable[[tuple[Tried, ...]], None]) -> None:
        self._inner = inner
        self._on_end = on_end
        self._recorders: dict[int, Recorder] = {}

    async def start(self, spec: LaunchSpec) -> Process:
        """Start the process; it is heard from its first instruction on."""
        if spec.plan.fallback or not spec.plan.walled:
            raise Refused(
                f'plugin "{spec.plugin}" {spec.version} cannot be learnt from here: a recording needs walls with '
                "namespaces",
                code="recording_unavailable",
                hint="`cardcage doctor` says what this machine lacks",
            )
        process = await self._inner.start(replace(spec, plan=recorded(spec.plan)))
        if process.recorder < 0:
            self._inner.kill(process)
            raise AssertionError("the runner did not hand over the recording")
        network = spec.plan.network
        recorder = Recorder(
            process.recorder,
            working_dir=spec.plan.working_dir,
            reachable=[(each.address, each.port) for each in network.all_listeners],
        )
        process.recorder = -1
        recorder.start([mount.target for mount in spec.plan.mounts if mount.granted and mount.executable])
        self._recorders[process.pid] = recorder
        return process

    async def wait(self, process: Process) -> Exit:
        """Wait for the end, and hand on what was tried."""
        ended = await self._inner.wait(process)
        # Not awaited: whoever waits may be cancelled, and what was tried must be handed on all the same. The thread is
        # at its end already, because nobody is left to ask it.
        self._finish(process.pid)
        return ended

    def kill(self, process: Process) -> None:
        self._inner.kill(process)

    async def aclose(self) -> None:
        """End all that is left."""
        await self._inner.aclose()
        for pid in tuple(self._recorders):
            self._finish(pid)

    def _finish(self, pid: int) -> None:
        recorder = self._recorders.pop(pid, None)
        if recorder is not None:
            recorder.close()
            self._on_end(recorder.tried)


def recorded(plan: SandboxPlan) -> SandboxPlan:
    """The plan with a recording: programs and names get as far as to be heard of, and no farther.

    The filter has to let the starting of programs through for that; the recorder refuses what was not granted.
    """
    mounts = tuple(
        msgspec.structs.replace(mount, content=_FILES[mount.target])
        if mount.kind == "file" and mount.target in _FILES
        else mount
        for mount in plan.mounts
    )
    calls = SystemCalls(profile=plan.system_calls.profile, execute=True, signals=plan.system_calls.signals)
    return msgspec.structs.replace(plan, recording=True, system_calls=calls, mounts=mounts)
