"""Isolation by containers: each plugin in one of its own, made by an installed OCI runtime from the plan of its walls.

The runtime is asked for the walls; the container's first process (`container_main`) looks whether they hold, adds what
runtimes do not offer, and starts the plugin. The wire runs through a link of mutual TLS 1.3 with a certificate for this
one start. Nothing is left behind: the container's folder, its state and its control group end with it, also where the
runtime was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from cardcage.foundation.errors import CardcageError, Misuse, Refused
from cardcage.foundation.limits import STOP_TIMEOUT_S
from cardcage.launch import container_main
from cardcage.launch.bundle import RUNTIME_LOG, Bundle, launcher_environment
from cardcage.launch.exits import Evidence, classify
from cardcage.launch.groups import evidence_of, layer_of, make_group, plan_in_group
from cardcage.launch.oci_runtimes import OciRuntime, find_runtime
from cardcage.launch.pipes import Pipes
from cardcage.launch.remains import ContainersFolder
from cardcage.launch.runner import Exit, LaunchSpec, OpenListener, Process
from cardcage.launch.setup import ENCRYPTED, check_group_floor, hand_over_data, setup_failed, wall_error
from cardcage.sandbox.control_groups import ControlGroup
from cardcage.sandbox.disk_use import disk_layer
from cardcage.sandbox.enter import CLONE_FLAGS, namespace_number
from cardcage.sandbox.group_search import GroupsFound
from cardcage.sandbox.network import LISTENERS_MAX
from cardcage.sandbox.plan import LIBRARY_DIR, OWN_PROCESSES, PythonLayout, python_path
from cardcage.sandbox.python_layout import find_python_layout
from cardcage.sandbox.report import EnforcementReport, Layer, LayerName, LayerStatus

if TYPE_CHECKING:
    from cardcage.launch.link import Link, Links

DEFAULT_MAIN: Final = "cardcage_sdk.serve:serve"
CONTAINER: Final = "container"

START_TIMEOUT_S: Final = 30.0
"""From the runtime's start to walls that hold: a tenth of a second as a rule, more on a machine that is busy."""

_STARTS_AT_ONCE_MAX: Final = 4
_LAST_WORDS_S: Final = 1.0
_FIRST_FD: Final = 3
_DESCRIPTORS_MAX: Final = 2 * LISTENERS_MAX + 2
"""The first process, and the listeners: those of the plan, their plain HTTP neighbours and the proxy's."""

LOGGER: Final = logging.getLogger("cardcage.containers")
_decode = msgspec.msgpack.Decoder().decode


@dataclass(slots=True, eq=False)
class _Container:
    """One container as the host keeps it, from the runtime's start to the last of its remains."""

    spec: LaunchSpec
    name: str
    bundle: Bundle
    control: socket.socket
    up: asyncio.Future[EnforcementReport]
    exited: asyncio.Future[Exit]
    group: ControlGroup | None
    group_layer: Layer
    runtime_pid: int = 0
    runtime_fd: int = -1
    first_fd: int = -1
    """The first process: whoever ends it ends all of the container."""
    plugin_status: int | None = None
    fault: CardcageError | None = None
    """What the first process said of its own failure."""
    stopped_by_host: bool = False
    link: Link | None = None
    ending: asyncio.Task[None] | None = field(default=None, repr=False)
    listeners: list[OpenListener] = field(default_factory=list[OpenListener])

    def take(self, places: Sequence[int], descriptors: Sequence[int]) -> None:
        """Keep what came with the first word: the first process, and the listeners with their places in the plan."""
        self.first_fd = descriptors[0]
        wanted = self.spec.plan.network.all_listeners
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors[1:]]
        self.listeners = [(wanted[place], sock) for place, sock in zip(places, sockets, strict=True)]

    def kill(self) -> None:
        """End it: by its first process, or where that is not known yet by the runtime, whose child it dies with."""
        if self.exited.done() or self.ending is not None:
            return
        self.stopped_by_host = True
        for descriptor in (self.first_fd, self.runtime_fd):
            if descriptor >= 0:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                return


class ContainerRunner:
    """Starts Python plugins in containers. `main` names what a plugin's process runs, as `module:function(socket)`.

    `links` gives what makes the links; without it the runner has an authority of its own. `runtime` names the OCI
    runtime; without it the first that is installed is taken.
    """

    name = CONTAINER

    def __init__(
        self,
        *,
        main: str = DEFAULT_MAIN,
        imports: Iterable[str] = (),
        links: Callable[[], Links] | None = None,
        runtime: str | None = None,
        python: PythonLayout | None = None,
        groups: GroupsFound | None = None,
    ) -> None:
        self._main = main
        self._imports = tuple(imports)
        self._make_links = links
        self._links: Links | None = None
        self._wanted = runtime
        self._runtime: OciRuntime | None = None
        self._python = python
        self._groups = groups
        self._folder: ContainersFolder | None = None
        self._turn = asyncio.Semaphore(_STARTS_AT_ONCE_MAX)
        self._live: set[_Container] = set()
        self._last_number = 0
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self, spec: LaunchSpec) -> Process:
        """Start the container. When this returns its walls hold, and none of the plugin's code has run.

        Raises `Refused` where no runtime is installed too.
        """
        if spec.plan.isolation != CONTAINER:
            raise Misuse(
                f"plugin {spec.plugin!r} {spec.version} has a plan for isolation {spec.plan.isolation!r}, "
                "but this runner makes containers",
                code="wrong_runner",
                plugin=spec.plugin,
                version=spec.version,
            )
        if spec.plan.fallback:
            raise Refused(
                f"plugin {spec.plugin!r} {spec.version} was not started: containers are made of namespaces, and this "
                "machine forbids them",
                code="no_walls",
                hint="`cardcage doctor` says what to change",
                plugin=spec.plugin,
                version=spec.version,
            )
        await hand_over_data(spec)
        async with self._turn:
            folder = self._open()
            with Pipes() as pipes:
                return await self._start_in(folder, spec, pipes)

    def _open(self) -> Path:
        if self._closed:
            raise Misuse("the runner is closed", code="runner_closed")
        if self._links is None:
            from cardcage.launch.link import Links  # what it stands on is not loaded before it is needed

            self._links = Links() if self._make_links is None else self._make_links()
        if self._folder is None:
            self._runtime = find_runtime(self._wanted)
            self._folder = ContainersFolder()
        return self._folder.path

    async def _start_in(self, folder: Path, spec: LaunchSpec, pipes: Pipes) -> Process:
        container, theirs = self._prepare(folder, spec)
        try:
            with theirs:
                await _make_bundle(container)
                self._order(container)
                self._launch(folder, container, pipes, theirs)
            pipes.their_sock.close()  # or a container that ends would not end the stream
            async with asyncio.timeout(START_TIMEOUT_S):
                report = await asyncio.shield(container.up)
            sock = await self._link(container, pipes)
        except BaseException as error:
            await self._undo(container)
            if isinstance(error, TimeoutError):
                said = container.bundle.last_words()
                what = f"the container was not up after {START_TIMEOUT_S:g} s" + (f" ({said})" if said else "")
                raise setup_failed(spec, what) from None
            if container.fault is not None and not isinstance(error, asyncio.CancelledError):
                raise container.fault from error
            raise
        pid = _pid_of(container.first_fd)
        process = pipes.process(pid=pid, report=report, handle=container, group=container.group, sock=sock)
        process.listeners, container.listeners = container.listeners, []
        return process

    def _prepare(self, folder: Path, spec: LaunchSpec) -> tuple[_Container, socket.socket]:
        assert self._runtime is not None
        loop = asyncio.get_running_loop()
        group_layer = layer_of(self._groups)
        check_group_floor(spec, group_layer)
        group = make_group(self._groups, spec, own_processes=OWN_PROCESSES)
        self._last_number += 1
        name = f"cardcage-{os.getpid()}-{self._last_number}"
        identity = spec.plan.identity
        plan = plan_in_group(spec.plan, group)
        ids = self._runtime.host_ids(identity.outside_uid, identity.outside_gid)
        bundle = Bundle(
            folder / name, plan, self._python or find_python_layout(), host_ids=ids, extra=self._runtime.extra_entries
        )
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        container = _Container(
            spec=replace(spec, plan=plan),
            name=name,
            bundle=bundle,
            control=ours,
            up=loop.create_future(),
            exited=loop.create_future(),
            group=group,
            group_layer=group_layer,
        )
        self._live.add(container)
        return container, theirs

    def _order(self, container: _Container) -> None:
        """Say what is to be run; it waits in the socket until the first process reads it."""
        assert self._runtime is not None
        identity = container.spec.plan.identity
        outside = (
            (os.geteuid(), os.getegid())
            if identity.outside_uid is None or identity.outside_gid is None
            else (identity.outside_uid, identity.outside_gid)
        )
        python = self._python or find_python_layout()
        order = {
            "main": self._main,
            "imports": list(self._imports),
            "by": self._runtime.name,
            "plan": container.spec.plan.to_json(),
            "python_path": python_path(python),
            "environment": launcher_environment(python) | {"HOSTNAME": container.spec.plan.hostname},
            "library_dir": LIBRARY_DIR,
            "namespaces": {name: namespace_number(name) for name in CLONE_FLAGS},
            "host_ids": outside,
        }
        entries = () if container.group is None else container.group.entries
        try:
            socket.send_fds(container.control, [json.dumps(order).encode()], list(entries))
        except OSError as error:
            raise setup_failed(
                container.spec, f"its plan could not be sent: {error.strerror}", errno=error.errno
            ) from error

    def _launch(self, folder: Path, container: _Container, pipes: Pipes, theirs: socket.socket) -> None:
        assert self._runtime is not None
        bundle = container.bundle.folder
        try:
            command = self._runtime.run(state=folder / "state", bundle=bundle, name=container.name)
        except ValueError as error:
            raise setup_failed(container.spec, str(error)) from error
        inherited = (pipes.their_sock.fileno(), theirs.fileno(), pipes.their_stdout, pipes.their_stderr)
        try:
            container.runtime_pid = _spawn(command, self._runtime.environment(bundle), bundle / RUNTIME_LOG, inherited)
        except OSError as error:
            raise setup_failed(container.spec, f"{command[0]} could not be started: {error.strerror}") from error
        container.runtime_fd = os.pidfd_open(container.runtime_pid)
        loop = asyncio.get_running_loop()
        loop.add_reader(container.runtime_fd, self._on_runtime_end, folder, container)
        loop.add_reader(container.control, self._on_control, container)

    async def _link(self, container: _Container, pipes: Pipes) -> socket.socket:
        """The plain end of the wire, once the far end has proved that it is this very container."""
        assert self._links is not None
        if container.group is not None:
            container.group.close_entries()
        stream = pipes.our_sock.dup()
        sock, container.link = await self._links.lay(container.control, stream, container.spec)
        pipes.our_sock.close()
        return sock

    async def _undo(self, container: _Container) -> None:
        """End what has been started, and take away what has been made, however far it came."""
        container.kill()
        if container.runtime_fd >= 0:
            await asyncio.shield(container.exited)
            return
        container.stopped_by_host = True
        await asyncio.shield(self._clear(container, 1 << 8))

    def _on_control(self, container: _Container) -> None:
        while True:
            try:
                packet, descriptors, _, _ = socket.recv_fds(
                    container.control, container_main.ORDER_BYTES_MAX, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, OSError):
                return
            if not packet:
                asyncio.get_running_loop().remove_reader(container.control)
                return
            match _decode(packet):
                case ["ready", rows, places]:
                    container.take(places, descriptors)
                    _resolve(container.up, _enforcement(rows, container.group_layer))
                case ["failed", _, step, number, detail]:
                    container.fault = wall_error(container.spec, step, number, detail)
                    _fail(container.up, container.fault)
                case ["ended", status]:
                    container.plugin_status = status
                case other:
                    raise AssertionError(f"a container reported {other!r}")

    def _on_runtime_end(self, folder: Path, container: _Container) -> None:
        asyncio.get_running_loop().remove_reader(container.runtime_fd)
        self._on_control(container)
        _, status = os.waitpid(container.runtime_pid, 0)
        os.close(container.runtime_fd)
        container.runtime_fd = -1
        container.ending = asyncio.get_running_loop().create_task(self._clear(container, _first_status(status), folder))

    async def _clear(self, container: _Container, status: int, folder: Path | None = None) -> None:
        """The container has ended, its first process with `status`: remove what is left and say how it ended."""
        status = status if container.plugin_status is None else container.plugin_status
        said = container.bundle.last_words()
        evidence = evidence_of(container.group, Evidence(stopped_by_host=container.stopped_by_host))
        if container.group is not None:
            container.group.remove()
        if container.control.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(container.control)
            container.control.close()
        try:
            await asyncio.to_thread(self._sweep, folder, container)
        except (OSError, subprocess.SubprocessError) as error:
            # Its processes are gone, and whoever waits for its end must hear of it. The folder is swept later.
            LOGGER.warning("what container %s left behind could not all be removed: %s", container.name, error)
        if container.link is not None:
            # Its last words may still be under way to a channel that reads slowly; then the link ends with the channel.
            await asyncio.wait({asyncio.shield(container.link.closed)}, timeout=_LAST_WORDS_S)
        while container.listeners:
            container.listeners.pop()[1].close()
        if container.first_fd >= 0:
            os.close(container.first_fd)
            container.first_fd = -1
        why = f": {said}" if said else f" ({status})"
        _fail(container.up, setup_failed(container.spec, f"the container ended before its walls were up{why}"))
        self._live.discard(container)
        _resolve(container.exited, classify(status, evidence))

    def _sweep(self, folder: Path | None, container: _Container) -> None:
        """Without a folder the runtime was never started, and keeps nothing."""
        assert self._runtime is not None
        try:
            if folder is not None and self._runtime.may_have_left(state=folder / "state", name=container.name):
                subprocess.run(  # noqa: S603 -- the runtime that was found, on a name of ours
                    self._runtime.delete(state=folder / "state", name=container.name),
                    env=self._runtime.environment(container.bundle.folder),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    timeout=STOP_TIMEOUT_S,
                    check=False,
                )
        finally:
            container.bundle.remove()

    async def wait(self, process: Process) -> Exit:
        """Wait for the end and say why it came."""
        return await asyncio.shield(_container(process).exited)

    def kill(self, process: Process) -> None:
        """End the container with all that runs in it."""
        _container(process).kill()

    async def aclose(self) -> None:
        """End every container that is left, and take the folder of them all away."""
        self._closed = True
        left = tuple(self._live)
        for container in left:
            container.kill()
        await asyncio.gather(*(asyncio.shield(container.exited) for container in left))
        for container in left:
            if container.link is not None:
                container.link.close()
        if self._folder is not None:
            await asyncio.to_thread(self._folder.remove)
            self._folder = None


def _container(process: Process) -> _Container:
    if not isinstance(process.handle, _Container):
        raise Misuse(f"process {process.pid} was not started as a container", code="unknown_process")
    return process.handle


async def _make_bundle(container: _Container) -> None:
    try:
        await asyncio.to_thread(container.bundle.make)
    except OSError as error:
        about = f" ({error.filename})" if isinstance(error.filename, str) else ""
        raise setup_failed(container.spec, f"{error.strerror}{about}", errno=error.errno) from error


def _spawn(command: Sequence[str], environment: dict[str, str], log: Path, inherited: Sequence[int]) -> int:
    """Start the runtime with `inherited` as its descriptors 3 and on, and nothing else of the host's."""
    # Out of the way first, so that no source is overwritten before it is copied.
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64) for descriptor in inherited]
    try:
        return os.posix_spawn(
            command[0],
            list(command),
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
                *((os.POSIX_SPAWN_DUP2, source, _FIRST_FD + place) for place, source in enumerate(aside)),
            ],
            setsid=True,
        )
    finally:
        for descriptor in aside:
            os.close(descriptor)


def _first_status(status: int) -> int:
    """The first process's wait status, as the runtime's own tells it: 128 and more stand for a signal."""
    code = os.waitstatus_to_exitcode(status)
    return code - 128 if 128 < code < 128 + 65 else status


def _pid_of(pidfd: int) -> int:
    """The process's number as this process sees it."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))


def _enforcement(rows: Iterable[Sequence[str]], group_layer: Layer) -> EnforcementReport:
    told = {name: Layer(name=name, status=LayerStatus(status), detail=detail) for name, status, detail in rows}
    own = (
        group_layer,
        disk_layer(),
        ENCRYPTED,
    )
    told |= {str(layer.name): layer for layer in own}
    order = [str(name) for name in LayerName]
    return EnforcementReport(layers=tuple(sorted(told.values(), key=lambda layer: order.index(str(layer.name)))))


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: CardcageError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: nobody need be waiting for it
