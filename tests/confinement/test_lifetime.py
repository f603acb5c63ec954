"""Nothing outlives what it belongs to: limits end a process with their reason, and a dead host takes all with it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cardcage.launch.runner import ExitReason
from cardcage.launch.unconfined import UnconfinedRunner
from cardcage.sandbox.plan import MEMORY_BACKSTOP_BYTES, ResourceLimits

TIMEOUT_S = 30.0

HOST = """
import asyncio, os, pickle, sys
from cardcage.launch.zygote import ZygoteRunner

async def main():
    spec, libraries = pickle.loads(sys.stdin.buffer.read())
    runner = ZygoteRunner(main="walled_probe:main", libraries=libraries)
    process = await runner.start(spec)
    print(process.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def _gone(pid: int) -> bool:
    """Whether the process ends within the time allowed."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], TIMEOUT_S)[0])
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("killed", ["host", "fork server"])
def test_an_instance_does_not_outlive(killed: str, make_spec: Any, machine: Any) -> None:
    import pickle

    from cardcage.sandbox.python_layout import core_libraries

    spec = make_spec()
    libraries = (*core_libraries(), ("walled_probe", Path(__file__).parent / "walled_probe.py"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.write(pickle.dumps((spec, libraries)))
        host.stdin.close()
        try:
            pid = int(host.stdout.readline())
            os.kill(pid, 0)
            victim = host.pid if killed == "host" else _only_child(host.pid)
            os.kill(victim, signal.SIGKILL)
            assert _gone(pid)
        finally:
            host.kill()


def _only_child(pid: int) -> int:
    (child,) = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return int(child)


FORBIDDEN = """
import asyncio, ctypes, os, pickle, sys
from cardcage.foundation.errors import Refused
from cardcage.launch.zygote import ZygoteRunner
from cardcage.sandbox.doctor import examine

spec, libraries = pickle.loads(sys.stdin.buffer.read())
uid, gid = os.getuid(), os.getgid()
assert ctypes.CDLL(None).unshare(0x10000000) == 0
for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
    open(f"/proc/self/{name}", "w").write(text)
open("/proc/sys/user/max_user_namespaces", "w").write("0")

async def main():
    async with ZygoteRunner(main="walled_probe:main", libraries=libraries) as runner:
        try:
            await runner.start(spec)
        except Refused as refusal:
            print(refusal.code, refusal.hint)

asyncio.run(main())
layer = next(layer for layer in examine().layers if layer.name == "user_namespace")
print(layer.status, layer.hint)
"""


def test_where_user_namespaces_are_forbidden_nothing_starts_and_the_doctor_says_what_to_change(
    make_spec: Any, machine: Any
) -> None:
    import pickle

    from cardcage.sandbox.python_layout import core_libraries

    libraries = (*core_libraries(), ("walled_probe", Path(__file__).parent / "walled_probe.py"))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    told = subprocess.run(
        [sys.executable, "-c", FORBIDDEN],
        input=pickle.dumps((make_spec(), libraries)),
        env=environment,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S,
        check=True,
    ).stdout.decode()
    refusal, layer = told.splitlines()
    assert refusal.startswith("no_walls `cardcage doctor` says")
    assert layer.startswith("unavailable allow unprivileged user namespaces")


@pytest.mark.parametrize("isolation", ["process"], indirect=True, scope="session")
def test_the_fork_server_is_started_again_after_its_death(enter: Any, zygote: Any, loop: Any) -> None:
    before = enter()
    server = before.runner._server._popen.pid  # the one way to reach it: it is nobody's business otherwise
    os.kill(server, signal.SIGKILL)
    ended = loop.run(zygote.wait(before.process))
    assert ended.signal == signal.SIGKILL
    after = enter()
    assert after.attempt("identity")["value"]["uid"] == 1000


def test_a_call_of_another_architecture_is_reported_as_a_system_call(enter: Any, zygote: Any, loop: Any) -> None:
    plugin = enter()
    assert plugin.attempt("call_x32_here") == {"value": "on its way"}
    assert loop.run(zygote.wait(plugin.process)).reason is ExitReason.SYSTEM_CALL


def test_the_limit_of_cpu_time_is_reported_as_such(enter: Any, zygote: Any, loop: Any) -> None:
    plugin = enter(limits=ResourceLimits(cpu_time_s=1))
    assert plugin.attempt("spin_here") == {"value": "on its way"}
    ended = loop.run(zygote.wait(plugin.process))
    assert (ended.reason, ended.signal) == (ExitReason.CPU_LIMIT, signal.SIGXCPU)


def test_without_control_groups_one_process_cannot_ask_for_what_the_host_could_not_take_back_in_time(
    enter: Any,
) -> None:
    plugin = enter(limits=ResourceLimits(memory_bytes=64 << 20))
    assert plugin.attempt("grow", 16 << 20) == {"value": 16 << 20}
    assert plugin.attempt("grow", (64 << 20) + MEMORY_BACKSTOP_BYTES) == {"error": "MemoryError"}


def test_the_unconfined_runner_reports_no_wall(unconfined: Any) -> None:
    assert isinstance(unconfined.runner, UnconfinedRunner)
    assert unconfined.report.enforced == ()
