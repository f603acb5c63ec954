"""The runner of isolation `vm`: each plugin in a virtual machine of its own, behind the same walls inside it.

A machine is started as a walled child of a fork server of this runner's own, which becomes QEMU: it has QEMU's uid,
namespaces and limits from there, ends with the host, and is killed as any other instance. What passes between host and
guest goes through four ports: orders and the end, the wire under mutual TLS, and the plugin's two streams.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import msgspec

from cardcage.foundation.errors import Misuse
from cardcage.launch.exits import Evidence, classify
from cardcage.launch.fork_server import fork_server_order
from cardcage.launch.runner import Exit, ExitReason, LaunchSpec, OpenListener, Process
from cardcage.launch.setup import setup_failed, wall_error
from cardcage.launch.vm.control import Console, Control, GuestError
from cardcage.launch.vm.disks import data_disk, package_image
from cardcage.launch.vm.egress import GuestConnections
from cardcage.launch.vm.guest import CPU_PERIOD_US
from cardcage.launch.vm.machine import (
    DISKS,
    PORTS,
    MachineSize,
    check_report,
    group_limits,
    guest_plan,
    hypervisor_plan,
    machine_size,
    qemu_arguments,
)
from cardcage.launch.vm.memory import MemoryBudget
from cardcage.launch.vm.report import machine_report
from cardcage.launch.vm.system_image import BOOT_SCRIPT, BootFiles, SystemImages, guest_python
from cardcage.launch.zygote import DEFAULT_MAIN, ZygoteRunner
from cardcage.sandbox.group_search import GroupsFound
from cardcage.sandbox.hypervisor import Hypervisor, clock_khz, find_hypervisor
from cardcage.sandbox.plan import TRUST_FILE, PythonLayout, SandboxPlan
from cardcage.sandbox.python_layout import core_libraries, find_python_layout
from cardcage.sandbox.report import Mode

if TYPE_CHECKING:
    # What they stand on is not loaded before a machine is started.
    from cardcage.launch.link import Links
    from cardcage.trust.authority import Certificate

EMULATED_START_TIMEOUT_S: Final = 90.0
"""From QEMU's start to the plugin's walls where every instruction is emulated: four seconds, if nothing else runs."""

START_TIMEOUT_S: Final = 20.0
"""The same with KVM."""

_ENTROPY_BYTES: Final = 64
_encode = msgspec.msgpack.Encoder().encode


@dataclass(slots=True, eq=False)
class _Machine:
    """One machine as the host keeps it."""

    spec: LaunchSpec
    qemus: ZygoteRunner
    qemu: Process
    control: Control
    console: Console
    exited: asyncio.Future[Exit]
    stopped_by_host: bool = False
    connections: GuestConnections | None = None

    def kill(self) -> None:
        if not self.exited.done():
            self.stopped_by_host = True
            self.qemus.kill(self.qemu)

    async def see_end(self, forget: Callable[[_Machine], None]) -> None:
        """Wait for the plugin's end, end the machine, and say how it came."""
        gone = asyncio.ensure_future(self.qemus.wait(self.qemu))
        await asyncio.wait({gone, self.control.ended}, return_when=asyncio.FIRST_COMPLETED)
        self.qemus.kill(self.qemu)  # the guest has put all on its disk before it said so
        exit_ = await gone
        self.control.read_rest()
        self.console.close()
        self.qemu.sock.close()
        if self.connections is not None:
            self.connections.close()
        forget(self)
        self.exited.set_result(self._exit(exit_))

    def _exit(self, of_qemu: Exit) -> Exit:
        if self.control.ended.done():
            _, status, out_of_memory, crowded = self.control.ended.result()
            evidence = Evidence(
                stopped_by_host=self.stopped_by_host, out_of_memory=out_of_memory, process_limit_hit=crowded
            )
            return classify(1 << 8 if status is None else status, evidence)
        if self.stopped_by_host or of_qemu.signal is not None:
            return of_qemu  # which knows who sent the signal, and whether it was for memory
        detail = f"its virtual machine ended by itself{self.console.last_words()}"
        return Exit(reason=ExitReason.CRASHED, code=of_qemu.code or 1, detail=detail)


class _Handed:
    """What QEMU is handed: its ends of the ports, and the disks. Leaving the block closes all that is still here."""

    def __init__(self) -> None:
        pairs = {name: socket.socketpair() for name in PORTS}
        self._ours = {name: pair[0] for name, pair in pairs.items()}
        self._theirs = {name: pair[1] for name, pair in pairs.items()}
        self._disks: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close_theirs()
        for sock in self._ours.values():
            sock.close()

    def take(self, port: str) -> socket.socket:
        """The host's end of a port, the caller's from now on."""
        return self._ours.pop(port)

    def open_disks(self, spec: LaunchSpec, size: MachineSize, hypervisor: Hypervisor, boot: BootFiles) -> None:
        """Open all disks, making those that are not there."""
        self._disks["system"] = os.open(boot.system, os.O_RDONLY | os.O_CLOEXEC)
        self._disks["package"] = package_image(spec.package_dir, spec.temp_dir)
        self._disks["data"] = data_disk(spec, size, hypervisor.make_file_system)

    def descriptors(self) -> list[int]:
        """QEMU's ends, in the order in which it expects them."""
        return [*(self._theirs[name].fileno() for name in PORTS), *(self._disks[name] for name in DISKS)]

    def close_theirs(self) -> None:
        """QEMU has them."""
        for sock in self._theirs.values():
            sock.close()
        while self._disks:
            os.close(self._disks.popitem()[1])


class VmRunner:
    """Starts each plugin in a machine of its own. `links` makes the certificates, `cache_dir` keeps boot files.

    Machines are bounded by the memory that the host has to give. `main` and `libraries` are as for the fork server.
    """

    name = "vm"

    def __init__(
        self,
        *,
        links: Callable[[], Links],
        cache_dir: Path,
        main: str = DEFAULT_MAIN,
        libraries: Iterable[tuple[str, Path]] | None = None,
        python: PythonLayout | None = None,
        hypervisor: Hypervisor | None = None,
        mode: Mode | None = None,
        groups: GroupsFound | None = None,
        budget: MemoryBudget | None = None,
    ) -> None:
        self._links = links
        self._cache_dir = cache_dir
        self._main = main
        self._libraries = tuple(core_libraries() if libraries is None else libraries)
        self._python = python or find_python_layout()
        self._hypervisor = hypervisor
        self._clock_khz: int | None = None
        self._images: SystemImages | None = None
        self._budget = budget or MemoryBudget()
        self._making = asyncio.Lock()
        # A boot keeps a processor busy: more at once would each take longer, up to their deadline.
        self._turn = asyncio.Semaphore(os.cpu_count() or 1)
        self._machines: dict[_Machine, asyncio.Task[None]] = {}
        self._qemus = ZygoteRunner(
            main="cardcage.launch.vm.become:hypervisor", python=self._python, mode=mode, groups=groups
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def start(self, spec: LaunchSpec) -> Process:
        """Boot a machine for it. When this returns the walls inside are up, and none of the plugin's code has run."""
        if spec.plan.isolation != self.name:
            raise Misuse(
                f"plugin {spec.plugin!r} {spec.version} has a plan for isolation {spec.plan.isolation!r}, "
                "but this runner starts virtual machines",
                code="wrong_runner",
                plugin=spec.plugin,
                version=spec.version,
            )
        size = machine_size(spec.plan.limits)
        plan = guest_plan(spec.plan)
        hypervisor = await self._find_hypervisor()
        boot = await self._boot_files(hypervisor)
        async with self._turn:
            return await self._start(spec, plan, size, hypervisor, boot)

    async def _find_hypervisor(self) -> Hypervisor:
        if self._hypervisor is None:
            self._hypervisor = await asyncio.to_thread(find_hypervisor)
        if self._clock_khz is None:
            self._clock_khz = await asyncio.to_thread(clock_khz, self._hypervisor)
        return self._hypervisor

    async def _boot_files(self, hypervisor: Hypervisor) -> BootFiles:
        async with self._making:
            if self._images is None:
                self._images = SystemImages(folder=self._cache_dir, python=self._python, kernel=hypervisor.kernel)
            return await asyncio.to_thread(self._images.get, self._libraries)

    async def _start(
        self, spec: LaunchSpec, plan: SandboxPlan, size: MachineSize, hypervisor: Hypervisor, boot: BootFiles
    ) -> Process:
        certificate = self._links().issue(spec.instance)
        timeout_s = START_TIMEOUT_S if hypervisor.kvm else EMULATED_START_TIMEOUT_S
        with _Handed() as handed:
            self._budget.reserve(size.host_bytes, plugin=spec.plugin, version=spec.version)
            try:
                await _open_disks(handed, spec, size, hypervisor, boot)
                qemu = await self._qemus.start(_qemu_spec(spec, hypervisor, boot, size))
            except BaseException:
                self._budget.release(size.host_bytes)
                raise
            machine = self._keep(spec, qemu, handed.take("control"), size)
            try:
                program = guest_python(self._python), BOOT_SCRIPT
                arguments = qemu_arguments(hypervisor, size, program, clock_khz=self._clock_khz)
                socket.send_fds(qemu.sock, [json.dumps(arguments).encode()], handed.descriptors())
                handed.close_theirs()
                async with asyncio.timeout(timeout_s):
                    trust = await asyncio.to_thread(_trusted, spec)
                    await machine.control.order(*self._orders(plan, size, certificate, trust))
                    layers = _rows(spec, await asyncio.shield(machine.control.up))
                report = machine_report(layers, qemu.report, size)
                check_report(spec, report)
                sock = await self._link(spec, handed.take("wire"), certificate, timeout_s)
                listeners: list[OpenListener] = []
                if places := plan.network.all_listeners:
                    try:
                        egress = await self._link(spec, handed.take("egress"), certificate, timeout_s)
                    except BaseException:
                        sock.close()
                        raise
                    machine.connections = GuestConnections(egress, places)
                    listeners = list(machine.connections.listeners)
            except BaseException as error:
                machine.kill()
                await asyncio.shield(machine.exited)
                if isinstance(error, TimeoutError | GuestError | OSError | msgspec.ValidationError):
                    what = str(error) or f"its machine was not up after {timeout_s:g} s"
                    raise setup_failed(spec, f"{what}{machine.console.last_words()}") from None
                raise
            return Process(
                pid=qemu.pid,
                sock=sock,
                stdout=handed.take("stdout").detach(),
                stderr=handed.take("stderr").detach(),
                report=report,
                group=qemu.group,
                handle=machine,
                listeners=listeners,
            )

    async def _link(
        self, spec: LaunchSpec, stream: socket.socket, certificate: Certificate, timeout_s: float
    ) -> socket.socket:
        """The plain end of an enciphered link over `stream`."""
        sock, _ = await self._links().open(
            stream, certificate, plugin=spec.plugin, version=spec.version, timeout_s=timeout_s
        )
        return sock

    def _keep(self, spec: LaunchSpec, qemu: Process, control: socket.socket, size: MachineSize) -> _Machine:
        machine = _Machine(
            spec=spec,
            qemus=self._qemus,
            qemu=qemu,
            control=Control(control),
            console=Console((qemu.stdout, qemu.stderr)),
            exited=asyncio.get_running_loop().create_future(),
        )

        def forget(ended: _Machine) -> None:
            self._machines.pop(ended, None)
            self._budget.release(size.host_bytes)

        self._machines[machine] = asyncio.create_task(machine.see_end(forget))
        return machine

    def _orders(
        self, plan: SandboxPlan, size: MachineSize, certificate: Certificate, trust: str
    ) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """What the guest's init is told: first what the fork server needs, then what no plugin may find in memory."""
        server = fork_server_order(self._python, self._libraries, self._main, mode=Mode.ROOT, at_place=True)
        keys = self._links().keys(certificate)
        return (
            {
                "fork_server": server,
                "limits": group_limits(plan, size, period_us=CPU_PERIOD_US),
            },
            {
                "plan": _encode(plan),
                "entropy": os.urandom(_ENTROPY_BYTES),
                "ca": keys.ca_pem,
                "own": keys.own_pem,
                "egress": bool(plan.network.all_listeners),
                "trust": trust,
            },
        )

    @property
    def running(self) -> int:
        """How many machines there are now, those that are still booting among them."""
        return len(self._machines)

    async def wait(self, process: Process) -> Exit:
        """Wait for the end and say why it came."""
        return await asyncio.shield(_machine(process).exited)

    def kill(self, process: Process) -> None:
        """End the machine with all that is in it."""
        _machine(process).kill()

    async def aclose(self) -> None:
        """End every machine and wait until they are gone."""
        left = tuple(self._machines.items())
        for machine, _ in left:
            machine.kill()
        await asyncio.gather(*(watching for _, watching in left))
        await self._qemus.aclose()


async def _open_disks(
    handed: _Handed, spec: LaunchSpec, size: MachineSize, hypervisor: Hypervisor, boot: BootFiles
) -> None:
    opening = asyncio.ensure_future(asyncio.to_thread(handed.open_disks, spec, size, hypervisor, boot))
    try:
        await asyncio.shield(opening)
    except OSError as error:
        raise setup_failed(spec, f"its disks: {error.strerror or error}", errno=error.errno) from error
    except asyncio.CancelledError:
        await asyncio.wait({opening})  # a thread cannot be cancelled, and what it opens is to be closed
        raise


def _trusted(spec: LaunchSpec) -> str:
    """The certificates that the plugin is to trust instead of its system's; empty where it is to trust those."""
    sources = [mount.source for mount in spec.plan.mounts if mount.target == TRUST_FILE]
    return Path(sources[0]).read_text("utf-8", "replace") if sources else ""


def _machine(process: Process) -> _Machine:
    if not isinstance(process.handle, _Machine):
        raise Misuse(f"process {process.pid} is no virtual machine of this runner", code="unknown_process")
    return process.handle


def _qemu_spec(spec: LaunchSpec, hypervisor: Hypervisor, boot: BootFiles, size: MachineSize) -> LaunchSpec:
    return replace(spec, plan=hypervisor_plan(spec.plan, hypervisor, initrd=str(boot.initrd), size=size))


def _rows(spec: LaunchSpec, message: list[Any]) -> list[tuple[str, str, str]]:
    """The layers that the guest reports. Raises where the walls did not come up."""
    match message:
        case ["ready", rows, *_]:
            return msgspec.convert(rows, list[tuple[str, str, str]])
        case ["failed", _, str() as step, int() as number, str() as detail]:
            raise wall_error(spec, step, number, f"{detail}, inside its virtual machine")
        case _:
            raise GuestError("the guest's init said what makes no sense")
