"""Processes behind the wall without namespaces, started on any machine that has Landlock and seccomp notification."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from cardcage.foundation.names import InstanceId
from cardcage.launch.runner import LaunchSpec, Process
from cardcage.launch.unconfined import UnconfinedRunner
from cardcage.launch.zygote import ZygoteRunner
from cardcage.permissions import Permission
from cardcage.sandbox import landlock
from cardcage.sandbox.mode import why_no_fallback
from cardcage.sandbox.plan import PlanRequest, PythonLayout, ResourceLimits, make_plan
from cardcage.sandbox.python_layout import core_libraries, find_python_layout
from cardcage.sandbox.report import MachineReport, Mode
from cardcage.sandbox.syscalls import MACHINE, NUMBERS

CLIENT_LIBRARIES = (
    *("requests", "urllib3", "idna", "certifi", "charset_normalizer", "httpx", "httpcore", "h11", "anyio", "sniffio"),
    *("aiohttp", "multidict", "yarl", "frozenlist", "aiosignal", "attr", "attrs", "propcache", "aiohappyeyeballs"),
    "typing_extensions",
)

HOST_TIMEOUT_S = 90

FORBID_NAMESPACES = """
import ctypes, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
program = bytes.fromhex(sys.argv.pop())
buffer = ctypes.create_string_buffer(program, len(program))
header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0
"""
REFUSE, ALLOW = (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)
NO_UNSHARE = ((0x20, 0, 0, 0), (0x15, 0, 1, NUMBERS.get(MACHINE, {}).get("unshare", 0)), REFUSE, ALLOW)
"""A filter that refuses new namespaces, code by code: architecture apart, as the test's own calls need none."""

UID = 62_500
"""The first of the uids that are given out here where the host is root."""


@pytest.fixture(scope="session")
def without_namespaces() -> MachineReport:
    """This machine as if it forbade namespaces."""
    if missing := why_no_fallback():
        pytest.skip(f"the wall without namespaces cannot be put up here: {missing}")
    return MachineReport(
        system="Linux",
        kernel=os.uname().release,
        architecture=os.uname().machine,
        mode=Mode.FALLBACK,
        uid=os.geteuid(),
        gid=os.getegid(),
        layers=(),
        landlock_abi=landlock.abi(),
        facts={"no_namespaces": "the test says so"},
    )


@pytest.fixture(scope="session")
def open_folder() -> Iterator[Path]:
    """A folder that every uid can get into, as pytest's own cannot be."""
    folder = Path(tempfile.mkdtemp(prefix="without-namespaces-"))
    folder.chmod(0o711)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def python(without_namespaces: MachineReport) -> PythonLayout:
    """A Python that the instance's uid can get to: this one, or the system's where this one is in root's home."""
    own = find_python_layout()
    if os.geteuid() != 0 or _is_open(Path(own.stdlib)):
        return own
    stdlib = Path(f"/usr/lib/python{own.version}")
    executable = Path(f"/usr/bin/python{own.version}")
    if not (executable.exists() and (stdlib / "lib-dynload").exists()):
        pytest.skip("must not run as root: this Python stands in a folder that no other user can get into")
    return msgspec.structs.replace(own, executable=str(executable), stdlib=str(stdlib), hidden=())


def _is_open(folder: Path) -> bool:
    return all(each.stat().st_mode & 0o001 for each in (folder, *folder.parents))


@pytest.fixture(scope="session")
def libraries(open_folder: Path) -> tuple[tuple[str, Path], ...]:
    """The packages of the plugin's side and the probes, copied to where every uid can read them."""
    copied: list[tuple[str, Path]] = []
    probes = [(name, Path(__file__).parent.parent / f"{name}.py") for name in ("walled_probe", "egress_probe")]
    for name, source in (*core_libraries(), *probes, *_client_libraries()):
        target = open_folder / "libraries" / source.name
        target.parent.mkdir(exist_ok=True, mode=0o755)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
        copied.append((name, target))
    return tuple(copied)


def _client_libraries() -> list[tuple[str, Path]]:
    """What the clients of the probes are made of, where it is installed."""
    found: list[tuple[str, Path]] = []
    for name in CLIENT_LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin is not None:
            place = Path(spec.origin)
            found.append((name, place.parent if place.name == "__init__.py" else place))
    return found


@pytest.fixture(scope="session")
def request_plan(python: PythonLayout, libraries: Any, open_folder: Path) -> Callable[..., PlanRequest]:
    """Makes a request for a plan, with folders of its own."""
    made: list[str] = []

    def make(*permissions: str, isolation: str = "process", allow: bool = True, **more: Any) -> PlanRequest:
        name = f"instance-{len(made)}"
        made.append(name)
        folder = open_folder / name
        folder.mkdir(mode=0o711)
        for part in ("package", "data", "temp"):
            (folder / part).mkdir(mode=0o755)
        (folder / "package" / "module.py").write_text("")
        (folder / "data" / "own.txt").write_text(name)
        return PlanRequest(
            plugin="hostile",
            version="6.6.6",
            instance=name,
            isolation=isolation,
            package_dir=folder / "package",
            data_dir=folder / "data",
            temp_dir=folder / "temp",
            library_dirs=libraries,
            permissions=tuple(map(Permission.parse, permissions)),
            python=python,
            uid=UID + len(made) if os.geteuid() == 0 and isolation == "process" else None,
            allow_fallback=allow,
            **more,
        )

    return make


@pytest.fixture(scope="session")
def make_fallback_spec(request_plan: Any, without_namespaces: MachineReport) -> Callable[..., LaunchSpec]:
    """Makes what a runner starts."""

    def make(*permissions: str, limits: ResourceLimits | None = None, **more: Any) -> LaunchSpec:
        request = request_plan(*permissions, limits=limits or ResourceLimits(), **more)
        return LaunchSpec(
            instance=InstanceId(request.instance),
            plugin=request.plugin,
            version=request.version,
            plan=make_plan(request, without_namespaces),
            package_dir=request.package_dir,
            data_dir=request.data_dir,
            temp_dir=request.temp_dir,
        )

    return make


@pytest.fixture(scope="session")
def fallback_runner(loop: Any, without_namespaces: MachineReport, python: Any, libraries: Any) -> Iterator[Any]:
    """The fork server that is used where there are no namespaces."""

    async def make() -> ZygoteRunner:
        return ZygoteRunner(main="egress_probe:main", libraries=libraries[:4], python=python, mode=Mode.FALLBACK)

    runner = loop.run(make())
    yield runner
    loop.run(runner.aclose())


@pytest.fixture(scope="session")
def confine(loop: Any, fallback_runner: Any, make_fallback_spec: Any, prober_of: Any) -> Iterator[Callable[..., Any]]:
    """Starts a process behind the wall, with the permissions given."""
    probers: list[Any] = []

    def begin(*permissions: str, **more: Any) -> Any:
        process = loop.run(fallback_runner.start(make_fallback_spec(*permissions, **more)))
        probers.append(prober_of(fallback_runner, process))
        return probers[-1]

    yield begin
    for prober in probers:
        prober.close()


@pytest.fixture(scope="session")
def confined(planted: SimpleNamespace, confine: Callable[..., Any]) -> Any:
    """A process without a single grant, started after everything was planted."""
    return confine()


@pytest.fixture(scope="session")
def free(loop: Any, make_fallback_spec: Any, prober_of: Any) -> Iterator[Any]:
    """The same code without walls: the control."""

    async def make() -> tuple[UnconfinedRunner, Process]:
        runner = UnconfinedRunner(main="walled_probe:main")
        return runner, await runner.start(make_fallback_spec(isolation="unconfined"))

    runner, process = loop.run(make())
    prober = prober_of(runner, process)
    yield prober
    prober.close()
    loop.run(runner.aclose())


@pytest.fixture(scope="session")
def public_file(open_folder: Path) -> Path:
    """A file of the host that every user may read, and its owner write."""
    path = open_folder / "public.txt"
    path.write_text("PLANTED BUT PUBLIC")
    path.chmod(0o644)
    return path


@pytest.fixture
def run_filtered(libraries: Any, python: Any) -> Callable[..., dict[str, Any]]:
    """Runs a host's program in a process that may make no namespaces, and hands back the JSON that it told."""
    program = b"".join(struct.pack("HBBI", *step) for step in NO_UNSHARE).hex()
    places = [str(libraries[0][1].parent), *(path for path in sys.path if path and not _is_stdlib(path))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(places), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(host: str, *arguments: str) -> dict[str, Any]:
        done = subprocess.run(
            [python.executable, "-c", FORBID_NAMESPACES + host, *arguments, program],
            env=environment,
            stdout=subprocess.PIPE,
            timeout=HOST_TIMEOUT_S,
            check=True,
        )
        return json.loads(done.stdout)

    return run


def _is_stdlib(path: str) -> bool:
    """Whether it is a part of this very Python, which need not be the one that runs the host."""
    return path.startswith(sys.base_prefix) and "site-packages" not in path
