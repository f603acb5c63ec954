"""A runner without walls: for systems that have none, and for operators who ask for `isolation: unconfined`.

The plugin runs with every right of the host. What is kept is order, not safety: a clean environment, a process group
that ends as one, and the same importable packages as behind the walls.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from cardcage.foundation.errors import Misuse, PluginFault
from cardcage.launch import child
from cardcage.launch.exits import Evidence, classify
from cardcage.launch.groups import evidence_of, layer_of, make_group
from cardcage.launch.pipes import Pipes
from cardcage.launch.runner import Exit, LaunchSpec, Process
from cardcage.launch.setup import no_encryption
from cardcage.sandbox.control_groups import ControlGroup
from cardcage.sandbox.group_search import GroupsFound
from cardcage.sandbox.report import EnforcementReport, Layer, LayerName, LayerStatus

DEFAULT_MAIN: Final = "cardcage_sdk.serve:serve"

_ALL_OFF: Final = EnforcementReport(
    layers=tuple(Layer(name=name, status=LayerStatus.OFF, detail="isolation is unconfined") for name in LayerName)
)


@dataclass(slots=True, eq=False)
class _Watched:
    popen: subprocess.Popen[bytes]
    exited: asyncio.Future[Exit]
    group: ControlGroup | None = None
    stopped_by_host: bool = False
    reaped: bool = False

    def kill(self) -> None:
        if not self.reaped:
            self.stopped_by_host = True
            _kill_group(self.popen.pid)


class UnconfinedRunner:
    """Starts plugins as plain child processes. `main` names what they run, as `module:function(socket)`.

    Limits are no walls: with `groups` the process is put into a control group where that can be had.
    """

    name = "unconfined"

    def __init__(self, *, main: str = DEFAULT_MAIN, groups: GroupsFound | None = None) -> None:
        self._main = main
        self._groups = groups
        self._live: set[_Watched] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self, spec: LaunchSpec) -> Process:
        """Start the process. There is no `await` in it: a cancelled start has either not begun or has returned."""
        if spec.plan.walled:
            raise Misuse(
                f"plugin {spec.plugin!r} {spec.version} has a plan for isolation {spec.plan.isolation!r}, "
                "but this runner puts up no walls",
                code="wrong_runner",
                plugin=spec.plugin,
                version=spec.version,
            )
        if spec.encrypt:
            raise no_encryption(spec, "without walls there is no process that could hold the key")
        group = make_group(self._groups, spec)
        with Pipes() as pipes:
            try:
                popen = self._spawn(spec, pipes, group)
            except OSError as error:
                if group is not None:
                    group.remove()
                raise PluginFault(
                    f"plugin {spec.plugin!r} {spec.version} could not be started: {error.strerror or error}",
                    code="setup_failed",
                    plugin=spec.plugin,
                    version=spec.version,
                ) from error
            if group is not None:
                group.close_entries()
            watched = self._watch(popen, group)
            report = _ALL_OFF if group is None else _ALL_OFF.with_layer(layer_of(self._groups))
            return pipes.process(pid=popen.pid, report=report, group=group, handle=watched)

    def _spawn(self, spec: LaunchSpec, pipes: Pipes, group: ControlGroup | None) -> subprocess.Popen[bytes]:
        entries = () if group is None else group.entries
        order = {
            "groups": entries,
            "fd": pipes.their_sock.fileno(),
            "main": self._main,
            "packages": list(spec.plan.packages),
            "package_dir": str(spec.package_dir),
        }
        script = str(Path(child.__file__))
        return subprocess.Popen(  # noqa: S603 -- our own interpreter and script
            [sys.executable, "-I", "-S", "-B", script, json.dumps(order)],
            cwd=spec.plan.working_dir,
            env=dict(spec.plan.environment),
            pass_fds=(pipes.their_sock.fileno(), *entries),
            stdin=subprocess.DEVNULL,
            stdout=pipes.their_stdout,
            stderr=pipes.their_stderr,
            start_new_session=True,
        )

    def _watch(self, popen: subprocess.Popen[bytes], group: ControlGroup | None) -> _Watched:
        loop = asyncio.get_running_loop()
        watched = _Watched(popen, loop.create_future(), group)
        self._live.add(watched)

        def ended(status: int) -> None:
            try:
                loop.call_soon_threadsafe(self._settle, watched, status)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        # A thread, because that is the one way to wait for a child that every POSIX system has.
        threading.Thread(target=_reap, args=(watched, ended), name=f"wait-{popen.pid}", daemon=True).start()
        return watched

    def _settle(self, watched: _Watched, status: int) -> None:
        self._live.discard(watched)
        evidence = evidence_of(watched.group, Evidence(stopped_by_host=watched.stopped_by_host))
        if watched.group is not None:
            watched.group.remove()  # and with it what left the process group behind
        watched.exited.set_result(classify(status, evidence))

    async def wait(self, process: Process) -> Exit:
        """Wait for the end and say why it came."""
        return await asyncio.shield(_watched(process).exited)

    def kill(self, process: Process) -> None:
        """End the process and what is left in its group."""
        _watched(process).kill()

    async def aclose(self) -> None:
        """End every process that is left and wait until it is gone."""
        left = tuple(self._live)
        for watched in left:
            watched.kill()
        await asyncio.gather(*(asyncio.shield(watched.exited) for watched in left))


def _watched(process: Process) -> _Watched:
    if not isinstance(process.handle, _Watched):
        raise Misuse(f"process {process.pid} was not started by the unconfined runner", code="unknown_process")
    return process.handle


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # ended already; macOS says EPERM for a group of zombies


def _reap(watched: _Watched, ended: Callable[[int], None]) -> None:
    popen = watched.popen
    if hasattr(os, "waitid"):
        # Look without reaping: while the leader is a zombie its group's number cannot be anybody else's.
        os.waitid(os.P_PID, popen.pid, os.WEXITED | os.WNOWAIT)
        watched.reaped = True
        _kill_group(popen.pid)
    code = popen.wait()
    watched.reaped = True
    ended(-code if code < 0 else code << 8)
