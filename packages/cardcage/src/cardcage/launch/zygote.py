"""The runner of walled Python plugins: each is a fork of a clean process, and starts in a few milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import msgspec

from cardcage.foundation.errors import Misuse
from cardcage.foundation.limits import CONNECT_TIMEOUT_S
from cardcage.launch.fork_server import ForkServer
from cardcage.launch.forked import ForkedInstance
from cardcage.launch.groups import layer_of, make_group
from cardcage.launch.pipes import Pipes
from cardcage.launch.runner import Exit, LaunchSpec, Process
from cardcage.launch.setup import (
    ENCRYPTED,
    check_group_floor,
    hand_over_data,
    no_encryption,
    no_walls,
    setup_failed,
)
from cardcage.sandbox.control_groups import ControlGroup
from cardcage.sandbox.group_search import GroupsFound
from cardcage.sandbox.mode import detect_mode, why_no_namespaces, why_no_walls
from cardcage.sandbox.plan import OWN_PROCESSES, PythonLayout
from cardcage.sandbox.python_layout import core_libraries, find_python_layout
from cardcage.sandbox.report import Layer, Mode

if TYPE_CHECKING:
    from cardcage.launch.link import Links

DEFAULT_MAIN: Final = "cardcage_sdk.serve:serve"


class ZygoteRunner:
    """Starts Python plugins as forks of a clean process, each behind the walls of its plan.

    The fork server is started at the first use and again when it has ended. `main` names what a plugin's process runs,
    as `module:function(socket)`; it is imported before the fork, as are `libraries`. With `groups` each instance is put
    into a control group of its own before anything else is done in its process. `links` gives what makes the
    links of those whose wire is to be enciphered; without it the runner has an authority of its own.
    """

    name = "process"

    def __init__(
        self,
        *,
        main: str = DEFAULT_MAIN,
        libraries: Iterable[tuple[str, Path]] | None = None,
        python: PythonLayout | None = None,
        mode: Mode | None = None,
        groups: GroupsFound | None = None,
        links: Callable[[], Links] | None = None,
    ) -> None:
        self._main = main
        self._groups = groups
        self._make_links = links
        self._links: Links | None = None
        self._libraries = libraries
        self._python = python
        self._mode = mode
        self._server: ForkServer | None = None
        self._starting = asyncio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self, spec: LaunchSpec) -> Process:
        """Start the process. When this returns its walls are up, and none of the plugin's code has run."""
        if not spec.plan.walled:
            raise Misuse(
                f"plugin {spec.plugin!r} {spec.version} has a plan without walls, but this runner puts them up",
                code="wrong_runner",
                plugin=spec.plugin,
                version=spec.version,
            )
        server = await self._ready_server()
        if spec.plan.fallback is not server.fallback:
            raise no_walls(
                f"namespaces cannot be made ({why_no_namespaces()}), and the plan of {spec.plugin} {spec.version} asks "
                "for them"
                if server.fallback
                else f"the plan of {spec.plugin} {spec.version} does without namespaces, which can be had here"
            )
        spec = _enciphered(spec)
        await hand_over_data(spec)
        async with server.turn:
            group_layer = layer_of(self._groups)
            check_group_floor(spec, group_layer)
            group = make_group(self._groups, spec, own_processes=OWN_PROCESSES)
            try:
                return await _start_on(server, spec, group, group_layer, self._open_links(spec))
            except BaseException:
                if group is not None:
                    group.remove()
                raise

    def _open_links(self, spec: LaunchSpec) -> Links | None:
        """Those of this runner, where the plan asks for one. What they stand on is not loaded before."""
        if spec.plan.encrypt and self._links is None:
            from cardcage.launch.link import Links

            self._links = Links() if self._make_links is None else self._make_links()
        return self._links if spec.plan.encrypt else None

    async def _ready_server(self) -> ForkServer:
        async with self._starting:
            if self._closed:
                raise Misuse("the runner is closed", code="runner_closed")
            if self._server is None or self._server.ended:
                self._server = await self._start_server()
            return self._server

    async def _start_server(self) -> ForkServer:
        mode = detect_mode() if self._mode is None else self._mode
        if mode is Mode.NONE:
            raise no_walls(why_no_walls())
        libraries = tuple(core_libraries() if self._libraries is None else self._libraries)
        server = ForkServer()
        await server.start(self._python or find_python_layout(), libraries, self._main, mode=mode)
        return server

    async def wait(self, process: Process) -> Exit:
        """Wait for the end and say why it came."""
        return await asyncio.shield(_instance(process).exited)

    def kill(self, process: Process) -> None:
        """End the process, and with its namespace all that it has started."""
        _instance(process).kill()

    async def aclose(self) -> None:
        """End every instance and the fork server."""
        async with self._starting:
            self._closed = True
            if self._server is not None:
                await self._server.aclose()


def _enciphered(spec: LaunchSpec) -> LaunchSpec:
    """The spec with a plan that knows of its link, where it is to have one."""
    if not spec.encrypt or spec.plan.encrypt:
        return spec
    if spec.plan.fallback:
        raise no_encryption(spec, "the fallback walls have no process that could hold the key")
    return replace(spec, plan=msgspec.structs.replace(spec.plan, encrypt=True))


async def _start_on(
    server: ForkServer, spec: LaunchSpec, group: ControlGroup | None, group_layer: Layer, links: Links | None
) -> Process:
    with Pipes() as pipes:
        instance = await server.request(spec, pipes, group, group_layer)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                report = await asyncio.shield(instance.up)
            sock = None
            if links is not None:
                pipes.their_sock.close()  # or a process that ends would not end the stream
                sock, _ = await links.lay(instance.report, pipes.our_sock.dup(), spec)
                report = report.with_layer(ENCRYPTED)
        except BaseException as error:
            instance.kill()
            await asyncio.shield(instance.exited)
            if isinstance(error, TimeoutError):
                raise setup_failed(spec, f"the walls were not up after {CONNECT_TIMEOUT_S:g} s") from None
            raise
        process = pipes.process(pid=_pid_of(instance.pidfd), report=report, group=group, handle=instance, sock=sock)
        process.listeners, instance.listeners = instance.listeners, []
        process.recorder, instance.recorder = instance.recorder, -1
        process.refusals = instance.refusals
        return process


def _instance(process: Process) -> ForkedInstance:
    if not isinstance(process.handle, ForkedInstance):
        raise Misuse(f"process {process.pid} was not started by the fork server", code="unknown_process")
    return process.handle


def _pid_of(pidfd: int) -> int:
    """The process's number as this process sees it; the fork server, in its own namespace, sees another."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))
