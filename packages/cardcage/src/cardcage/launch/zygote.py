"""The host's side of the fork server: starts instances behind their walls in a few milliseconds each."""

from __future__ import annotations

import asyncio
import errno
import json
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

from cardcage.foundation.errors import CardcageError, Misuse, Refused, Unavailable
from cardcage.foundation.limits import CONNECT_TIMEOUT_S, STOP_TIMEOUT_S
from cardcage.launch import zygote_main
from cardcage.launch.exits import Evidence, classify
from cardcage.launch.groups import evidence_of, layer_of, make_group, plan_in_group
from cardcage.launch.handover import Switchboard
from cardcage.launch.pipes import Pipes
from cardcage.launch.runner import Exit, LaunchSpec, OpenListener, Process
from cardcage.launch.setup import (
    ENCRYPTED,
    NOT_ENCRYPTED,
    check_group_floor,
    hand_over_data,
    no_encryption,
    setup_failed,
    wall_error,
)
from cardcage.sandbox.control_groups import ControlGroup
from cardcage.sandbox.disk_use import disk_layer
from cardcage.sandbox.group_search import GroupsFound
from cardcage.sandbox.mode import detect_mode, why_no_namespaces, why_no_walls
from cardcage.sandbox.network import LISTENERS_MAX
from cardcage.sandbox.plan import OWN_PROCESSES, PYTHON_DIR, PythonLayout, inside_library, inside_stdlib, python_path
from cardcage.sandbox.python_layout import core_libraries, find_python_layout
from cardcage.sandbox.report import EnforcementReport, Layer, LayerName, LayerStatus, Mode

if TYPE_CHECKING:
    from cardcage.launch.link import Links

DEFAULT_MAIN: Final = "cardcage_sdk.serve:serve"

_STARTS_AT_ONCE_MAX: Final = 8
"""Walls going up at the same time. More would only wait for the kernel's locks on mounts and networks, hold up the rest
of the machine meanwhile, and overflow the control socket, whose buffer takes about a dozen plans."""

_DESCRIPTORS_MAX: Final = 2 * LISTENERS_MAX + 2
"""The listeners that may come with a report: those of the plan, their plain HTTP neighbours, the proxy's, and that of
a recording."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


@dataclass(slots=True, eq=False)
class _Instance:
    """One started process as the host keeps it, from the request to the end."""

    number: int
    spec: LaunchSpec
    report: socket.socket
    forked: asyncio.Future[None]
    up: asyncio.Future[EnforcementReport]
    exited: asyncio.Future[Exit]
    group: ControlGroup | None = None
    group_layer: Layer = field(default_factory=layer_of)
    pidfd: int = -1
    """The init's: whoever ends it ends all of the instance."""
    plugin_status: int | None = None
    stopped_by_host: bool = False
    listeners: list[OpenListener] = field(default_factory=list[OpenListener])
    switchboard: Switchboard | None = None
    """Where its connections lead, when it has no network of its own to listen in."""

    recorder: int = -1

    def open_switchboard(self) -> None:
        """Stand ready to make the connections that its supervisor will ask for."""
        self.switchboard = Switchboard(self.spec.plan.network.all_listeners)
        self.listeners = self.switchboard.listeners

    def connect(self, number: int, address: str, port: int) -> None:
        """Answer the supervisor: a connected socket, or the error that the plugin gets."""
        made = self.switchboard.connect(address, port) if self.switchboard else errno.ENETUNREACH
        try:
            if isinstance(made, int):
                self.report.send(_encode((number, made)))
                return
            with made:
                socket.send_fds(self.report, [_encode((number, 0))], [made.fileno()])
        except OSError:
            pass  # it is gone, or too far behind; the supervisor has a deadline of its own

    def take_listeners(self, places: Sequence[int], descriptors: Sequence[int]) -> None:
        """Keep the sockets that came with the report; their places say which of the plan's listeners each is."""
        wanted = self.spec.plan.network.all_listeners
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        self.listeners = [(wanted[place], sock) for place, sock in zip(places, sockets, strict=True)]

    def close_listeners(self) -> None:
        """Close those that were not handed on."""
        while self.listeners:
            self.listeners.pop()[1].close()
        if self.recorder >= 0:
            os.close(self.recorder)
            self.recorder = -1

    def kill(self) -> None:
        """End it, now or, where the fork has not been reported yet, as soon as it is."""
        if not self.exited.done():
            self.stopped_by_host = True
        if self.pidfd >= 0:
            try:
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended, and its end is on its way to us


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
        self._server: _Server | None = None
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
            raise _no_walls(
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

    async def _ready_server(self) -> _Server:
        async with self._starting:
            if self._closed:
                raise Misuse("the runner is closed", code="runner_closed")
            if self._server is None or self._server.ended:
                self._server = await self._start_server()
            return self._server

    async def _start_server(self) -> _Server:
        mode = detect_mode() if self._mode is None else self._mode
        if mode is Mode.NONE:
            raise _no_walls(why_no_walls())
        libraries = tuple(core_libraries() if self._libraries is None else self._libraries)
        server = _Server()
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
    server: _Server, spec: LaunchSpec, group: ControlGroup | None, group_layer: Layer, links: Links | None
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
        return process


def _instance(process: Process) -> _Instance:
    if not isinstance(process.handle, _Instance):
        raise Misuse(f"process {process.pid} was not started by the fork server", code="unknown_process")
    return process.handle


class _Server:
    """One fork server process and the instances that came of it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._control, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.setblocking(False)
        self._popen: subprocess.Popen[bytes] | None = None
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.turn = asyncio.Semaphore(_STARTS_AT_ONCE_MAX)
        self._instances: dict[int, _Instance] = {}
        self._last_number = 0
        self.ended = False
        self.fallback = False

    async def start(
        self, python: PythonLayout, libraries: Sequence[tuple[str, Path]], main: str, *, mode: Mode
    ) -> None:
        """Start the process and wait until it can fork."""
        self.fallback = mode is Mode.FALLBACK
        self._control.send(fork_server_order(python, libraries, main, mode=mode))
        self._popen = await asyncio.to_thread(self._spawn, python.executable)
        self._theirs.close()
        self._loop.add_reader(self._control, self._on_reply)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._ready
        except BaseException:
            await self.aclose()
            raise

    def _spawn(self, executable: str) -> subprocess.Popen[bytes]:
        theirs = self._theirs.fileno()
        script = str(Path(zygote_main.__file__))
        return subprocess.Popen(  # noqa: S603 -- our own interpreter and script
            [executable, "-I", "-S", "-B", "-X", "utf8", script, str(theirs)],
            env={},
            cwd="/",
            pass_fds=(theirs,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            start_new_session=True,
        )

    async def request(
        self, spec: LaunchSpec, pipes: Pipes, group: ControlGroup | None, group_layer: Layer
    ) -> _Instance:
        """Ask for an instance and wait until it has been forked."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._last_number += 1
        instance = _Instance(
            number=self._last_number,
            spec=spec,
            report=ours,
            forked=self._loop.create_future(),
            up=self._loop.create_future(),
            exited=self._loop.create_future(),
            group=group,
            group_layer=group_layer,
        )
        descriptors = [pipes.their_sock.fileno(), pipes.their_stdout, pipes.their_stderr, theirs.fileno()]
        descriptors += () if group is None else group.entries
        try:
            if self.ended:
                raise Unavailable("the fork server ended while an instance was being started", retry_after_s=0.1)
            try:
                socket.send_fds(self._control, [self._packet(instance)], descriptors)
            except OSError as error:
                # A plan of thousands of grants is too long for a packet.
                raise setup_failed(spec, f"its plan could not be sent: {error.strerror}", errno=error.errno) from error
            self._instances[instance.number] = instance
            self._loop.add_reader(ours, self._on_report, instance)
            await self._forked(instance)
        except BaseException:
            if instance.number not in self._instances:
                ours.close()
            raise
        finally:
            theirs.close()
            if group is not None:
                group.close_entries()
        return instance

    @staticmethod
    def _packet(instance: _Instance) -> bytes:
        return instance.number.to_bytes(zygote_main.NUMBER_BYTES, "big") + _encode(
            plan_in_group(instance.spec.plan, instance.group)
        )

    async def _forked(self, instance: _Instance) -> None:
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asyncio.shield(instance.forked)
        except TimeoutError:
            self._give_up()
            raise Unavailable(
                f"the fork server did not answer within {CONNECT_TIMEOUT_S:g} s, so it was ended with all instances",
                code="zygote_failed",
                retry_after_s=0.1,
            ) from None
        except asyncio.CancelledError:
            instance.kill()  # takes effect when the reply brings the means to it
            done, _ = await asyncio.wait({instance.exited}, timeout=STOP_TIMEOUT_S)
            if not done:
                self._give_up()
            raise

    def _give_up(self) -> None:
        """End a fork server that answers no more; its child, which does the work, dies with it."""
        assert self._popen is not None
        self._popen.kill()
        self._on_end()

    def _on_reply(self) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, zygote_main.PACKET_BYTES_MAX, 1)
        except BlockingIOError:
            return
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            self._on_end()
            return
        number, status, error = _decode(packet)
        if number == 0:
            if error:
                _fail(self._ready, _no_walls(f"namespaces cannot be made ({error})"))
            _resolve(self._ready, None)
            return
        instance = self._instances[number]
        if descriptors:
            instance.pidfd = descriptors[0]
            _resolve(instance.forked, None)
            if instance.stopped_by_host:
                instance.kill()
        elif status is not None:
            self._on_report(instance)
            self._settle(instance, status)
        else:
            _fail(instance.forked, setup_failed(instance.spec, f"the fork failed: {error}"))
            self._settle(instance, 1 << 8)

    def _on_report(self, instance: _Instance) -> None:
        while True:
            try:
                packet, descriptors, _, _ = socket.recv_fds(
                    instance.report, zygote_main.PACKET_BYTES_MAX, _DESCRIPTORS_MAX, socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, OSError):
                return
            if not packet:
                self._loop.remove_reader(instance.report)
                return
            match _decode(packet):
                case ["ready", rows, *rest]:
                    places = rest[0] if rest else ()
                    if len(rest) > 1 and rest[1]:
                        instance.recorder = descriptors.pop()
                    instance.take_listeners(places, descriptors)
                    if instance.spec.plan.fallback:
                        instance.open_switchboard()
                    _resolve(instance.up, _enforcement(rows, instance.group_layer))
                case ["failed", rows, step, number, detail]:
                    _fail(instance.up, wall_error(instance.spec, step, number, detail))
                case ["connect", number, address, port]:
                    instance.connect(number, address, port)
                case ["ended", status]:
                    instance.plugin_status = status
                case other:
                    raise AssertionError(f"an instance reported {other!r}")

    def _settle(self, instance: _Instance, status: int) -> None:
        """The instance is gone, its init with `status`: say how it ended, to whoever waits."""
        status = status if instance.plugin_status is None else instance.plugin_status
        self._instances.pop(instance.number, None)
        self._loop.remove_reader(instance.report)
        instance.report.close()
        instance.close_listeners()
        evidence = evidence_of(instance.group, Evidence(stopped_by_host=instance.stopped_by_host))
        if instance.group is not None:
            instance.group.remove()
        _resolve(instance.forked, None)
        why = ", out of the memory it was given" if evidence.out_of_memory else ""
        what = f"the process ended before its walls were up ({status}){why}"
        _fail(instance.up, setup_failed(instance.spec, what))
        _resolve(instance.exited, classify(status, evidence))
        if instance.pidfd >= 0:
            os.close(instance.pidfd)
            instance.pidfd = -1

    def _on_end(self) -> None:
        """The fork server is gone, and the kernel has ended its instances with it."""
        if self.ended:
            return
        self.ended = True
        self._loop.remove_reader(self._control)
        self._control.close()
        _fail(
            self._ready,
            Unavailable(
                "the fork server ended before it could start anything", code="zygote_failed", retry_after_s=1.0
            ),
        )
        for instance in tuple(self._instances.values()):
            self._settle_when_gone(instance)

    def _settle_when_gone(self, instance: _Instance) -> None:
        if instance.pidfd < 0:
            self._settle(instance, signal.SIGKILL)
            return

        def gone() -> None:
            self._loop.remove_reader(instance.pidfd)
            self._on_report(instance)
            self._settle(instance, signal.SIGKILL)

        self._loop.add_reader(instance.pidfd, gone)

    async def aclose(self) -> None:
        """End all instances, then the fork server, and wait until they are gone."""
        for instance in tuple(self._instances.values()):
            instance.kill()
        waiting = [asyncio.shield(instance.exited) for instance in self._instances.values()]
        if waiting:
            await asyncio.wait(waiting, timeout=STOP_TIMEOUT_S)
        self._on_end()
        if self._popen is not None:
            # It ends by itself when the control socket closes, after it has taken in its child: killed at once, it
            # would leave that to the machine's first process, which in many containers takes nothing in.
            try:
                await asyncio.to_thread(self._popen.wait, 1.0)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                await asyncio.to_thread(self._popen.wait)
        await asyncio.gather(*waiting)


def fork_server_order(
    python: PythonLayout, libraries: Sequence[tuple[str, Path]], main: str, *, mode: Mode, at_place: bool = False
) -> bytes:
    """The first packet for a fork server. `at_place`: Python and the packages stand where plugins see them already."""
    homes = {python.stdlib: inside_stdlib(python)}
    homes |= {str(source): inside_library(name, source) for name, source in libraries}
    places = [inside_library(name, source) if at_place else str(source) for name, source in libraries]
    order = {
        "main": main,
        "as_root": mode is Mode.ROOT,
        "fallback": mode is Mode.FALLBACK,
        "packages": places,
        "homes": {} if at_place else homes,
        "python_path": python_path(python),
        "python_dir": PYTHON_DIR,
    }
    return json.dumps(order).encode()


def _resolve(future: asyncio.Future[Any], value: object) -> None:
    if not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[Any], error: CardcageError) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # seen: nobody need be waiting for it


def _pid_of(pidfd: int) -> int:
    """The process's number as this process sees it; the fork server, in its own namespace, sees another."""
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Pid:"))


def _enforcement(rows: Iterable[Sequence[str]], group_layer: Layer) -> EnforcementReport:
    told = {name: Layer(name=name, status=LayerStatus(status), detail=detail) for name, status, detail in rows}
    told = {str(layer.name): layer for layer in (NOT_ENCRYPTED,)} | told
    told |= {str(layer.name): layer for layer in (group_layer, disk_layer())}
    order = [str(name) for name in LayerName]
    return EnforcementReport(layers=tuple(sorted(told.values(), key=lambda layer: order.index(str(layer.name)))))


def _no_walls(why: str) -> Refused:
    return Refused(
        f"no walls can be put up on this machine, so nothing is started: {why}",
        code="no_walls",
        hint="`cardcage doctor` says what to change; isolation: unconfined runs a plugin with every right",
    )
