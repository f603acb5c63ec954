"""What every runner promises, held against each of them with real processes."""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest

from cardcage.foundation.errors import Misuse, PluginFault
from cardcage.foundation.names import InstanceId
from cardcage.launch.container import ContainerRunner
from cardcage.launch.oci_runtimes import OciRuntime, installed_runtimes
from cardcage.launch.runner import Exit, ExitReason, LaunchSpec, Process
from cardcage.launch.unconfined import UnconfinedRunner
from cardcage.launch.zygote import ZygoteRunner
from cardcage.sandbox import landlock
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.group_search import GroupsFound, find_groups
from cardcage.sandbox.mode import why_no_fallback
from cardcage.sandbox.plan import FALLBACK_FLOOR, STRICT_FLOOR, PlanRequest, PythonLayout, ResourceLimits, make_plan
from cardcage.sandbox.python_layout import core_libraries, find_python_layout
from cardcage.sandbox.report import LayerName, LayerStatus, MachineReport, Mode

CHILD = ("runner_child", Path(__file__).parent / "runner_child.py")
TIMEOUT_S = 30.0

AnyRunner = ZygoteRunner | UnconfinedRunner | ContainerRunner


@pytest.fixture(scope="module")
def machine() -> MachineReport:
    return examine()


@pytest.fixture
def groups(request: pytest.FixtureRequest) -> Iterator[GroupsFound | None]:
    """Control groups for the runners that are told to use them."""
    if not request.node.callspec.params["runner"].endswith("in groups"):
        yield None
        return
    found = find_groups()
    if found.driver is None:
        pytest.skip(f"must run as root, or where control groups are delegated: {found.why_not}")
    yield found
    left = {folder for place in found.driver.folders for folder, _, _ in os.walk(place)} - set(
        map(str, found.driver.folders)
    )
    found.driver.close()
    assert not left, "each group goes with its process"


RUNNERS = (
    "process",
    "process in groups",
    "process without namespaces",
    "enciphered process",
    "unconfined",
    "unconfined in groups",
    "container",
    "container by podman",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the plugins of a runner stand, and on what machine they believe themselves to be."""

    folder: Path
    machine: MachineReport
    libraries: tuple[tuple[str, Path], ...] = (*core_libraries(), CHILD)
    python: PythonLayout = field(default_factory=find_python_layout)


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path, machine: MachineReport) -> Iterator[Place]:
    """The test's own folder; without namespaces one that other users can get to, and a Python that they can run."""
    if request.node.callspec.params["runner"] != "process without namespaces":
        yield Place(folder=tmp_path, machine=machine)
        return
    if missing := why_no_fallback():
        pytest.skip(f"the wall without namespaces cannot be put up here: {missing}")
    with tempfile.TemporaryDirectory(prefix="without-namespaces-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        libraries = tuple(
            (library, _copy(source, folder / "libraries"))
            for library, source in Place(folder=folder, machine=machine).libraries
        )
        weaker = dataclasses.replace(machine, mode=Mode.FALLBACK, landlock_abi=landlock.abi())
        yield Place(folder=folder / "instances", machine=weaker, libraries=libraries, python=_open_python())


def _copy(source: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True, mode=0o755)
    target = folder / source.name
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        shutil.copy(source, target)
    return target


def _open_python() -> PythonLayout:
    """This Python, or the system's of the same version where this one stands in root's home."""
    own = find_python_layout()
    stdlib = Path(own.stdlib)
    if os.geteuid() != 0 or all(each.stat().st_mode & 0o001 for each in (stdlib, *stdlib.parents)):
        return own
    executable, stdlib = Path(f"/usr/bin/python{own.version}"), Path(f"/usr/lib/python{own.version}")
    if not (executable.exists() and (stdlib / "lib-dynload").exists()):
        pytest.skip("must not run as root: this Python stands in a folder that no other user can get into")
    return msgspec.structs.replace(own, executable=str(executable), stdlib=str(stdlib), hidden=())


@pytest.fixture(params=RUNNERS)
async def runner(
    request: pytest.FixtureRequest, machine: MachineReport, groups: GroupsFound | None, place: Place
) -> AsyncIterator[AnyRunner]:
    if request.param == "process without namespaces":
        async with ZygoteRunner(
            main="runner_child:main", libraries=place.libraries, python=place.python, mode=Mode.FALLBACK
        ) as confined:
            yield confined
        return
    if request.param.startswith("unconfined"):
        async with UnconfinedRunner(main="runner_child:main", groups=groups) as unconfined:
            yield unconfined
        return
    if machine.below(STRICT_FLOOR):
        pytest.skip(f"walls cannot be put up here: {[layer.name for layer in machine.below(STRICT_FLOOR)]}")
    if request.param.startswith("container"):
        wanted = "podman" if "podman" in request.param else "crun"
        if wanted not in {runtime.name for runtime in installed_runtimes()}:
            pytest.skip(f"no OCI runtime is installed: {wanted}")
        async with ContainerRunner(main="runner_child:main", runtime=wanted) as contained:
            yield contained
        return
    async with ZygoteRunner(main="runner_child:main", libraries=(*core_libraries(), CHILD), groups=groups) as walled:
        yield walled


@dataclass(slots=True)
class Started:
    """A started process and words with it."""

    process: Process
    runner: AnyRunner

    async def read(self) -> str:
        """One line, or nothing at the end."""
        loop, received = asyncio.get_running_loop(), b""
        async with asyncio.timeout(TIMEOUT_S):
            while not received.endswith(b"\n"):
                part = await loop.sock_recv(self.process.sock, 65536)
                if not part:
                    break
                received += part
        return received.decode().strip()

    async def tell(self, line: str) -> None:
        await asyncio.get_running_loop().sock_sendall(self.process.sock, f"{line}\n".encode())

    async def ask(self, line: str) -> str:
        await self.tell(line)
        return await self.read()

    async def wait(self) -> Exit:
        async with asyncio.timeout(TIMEOUT_S):
            return await self.runner.wait(self.process)

    async def output(self, descriptor: int | None) -> str:
        """All that the process wrote to the end of the pipe."""
        assert descriptor is not None
        return (await asyncio.to_thread(_read_to_end, descriptor)).decode()


def _read_to_end(descriptor: int) -> bytes:
    parts: list[bytes] = []
    while part := os.read(descriptor, 65536):
        parts.append(part)
    return b"".join(parts)


@pytest.fixture
def encrypt(request: pytest.FixtureRequest) -> bool:
    """Whether the wire is to be enciphered where nobody but the operator asks for it."""
    return request.node.callspec.params["runner"] == "enciphered process"


MakeSpec = Callable[..., LaunchSpec]
Start = Callable[..., Awaitable[Started]]


@pytest.fixture
def make_spec(place: Place, runner: AnyRunner, encrypt: bool) -> MakeSpec:
    def make(instance: str = "parrot", *, limits: ResourceLimits | None = None, isolation: str = "") -> LaunchSpec:
        folders = {name: place.folder / instance / name for name in ("package", "data", "temp")}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)
        request = PlanRequest(
            plugin="parrot",
            version="1.0.0",
            instance=instance,
            isolation=isolation or runner.name,
            package_dir=folders["package"],
            data_dir=folders["data"],
            temp_dir=folders["temp"],
            library_dirs=place.libraries,
            python=place.python,
            limits=limits or ResourceLimits(),
            uid=61_000 + len(list(place.folder.iterdir())) if os.geteuid() == 0 else None,
            allow_fallback=True,
        )
        return LaunchSpec(
            instance=InstanceId(instance),
            plugin="parrot",
            version="1.0.0",
            plan=make_plan(request, place.machine),
            package_dir=folders["package"],
            data_dir=folders["data"],
            temp_dir=folders["temp"],
            encrypt=encrypt,
        )

    return make


@pytest.fixture
async def start(runner: AnyRunner, make_spec: MakeSpec) -> AsyncIterator[Start]:
    processes: list[Process] = []

    async def begin(instance: str = "parrot", *, limits: ResourceLimits | None = None) -> Started:
        process = await runner.start(make_spec(instance, limits=limits))
        processes.append(process)
        process.sock.setblocking(False)
        started = Started(process, runner)
        assert await started.read() == "hello"
        return started

    yield begin
    for process in processes:
        runner.kill(process)
        await runner.wait(process)
        process.sock.close()
        for descriptor in (process.stdout, process.stderr):
            if descriptor is not None:
                os.close(descriptor)


async def test_a_started_process_speaks_over_its_socket(start: Start) -> None:
    parrot = await start()
    assert await parrot.ask("echo Good day") == "Good day"


async def test_the_pid_is_the_process_as_the_host_sees_it(start: Start) -> None:
    parrot = await start()
    os.kill(parrot.process.pid, 0)
    os.kill(parrot.process.pid, signal.SIGKILL)
    assert (await parrot.wait()).signal == signal.SIGKILL


async def test_what_it_prints_arrives_on_its_pipes(start: Start) -> None:
    parrot = await start()
    assert await parrot.ask("say polly") == "said"
    parrot.process.sock.shutdown(socket.SHUT_RDWR)
    assert await parrot.output(parrot.process.stdout) == "polly\n"
    assert await parrot.output(parrot.process.stderr) == "POLLY\n"


@pytest.mark.parametrize("runner", ["container"], indirect=True)
async def test_an_end_is_told_also_where_the_runtime_does_not_tidy_up_in_time(
    start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parrot = await start()

    def may_have_left(self: OciRuntime, *, state: Path, name: str) -> bool:
        return True

    def delete(self: OciRuntime, *, state: Path, name: str) -> tuple[str, ...]:
        return "/bin/sleep", "600"

    monkeypatch.setattr(OciRuntime, "may_have_left", may_have_left)
    monkeypatch.setattr(OciRuntime, "delete", delete)
    monkeypatch.setattr("cardcage.launch.container.STOP_TIMEOUT_S", 0.2)
    parrot.runner.kill(parrot.process)
    assert (await parrot.wait()).reason is ExitReason.STOPPED
    assert "could not all be removed" in caplog.text


async def test_leaving_with_status_zero_is_a_stop(start: Start) -> None:
    parrot = await start()
    await parrot.tell("leave 0")
    assert await parrot.wait() == Exit(reason=ExitReason.STOPPED, code=0, detail="left with status 0")


async def test_the_end_of_the_wire_ends_the_process(start: Start) -> None:
    parrot = await start()
    parrot.process.sock.shutdown(socket.SHUT_RDWR)
    assert (await parrot.wait()).reason is ExitReason.STOPPED


async def test_leaving_with_another_status_is_a_crash_with_that_status(start: Start) -> None:
    parrot = await start()
    await parrot.tell("leave 7")
    ended = await parrot.wait()
    assert (ended.reason, ended.code, ended.signal) == (ExitReason.CRASHED, 7, None)


async def test_an_exception_is_a_crash_with_its_traceback_on_stderr(start: Start) -> None:
    parrot = await start()
    await parrot.tell("fail deliberately")
    assert (await parrot.wait()).reason is ExitReason.CRASHED
    assert "RuntimeError: deliberately" in await parrot.output(parrot.process.stderr)


@pytest.mark.parametrize("name", ["SIGABRT", "SIGSEGV"])
async def test_a_signal_of_its_own_making_is_a_crash(start: Start, name: str) -> None:
    parrot = await start()
    await parrot.tell("fault" if name == "SIGSEGV" else f"signal {name}")
    ended = await parrot.wait()
    assert (ended.reason, ended.code, ended.signal) == (ExitReason.CRASHED, None, signal.Signals[name])


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
async def test_a_signal_that_neither_host_nor_limit_sent_is_a_kill(start: Start, name: str) -> None:
    parrot = await start()
    await parrot.tell(f"signal {name}")
    ended = await parrot.wait()
    assert (ended.reason, ended.signal) == (ExitReason.KILLED, signal.Signals[name])


async def test_a_kill_by_the_host_is_a_stop(start: Start, runner: AnyRunner) -> None:
    parrot = await start()
    runner.kill(parrot.process)
    ended = await parrot.wait()
    assert (ended.reason, ended.signal) == (ExitReason.STOPPED, signal.SIGKILL)


async def test_a_kill_after_the_end_is_harmless_and_changes_nothing(start: Start, runner: AnyRunner) -> None:
    parrot = await start()
    await parrot.tell("leave 3")
    before = await parrot.wait()
    runner.kill(parrot.process)
    assert await parrot.wait() == before


async def test_the_end_can_be_waited_for_by_many_and_a_cancelled_wait_ends_nothing(
    start: Start, runner: AnyRunner
) -> None:
    parrot = await start()
    impatient = asyncio.create_task(runner.wait(parrot.process))
    await asyncio.sleep(0)
    impatient.cancel()
    with pytest.raises(asyncio.CancelledError):
        await impatient
    assert await parrot.ask("echo still here") == "still here"
    await parrot.tell("leave 0")
    first, second = await asyncio.gather(parrot.wait(), parrot.wait())
    assert first == second


async def test_what_it_leaves_behind_ends_with_it(start: Start, runner: AnyRunner) -> None:
    parrot = await start()
    assert await parrot.ask("daemonise") == "left one behind"
    runner.kill(parrot.process)
    await parrot.wait()
    assert await parrot.read() == "", "something still holds the wire"


async def test_what_it_leaves_behind_ends_with_it_when_it_leaves_by_itself(start: Start) -> None:
    parrot = await start()
    assert await parrot.ask("daemonise") == "left one behind"
    await parrot.tell("leave 0")
    await parrot.wait()
    assert await parrot.read() == "", "something still holds the wire"


async def test_it_holds_its_streams_and_its_wire_and_no_other_descriptor(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as secret:
        os.set_inheritable(secret.fileno(), True)
        parrot = await start()
        assert len((await parrot.ask("descriptors")).split()) == 4


async def test_it_sees_nothing_of_the_hosts_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARDCAGE_TEST_SECRET", "hunter2")
    monkeypatch.setenv("LD_PRELOAD_TEST", "/evil.so")
    parrot = await start()
    environment = await parrot.ask("environment")
    assert "HOME" in environment
    assert "CARDCAGE_TEST_SECRET" not in environment
    assert "LD_PRELOAD" not in environment


async def test_it_can_import_its_libraries_and_not_what_lies_beside_them(start: Start) -> None:
    parrot = await start()
    assert await parrot.ask("imports msgspec.json") == "imported"
    assert await parrot.ask("imports json.tool") == "imported"
    assert await parrot.ask("imports pytest") == "ModuleNotFoundError"
    assert await parrot.ask("imports cardcage") == "ModuleNotFoundError"


async def test_many_start_at_once(start: Start) -> None:
    parrots = await asyncio.gather(*(start(f"parrot-{number}") for number in range(12)))
    answers = await asyncio.gather(*(parrot.ask(f"echo {n}") for n, parrot in enumerate(parrots)))
    assert answers == [str(number) for number in range(12)]
    assert len({parrot.process.pid for parrot in parrots}) == 12


async def test_a_cancelled_start_leaves_no_process(runner: AnyRunner, start: Start, make_spec: MakeSpec) -> None:
    await start("warm")  # which has said hello, so that all its processes are there
    before = _descendants()
    for turns in range(12):
        starting = asyncio.create_task(runner.start(make_spec("hasty")))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        try:
            process = await starting
        except asyncio.CancelledError:
            continue
        runner.kill(process)
        await runner.wait(process)
        _close(process)
    await _until(lambda: _descendants() == before)


async def test_starting_and_ending_leaks_no_descriptor(runner: AnyRunner, make_spec: MakeSpec) -> None:
    async def once() -> None:
        process = await runner.start(make_spec())
        runner.kill(process)
        await runner.wait(process)
        _close(process)

    await once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        await once()
    assert len(os.listdir("/proc/self/fd")) == before


async def test_closing_the_runner_ends_everything(runner: AnyRunner, make_spec: MakeSpec) -> None:
    before = _descendants()
    processes = [await runner.start(make_spec(f"parrot-{number}")) for number in range(3)]
    waiting = [asyncio.create_task(runner.wait(process)) for process in processes]
    await runner.aclose()
    ends = await asyncio.gather(*waiting)
    assert {end.reason for end in ends} == {ExitReason.STOPPED}
    await _until(lambda: _descendants() <= before)
    for process in processes:
        _close(process)


async def test_a_plan_of_another_kind_is_misuse(runner: AnyRunner, make_spec: MakeSpec) -> None:
    other = "unconfined" if runner.name == "process" else "process"
    with pytest.raises(Misuse, match="parrot") as caught:
        await runner.start(make_spec(isolation=other))
    assert caught.value.code == "wrong_runner"


async def test_a_start_that_cannot_be_is_the_plugins_fault_and_names_it(
    runner: AnyRunner, make_spec: MakeSpec, tmp_path: Path
) -> None:
    spec = make_spec("lost")
    spec.data_dir.rmdir()
    with pytest.raises(PluginFault, match="parrot") as caught:
        await runner.start(spec)
    assert caught.value.code == "setup_failed"
    assert caught.value.fields["version"] == "1.0.0"


async def test_the_report_says_whether_the_wire_is_enciphered(start: Start, runner: AnyRunner, encrypt: bool) -> None:
    parrot = await start()
    enciphered = encrypt or runner.name == "container"
    expected = LayerStatus.ENFORCED if enciphered else LayerStatus.OFF
    assert parrot.process.report.status("encryption") is expected


async def test_the_report_says_what_holds(start: Start, runner: AnyRunner, place: Place) -> None:
    parrot = await start()
    report = parrot.process.report
    if runner.name == "unconfined":
        walls = [layer for layer in report.layers if layer.name != LayerName.CGROUP_LIMITS]
        assert {layer.status for layer in walls} == {LayerStatus.OFF}
    else:
        fallback = place.machine.mode is Mode.FALLBACK
        wanted = FALLBACK_FLOOR if fallback else STRICT_FLOOR
        assert report.below(name for name in wanted if name != "own_uid" or os.geteuid() == 0) == ()


def _close(process: Process) -> None:
    process.sock.close()
    for descriptor in (process.stdout, process.stderr):
        if descriptor is not None:
            os.close(descriptor)


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for what has been set going: a process that was killed may still be on its way out."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.fixture(autouse=True)
def adopt_orphans() -> Iterator[None]:
    """Processes that lose their parent become this one's children, so that none is overlooked, and are reaped."""
    prctl = ctypes.CDLL(None).prctl
    prctl(36, 1, 0, 0, 0)
    yield
    prctl(36, 0, 0, 0, 0)
    for pid in _dead_children():
        os.waitpid(pid, os.WNOHANG)


def _dead_children() -> list[int]:
    return [pid for pid, (state, parent) in _processes().items() if state == "Z" and parent == os.getpid()]


def _descendants() -> set[int]:
    """Every living process that came of this one; the dead that nobody has asked after yet do not count."""
    parents = {pid: parent for pid, (state, parent) in _processes().items() if state not in "ZX"}
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {os.getpid()}


def _processes() -> dict[int, tuple[str, int]]:
    """State and parent of every process."""
    found: dict[int, tuple[str, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            found[int(entry.name)] = (fields[0], int(fields[1]))
    return found
