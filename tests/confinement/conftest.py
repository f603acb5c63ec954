"""A walled process and an unconfined one that run the same probes."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cardcage.foundation.names import InstanceId
from cardcage.launch.container import ContainerRunner
from cardcage.launch.oci_runtimes import installed_runtimes
from cardcage.launch.runner import LaunchSpec, Process
from cardcage.launch.unconfined import UnconfinedRunner
from cardcage.launch.zygote import ZygoteRunner
from cardcage.permissions import Permission
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.plan import STRICT_FLOOR, PlanRequest, ResourceLimits, make_plan
from cardcage.sandbox.python_layout import core_libraries, find_python_layout
from cardcage.sandbox.report import EnforcementReport, MachineReport, Mode

TIMEOUT_S = 60.0
PROBE = ("walled_probe", Path(__file__).parent / "walled_probe.py")
LIBRARIES = (*core_libraries(), PROBE)


class Loop:
    """An event loop in a thread, so that one process can serve the tests of a whole module."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Awaitable[Any], timeout_s: float = TIMEOUT_S) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(timeout_s):
                return await work

        return asyncio.run_coroutine_threadsafe(bounded(), self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(TIMEOUT_S)
        self._loop.close()


class Prober:
    """Runs probes in one process and hands back what came of each."""

    def __init__(self, loop: Loop, runner: WalledRunner | UnconfinedRunner, process: Process) -> None:
        self._loop = loop
        self.runner = runner
        self.process = process
        process.sock.settimeout(TIMEOUT_S)
        self._wire = process.sock.makefile("rw", encoding="utf-8")

    @property
    def report(self) -> EnforcementReport:
        return self.process.report

    def attempt(self, probe: str, *arguments: Any) -> dict[str, Any]:
        """The probe's answer: a `value`, an `error` by name, or the `signal` that ended it."""
        self._wire.write(json.dumps({"probe": probe, "arguments": arguments}) + "\n")
        self._wire.flush()
        return json.loads(self._wire.readline())

    def close(self) -> None:
        self.runner.kill(self.process)
        self._loop.run(self.runner.wait(self.process))
        self._wire.close()
        self.process.sock.close()
        for descriptor in (self.process.stdout, self.process.stderr):
            if descriptor is not None:
                os.close(descriptor)


@pytest.fixture(scope="session")
def machine() -> MachineReport:
    """What this machine enforces; the tests are skipped where the floor cannot be had."""
    report = examine()
    if missing := report.below(STRICT_FLOOR):
        pytest.skip(f"walls cannot be put up here: {', '.join(f'{layer.name}: {layer.detail}' for layer in missing)}")
    return report


@pytest.fixture(scope="session")
def as_root(machine: MachineReport) -> bool:
    """Whether the host is root, so that what an ordinary user is refused anyway can serve as a control."""
    return machine.mode is Mode.ROOT


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    """A loop for the session's processes."""
    running = Loop()
    yield running
    running.close()


@pytest.fixture(scope="session", params=["process", "container"])
def isolation(request: pytest.FixtureRequest, machine: MachineReport) -> str:
    """The kinds of walls that are tried with the same code."""
    if request.param == "container" and not installed_runtimes():
        pytest.skip("no OCI runtime is installed: crun")
    return request.param


WalledRunner = ZygoteRunner | ContainerRunner


def make_runner(isolation: str, main: str, libraries: Any) -> WalledRunner:
    """The runner that puts up those walls."""
    return ContainerRunner(main=main) if isolation == "container" else ZygoteRunner(main=main, libraries=libraries)


@pytest.fixture(scope="session")
def runner_of(isolation: str) -> Callable[[str, Any], WalledRunner]:
    """Makes a runner of this kind of walls, for a main function and the libraries that it may import."""
    return lambda main, libraries: make_runner(isolation, main, libraries)


@pytest.fixture(scope="session")
def zygote(loop: Loop, isolation: str) -> Iterator[WalledRunner]:
    """The session's runner: the fork server, or one that makes containers."""

    async def make() -> WalledRunner:
        return make_runner(isolation, "walled_probe:main", LIBRARIES)

    runner = loop.run(make())
    yield runner
    loop.run(runner.aclose())


MakeSpec = Callable[..., LaunchSpec]


@pytest.fixture(scope="session")
def make_spec(machine: MachineReport, isolation: str, tmp_path_factory: pytest.TempPathFactory) -> MakeSpec:
    """Makes a spec with folders of its own and, where the host is root, a uid of its own."""
    made: list[str] = []

    def make(
        *permissions: str,
        isolation: str = isolation,
        limits: ResourceLimits | None = None,
        floor: Any = None,
        libraries: Any = LIBRARIES,
    ) -> LaunchSpec:
        name = f"hostile-{len(made)}"
        made.append(name)
        folder = tmp_path_factory.mktemp(name)
        folders = SimpleNamespace(**{part: folder / part for part in ("package", "data", "temp")})
        for path in vars(folders).values():
            path.mkdir()
        (folders.package / "module.py").write_text("")
        (folders.data / "own.txt").write_text(name)
        plan = make_plan(
            PlanRequest(
                plugin="hostile",
                version="6.6.6",
                instance=name,
                isolation=isolation,
                package_dir=folders.package,
                data_dir=folders.data,
                temp_dir=folders.temp,
                library_dirs=libraries,
                permissions=tuple(map(Permission.parse, permissions)),
                python=find_python_layout(),
                limits=limits or ResourceLimits(temp_bytes=8 << 20),
                uid=62_000 + len(made) if machine.mode is Mode.ROOT else None,
                floor=floor,
            ),
            machine,
        )
        return LaunchSpec(
            instance=InstanceId(name),
            plugin="hostile",
            version="6.6.6",
            plan=plan,
            package_dir=folders.package,
            data_dir=folders.data,
            temp_dir=folders.temp,
        )

    return make


@pytest.fixture(scope="session")
def prober_of(loop: Loop) -> Callable[..., Prober]:
    """Makes a prober of a process that a test has started itself."""

    def make(runner: WalledRunner, process: Process) -> Prober:
        return Prober(loop, runner, process)

    return make


Enter = Callable[..., Prober]


@pytest.fixture(scope="session")
def enter(loop: Loop, zygote: WalledRunner, make_spec: MakeSpec) -> Iterator[Enter]:
    """Starts a walled process with the permissions given."""
    probers: list[Prober] = []

    def begin(*permissions: str, limits: ResourceLimits | None = None) -> Prober:
        process = loop.run(zygote.start(make_spec(*permissions, limits=limits)))
        probers.append(Prober(loop, zygote, process))
        return probers[-1]

    yield begin
    for prober in probers:
        prober.close()


@pytest.fixture(scope="session")
def walled(enter: Enter) -> Prober:
    """A walled process without a single grant."""
    return enter()


@pytest.fixture(scope="session")
def unconfined(loop: Loop, make_spec: MakeSpec) -> Iterator[Prober]:
    """The same code without walls: the control that shows that a probe can succeed at all."""

    async def make() -> tuple[UnconfinedRunner, Process]:
        runner = UnconfinedRunner(main="walled_probe:main")
        return runner, await runner.start(make_spec(isolation="unconfined"))

    runner, process = loop.run(make())
    prober = Prober(loop, runner, process)
    yield prober
    prober.close()
    loop.run(runner.aclose())


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Things of the host that a plugin must not reach: files, listeners, a process with a secret, open descriptors."""
    import socket
    import subprocess
    import sys

    folder = tmp_path_factory.mktemp("host")
    (folder / ".ssh").mkdir()
    key = folder / ".ssh" / "id_rsa"
    key.write_text("PLANTED PRIVATE KEY")
    other = tmp_path_factory.mktemp("other-plugin") / "data.txt"
    other.write_text("PLANTED DATA")
    tcp4 = socket.create_server(("127.0.0.1", 0))
    tcp6 = socket.create_server(("::1", 0), family=socket.AF_INET6)
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0cardcage-test-{os.getpid()}")
    abstract.listen()
    path = socket.socket(socket.AF_UNIX)
    path.bind(str(folder / "docker.sock"))
    path.listen()
    sleeper = subprocess.Popen(
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
        env={"PLANTED_SECRET": "hunter2"},
        stdout=subprocess.PIPE,
    )
    assert sleeper.stdout is not None
    assert sleeper.stdout.readline() == b"up\n"
    os.environ["PLANTED_SECRET"] = "hunter2"
    inherited = [os.open(key, os.O_RDONLY) for _ in range(8)]
    for descriptor in inherited:
        os.set_inheritable(descriptor, True)
    yield SimpleNamespace(
        key=str(key),
        home=str(folder),
        other=str(other),
        tcp4=tcp4.getsockname()[1],
        tcp6=tcp6.getsockname()[1],
        udp=udp.getsockname()[1],
        abstract=f"@cardcage-test-{os.getpid()}",
        unix=str(folder / "docker.sock"),
        pid=sleeper.pid,
    )
    del os.environ["PLANTED_SECRET"]
    sleeper.kill()
    sleeper.wait()
    sleeper.stdout.close()
    for one in (tcp4, tcp6, udp, abstract, path):
        one.close()
    for descriptor in inherited:
        os.close(descriptor)
