"""What the runner promises, held against virtual machines: few boots, each put to much use."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cardcage.foundation.errors import Misuse, PluginFault, Refused, Unavailable
from cardcage.foundation.names import InstanceId
from cardcage.launch.link import Links
from cardcage.launch.runner import Exit, ExitReason, LaunchSpec, Process
from cardcage.launch.vm.memory import MemoryBudget
from cardcage.launch.vm.runner import VmRunner
from cardcage.permissions import Permission
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.hypervisor import find_hypervisor
from cardcage.sandbox.mode import detect_mode
from cardcage.sandbox.plan import MIB, STRICT_FLOOR, PlanRequest, ResourceLimits, make_plan
from cardcage.sandbox.python_layout import core_libraries, find_python_layout
from cardcage.sandbox.report import LayerName, LayerStatus, MachineReport, Mode
from cardcage.trust.authority import Authority

CHILD = ("guest_child", Path(__file__).parent / "guest_child.py")
LIBRARIES = (*core_libraries(), CHILD)
TIMEOUT_S = 120.0
LIMITS = ResourceLimits(memory_bytes=96 * MIB, disk_bytes=16 * MIB, cpu_cores=1.0, processes=16)


@pytest.fixture(scope="module")
def machine() -> MachineReport:
    report = examine()
    if report.below(STRICT_FLOOR):
        pytest.skip(f"walls cannot be put up here: {[layer.name for layer in report.below(STRICT_FLOOR)]}")
    try:
        find_hypervisor()
    except Refused as error:
        pytest.skip(f"no virtual machine can be started here: {error.message}")
    return report


@pytest.fixture(scope="module")
def boot_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where boot files are kept: one folder for all tests, since making them takes seconds."""
    return tmp_path_factory.mktemp("machines")


@pytest.fixture
async def runner(machine: MachineReport, boot_dir: Path, tmp_path: Path) -> AsyncIterator[VmRunner]:
    links = Links(Authority.open(tmp_path))
    async with VmRunner(links=lambda: links, cache_dir=boot_dir, main="guest_child:main", libraries=LIBRARIES) as vms:
        yield vms


MakeSpec = Callable[..., LaunchSpec]


@pytest.fixture
def make_spec(machine: MachineReport, tmp_path: Path) -> MakeSpec:
    def make(
        *, isolation: str = "vm", limits: ResourceLimits = LIMITS, permissions: tuple[str, ...] = ()
    ) -> LaunchSpec:
        folders = {name: tmp_path / name for name in ("package", "data", "temp")}
        for folder in folders.values():
            folder.mkdir(exist_ok=True)
        (folders["package"] / "motto.txt").write_text("polly\n")
        request = PlanRequest(
            plugin="parrot",
            version="1.0.0",
            instance="parrot",
            isolation=isolation,
            package_dir=folders["package"],
            data_dir=folders["data"],
            temp_dir=folders["temp"],
            library_dirs=LIBRARIES,
            python=find_python_layout(),
            permissions=tuple(map(Permission.parse, permissions)),
            limits=limits,
            uid=61_500 if detect_mode() is Mode.ROOT else None,
        )
        return LaunchSpec(
            instance=InstanceId("parrot"),
            plugin="parrot",
            version="1.0.0",
            plan=make_plan(request, machine),
            package_dir=folders["package"],
            data_dir=folders["data"],
            temp_dir=folders["temp"],
        )

    return make


@dataclass(slots=True)
class Parrot:
    """A started machine and words with the plugin in it."""

    process: Process
    runner: VmRunner

    @classmethod
    async def start(cls, runner: VmRunner, spec: LaunchSpec) -> Parrot:
        process = await runner.start(spec)
        process.sock.setblocking(False)
        parrot = cls(process, runner)
        assert await parrot.read() == "hello"
        return parrot

    async def read(self) -> str:
        received = b""
        async with asyncio.timeout(TIMEOUT_S):
            while not received.endswith(b"\n"):
                part = await asyncio.get_running_loop().sock_recv(self.process.sock, 65536)
                if not part:
                    break
                received += part
        return received.decode().strip()

    async def tell(self, line: str) -> None:
        await asyncio.get_running_loop().sock_sendall(self.process.sock, f"{line}\n".encode())

    async def ask(self, line: str) -> str:
        await self.tell(line)
        return await self.read()

    async def end(self) -> Exit:
        """Wait for the end, and let go of the host's ends."""
        async with asyncio.timeout(TIMEOUT_S):
            ended = await self.runner.wait(self.process)
        self.process.sock.close()
        return ended

    async def printed(self) -> tuple[str, str]:
        """All that it wrote to its two streams."""
        return await _read_to_end(self.process.stdout), await _read_to_end(self.process.stderr)


async def _read_to_end(descriptor: int | None) -> str:
    assert descriptor is not None

    def read() -> bytes:
        with open(descriptor, "rb") as file:
            return file.read()

    return (await asyncio.to_thread(read)).decode()


async def test_a_plugin_in_a_machine_lives_as_one_in_a_process_does(runner: VmRunner, make_spec: MakeSpec) -> None:
    parrot = await Parrot.start(runner, make_spec())
    assert await parrot.ask("echo Good day") == "Good day"
    assert await parrot.ask(f"echo {'x' * 200_000}") == "x" * 200_000, "more than one record of TLS, both ways"
    uid, kernel, cpus = (await parrot.ask("who")).split()
    assert (uid, cpus) == ("1000", "1")
    assert kernel == find_hypervisor().kernel.version
    assert int(await parrot.ask("descriptors")) == 4
    assert await parrot.ask("environment") == "HOME LANG PATH PYTHONDONTWRITEBYTECODE TMPDIR"
    assert await parrot.ask("imports json.tool") == "imported"
    assert await parrot.ask("imports ssl") == "imported", "a module that needs shared libraries"
    assert await parrot.ask("imports pytest") == "ModuleNotFoundError"
    assert await parrot.ask("imports cardcage") == "ModuleNotFoundError"
    assert await parrot.ask("read /plugin/motto.txt") == "polly"
    assert await parrot.ask("write /plugin/motto.txt x") == "OSError 30", "it is read-only"
    assert await parrot.ask("read /cardcage/host/cardcage/__init__.py") == "FileNotFoundError"
    for path in ("/dev/vda", "/dev/vport0p1", "/sys/block/vda/size", "/proc/1/environ", "/boot.py"):
        assert await parrot.ask(f"read {path}") in ("FileNotFoundError", "PermissionError"), path
    assert await parrot.ask("write /data/kept 17") == "written"
    assert await parrot.ask("say polly") == "said"
    await parrot.tell("leave 7")
    ended = await parrot.end()
    assert (ended.reason, ended.code, ended.signal) == (ExitReason.CRASHED, 7, None)
    assert await parrot.printed() == ("polly\n", "POLLY\n")

    again = await Parrot.start(runner, make_spec())
    assert await again.ask("read /data/kept") == "17", "what it wrote is there at the next start"
    errno_, mebibytes = map(int, (await again.ask("fill /data/more")).split())
    assert errno_ == 28, "the disk is as large as its limit, whatever is written to how many files"
    assert 4 <= mebibytes < 16
    assert await again.ask("take 32") == "32"
    assert 8 <= int(await again.ask("fork 100")) <= 16, "the limit of processes holds, whoever makes them"
    await again.tell("take 400")
    ended = await again.end()
    assert (ended.reason, ended.signal) == (ExitReason.OUT_OF_MEMORY, signal.SIGKILL)
    await again.printed()


async def test_the_report_tells_of_the_walls_inside_and_around_and_of_the_network(
    runner: VmRunner, make_spec: MakeSpec
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    parrot = await Parrot.start(runner, make_spec(permissions=("network:127.0.0.1:7001", "network:api.example:443")))
    report = parrot.process.report
    assert report.status(LayerName.EGRESS) is LayerStatus.ENFORCED
    await _check_connections(parrot)
    assert report.below(STRICT_FLOOR) == ()
    assert report.status(LayerName.ENCRYPTION) is LayerStatus.ENFORCED
    assert report.status(LayerName.HYPERVISOR_WALLS) is LayerStatus.ENFORCED
    assert report.status(LayerName.CGROUP_LIMITS) is LayerStatus.ENFORCED
    held = LayerStatus.ENFORCED if find_hypervisor().kvm else LayerStatus.BEST_EFFORT
    assert report.status(LayerName.VIRTUAL_MACHINE) is held

    qemu = _only_child_running("qemu-system", of=parrot.process.pid)
    status = Path(f"/proc/{qemu}/status").read_text()
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    if detect_mode() is Mode.ROOT:
        assert "Uid:\t61500\t61500\t61500\t61500" in status
    assert os.readlink(f"/proc/{qemu}/ns/net") != os.readlink("/proc/self/ns/net")
    assert Path(f"/proc/{qemu}/environ").read_bytes() == b""

    runner.kill(parrot.process)
    ended = await parrot.end()
    assert (ended.reason, ended.signal) == (ExitReason.STOPPED, signal.SIGKILL)
    runner.kill(parrot.process)
    await parrot.printed()
    assert not Path(f"/proc/{qemu}").exists(), "the machine is gone"
    assert sorted(path.name for path in (make_spec().temp_dir).iterdir()) == []
    await runner.aclose()
    assert len(os.listdir("/proc/self/fd")) == before


async def _check_connections(parrot: Parrot) -> None:
    """What the plugin connects to is accepted here, and nowhere else."""
    loop = asyncio.get_running_loop()
    listeners = {place.endpoint: listener for place, listener in parrot.process.listeners}
    assert set(listeners) == {"127.0.0.1:7001", "api.example:443"}
    await parrot.tell("exchange api.example 443 2")
    listener = listeners["api.example:443"]
    async with asyncio.timeout(TIMEOUT_S):
        await _readable(listener)
        connection, _ = listener.accept()
        connection.setblocking(False)
        with connection:
            received = 0
            while part := await loop.sock_recv(connection, 65536):
                received += len(part)
            assert received == 2 * MIB
            await loop.sock_sendall(connection, b"y" * 700_000)
    assert await parrot.read() == "700000"

    await parrot.tell("exchange 127.0.0.1 7001 0")
    listener = listeners["127.0.0.1:7001"]
    async with asyncio.timeout(TIMEOUT_S):
        await _readable(listener)
        connection, _ = listener.accept()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    assert await parrot.read() == "ConnectionResetError", "what the relay refuses is reset in the guest, too"

    assert await parrot.ask("exchange 127.0.0.1 7002 0") == "ConnectionRefusedError"
    assert await parrot.ask("exchange 192.0.2.1 443 0") == "OSError", "there is no way to any other address"
    parrot.process.close_listeners()


async def _readable(sock: socket.socket) -> None:
    ready = asyncio.Event()
    asyncio.get_running_loop().add_reader(sock, ready.set)
    await ready.wait()
    asyncio.get_running_loop().remove_reader(sock)


def _only_child_running(program: str, *, of: int) -> int:
    children = Path(f"/proc/{of}/task/{of}/children").read_text().split()
    return next(int(child) for child in children if program in Path(f"/proc/{child}/comm").read_text())


async def test_a_plan_of_another_kind_is_misuse(runner: VmRunner, make_spec: MakeSpec) -> None:
    with pytest.raises(Misuse) as caught:
        await runner.start(make_spec(isolation="process"))
    assert caught.value.code == "wrong_runner"


@pytest.mark.parametrize("permission", ["read:/usr/share/", "write:/srv/reports/", "subprocess:/usr/bin/env"])
async def test_what_a_machine_cannot_have_is_refused_and_not_left_out(
    runner: VmRunner, make_spec: MakeSpec, permission: str
) -> None:
    with pytest.raises(Refused, match="parrot") as caught:
        await runner.start(make_spec(permissions=(permission,)))
    assert caught.value.code == "vm_grant_impossible"


async def test_a_start_that_cannot_be_is_the_plugins_fault_and_names_it(runner: VmRunner, make_spec: MakeSpec) -> None:
    spec = make_spec()
    spec.data_dir.rmdir()
    with pytest.raises(PluginFault, match="parrot") as caught:
        await runner.start(spec)
    assert caught.value.code == "setup_failed"
    assert caught.value.fields["version"] == "1.0.0"


async def test_a_disk_above_its_limit_is_refused_with_what_to_do(runner: VmRunner, make_spec: MakeSpec) -> None:
    spec = make_spec()
    with (spec.data_dir / "disk.img").open("wb") as disk:
        disk.truncate(17 * MIB)
    with pytest.raises(Refused, match="parrot") as caught:
        await runner.start(spec)
    assert caught.value.code == "disk_too_large"
    assert "disk.img" in (caught.value.hint or "")


async def test_machines_are_bounded_by_the_memory_there_is(
    machine: MachineReport, boot_dir: Path, tmp_path: Path, make_spec: MakeSpec
) -> None:
    links = Links(Authority.open(tmp_path))
    budget = MemoryBudget(total_bytes=200 * MIB)
    vms = VmRunner(links=lambda: links, cache_dir=boot_dir, main="guest_child:main", libraries=LIBRARIES, budget=budget)
    async with vms:
        with pytest.raises(Unavailable, match="parrot") as caught:
            await vms.start(make_spec())
    assert caught.value.code == "vm_memory"
    assert budget.reserved_bytes == 0


async def test_a_cancelled_start_leaves_no_machine(runner: VmRunner, make_spec: MakeSpec) -> None:
    starting = asyncio.create_task(runner.start(make_spec()))
    async with asyncio.timeout(TIMEOUT_S):
        while not runner.running:
            await asyncio.sleep(0.01)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert runner.running == 0


HOST = """
import asyncio, pickle, sys
from pathlib import Path
from cardcage.launch.link import Links
from cardcage.launch.vm.runner import VmRunner
from cardcage.trust.authority import Authority

async def main(spec, boot_dir, keys_dir):
    links = Links(Authority.open(keys_dir))
    async with VmRunner(links=lambda: links, cache_dir=boot_dir) as vms:
        starting = asyncio.create_task(vms.start(spec))
        while not vms.running and not starting.done():
            await asyncio.sleep(0.01)
        print("booting", flush=True)
        await starting

asyncio.run(main(*pickle.load(sys.stdin.buffer)))
"""


async def test_a_host_that_is_killed_takes_its_machines_along(
    machine: MachineReport, boot_dir: Path, tmp_path: Path, make_spec: MakeSpec
) -> None:
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOST, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert host.stdin is not None
    assert host.stdout is not None
    host.stdin.write(pickle.dumps((make_spec(), boot_dir, tmp_path)))
    host.stdin.close()
    async with asyncio.timeout(TIMEOUT_S):
        assert await host.stdout.readline() == b"booting\n"
        machines = _descendants(host.pid)
        assert machines, "its fork server and what came of that"
        host.kill()
        await host.wait()
        while any(_is_alive(pid) for pid in machines):
            await asyncio.sleep(0.01)


def _descendants(pid: int) -> set[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    return set(children).union(*map(_descendants, children))


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
