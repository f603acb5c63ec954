"""Nothing outlives its stop without a pid namespace either; and the machines that this is for, made by the test."""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cardcage.sandbox.syscalls import MACHINE, NUMBERS

TIMEOUT_S = 30.0


def closed(descriptor: int) -> bool:
    """Whether nobody holds the other end of a pipe any more, once what was printed has been read."""
    while select.select([descriptor], [], [], TIMEOUT_S)[0]:
        if not os.read(descriptor, 65536):
            return True
    return False


@pytest.mark.parametrize("how", ["daemonise", "hop"])
def test_what_a_plugin_leaves_behind_ends_with_it(how: str, loop: Any, confine: Any, fallback_runner: Any) -> None:
    plugin = confine()
    assert "value" in plugin.attempt(how)
    fallback_runner.kill(plugin.process)
    loop.run(fallback_runner.wait(plugin.process))
    # Every process of the instance holds the pipe that its output goes to.
    assert closed(plugin.process.stdout)


@pytest.mark.parametrize("how", ["daemonise", "hop"])
def test_it_ends_when_the_plugin_leaves_by_itself(how: str, loop: Any, confine: Any, fallback_runner: Any) -> None:
    plugin = confine()
    assert "value" in plugin.attempt(how)
    plugin.process.sock.shutdown(2)
    loop.run(fallback_runner.wait(plugin.process))
    assert closed(plugin.process.stdout)


HOST = """
import asyncio, os, pickle, sys
from cardcage.launch.zygote import ZygoteRunner
from cardcage.sandbox.report import Mode

async def main():
    spec, libraries, python = pickle.loads(sys.stdin.buffer.read())
    runner = ZygoteRunner(main="egress_probe:main", libraries=libraries, python=python, mode=Mode.FALLBACK)
    process = await runner.start(spec)
    process.sock.setblocking(True)
    with process.sock.makefile("rw") as wire:
        wire.write('{"probe": "daemonise", "arguments": []}\\n')
        wire.flush()
        wire.readline()
    os.set_inheritable(process.stdout, True)
    print(process.pid, process.stdout, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize("killed", ["host", "guard", "fork server", "supervisor"])
def test_an_instance_and_its_daemons_do_not_outlive(
    killed: str, make_fallback_spec: Any, libraries: Any, python: Any
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", HOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as host:
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.write(pickle.dumps((make_fallback_spec(), libraries[:4], python)))
        host.stdin.close()
        try:
            supervisor, number = map(int, host.stdout.readline().split())
            output = os.open(f"/proc/{host.pid}/fd/{number}", os.O_RDONLY)
            guard = _only_child(host.pid)
            victims = {"host": host.pid, "guard": guard, "fork server": _only_child(guard), "supervisor": supervisor}
            os.kill(victims[killed], signal.SIGKILL)
            assert closed(output)
            os.close(output)
        finally:
            host.kill()


def _only_child(pid: int) -> int:
    (child,) = "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
    return int(child)


def test_the_fork_server_is_started_again_after_its_death(confine: Any, fallback_runner: Any, loop: Any) -> None:
    before = confine()
    os.kill(fallback_runner._server._popen.pid, signal.SIGKILL)  # the one way to reach it
    assert loop.run(fallback_runner.wait(before.process)).signal == signal.SIGKILL
    assert "value" in confine().attempt("identity")


# machines that forbid namespaces ------------------------------------------------------------------------------------

SIMULATED = """
import asyncio, ctypes, os, pickle, struct, sys
how, spec, libraries, python, program = pickle.loads(sys.stdin.buffer.read())
libc = ctypes.CDLL(None, use_errno=True)
if how == "filter":
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, header, 0, 0) == 0
elif how == "sysctl":
    uid, gid = os.getuid(), os.getgid()
    assert libc.unshare(0x10000000) == 0
    for name, text in (("setgroups", "deny"), ("uid_map", f"1000 {uid} 1"), ("gid_map", f"1000 {gid} 1")):
        open(f"/proc/self/{name}", "w").write(text)
    open("/proc/sys/user/max_user_namespaces", "w").write("0")
elif how == "capability":
    held = ctypes.create_string_buffer(24)
    libc.capget(struct.pack("Ii", 0x20080522, 0), held)
    words = list(struct.unpack("6I", held.raw))
    words[0] &= ~(1 << 21)
    words[1] &= ~(1 << 21)
    assert libc.capset(struct.pack("Ii", 0x20080522, 0), struct.pack("6I", *words)) == 0

from cardcage.launch.zygote import ZygoteRunner
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.mode import detect_mode, why_no_namespaces

async def main():
    async with ZygoteRunner(main="egress_probe:main", libraries=libraries, python=python) as runner:
        process = await runner.start(spec)
        process.sock.setblocking(True)
        with process.sock.makefile("rw") as wire:
            wire.write('{"probe": "read_file", "arguments": ["/etc/passwd"]}\\n')
            wire.flush()
            print(wire.readline().strip())

print(detect_mode())
print(why_no_namespaces())
asyncio.run(main())
layer = next(layer for layer in examine().layers if layer.name == "user_namespace")
print(layer.status, layer.detail, layer.hint, sep="|")
"""

NEW_NAMESPACES = 0x7E020000


def _no_namespaces() -> bytes:
    """A filter as container engines have it: `unshare` and new namespaces by `clone` fail."""
    refuse, allow = (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)
    steps = (
        (0x20, 0, 0, 0),
        (0x15, 0, 1, NUMBERS[MACHINE]["unshare"]),
        refuse,
        (0x15, 0, 3, NUMBERS[MACHINE]["clone"]),
        (0x20, 0, 0, 16),
        (0x45, 0, 1, NEW_NAMESPACES),
        refuse,
        allow,
    )
    return b"".join(struct.pack("HBBI", *step) for step in steps)


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("filter", "unshare: Operation not permitted"),
        ("sysctl", "unshare: No space left on device"),
        ("capability", "root without CAP_SYS_ADMIN"),
    ],
)
def test_a_plugin_starts_where_namespaces_are_forbidden_by(
    how: str, why: str, make_fallback_spec: Any, libraries: Any, python: Any, request_plan: Any, without_namespaces: Any
) -> None:
    if how == "capability" and os.geteuid() != 0:
        pytest.skip("must run as root: an ordinary user has no capability to lose")
    spec = _unprivileged(make_fallback_spec) if how == "sysctl" else make_fallback_spec()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    told = subprocess.run(
        [sys.executable, "-c", SIMULATED],
        input=pickle.dumps((how, spec, libraries[:4], python, _no_namespaces())),
        env=environment,
        stdout=subprocess.PIPE,
        timeout=TIMEOUT_S * 2,
        check=True,
    ).stdout.decode()
    mode, reason, answer, layer = told.splitlines()
    assert mode == "fallback"
    assert why in reason
    assert answer == '{"error": "EACCES"}'
    status, detail, hint = layer.split("|")
    assert (status, why in detail, "allow unprivileged user namespaces" in hint) == ("unavailable", True, True)


def _unprivileged(make_fallback_spec: Any) -> Any:
    """A spec for a host that is no root: in the test's own namespace there is one uid, and none to give away."""
    import msgspec

    spec = make_fallback_spec()
    plan = msgspec.structs.replace(
        spec.plan,
        identity=type(spec.plan.identity)(),
        floor=tuple(name for name in spec.plan.floor if name != "own_uid"),
        system_calls=msgspec.structs.replace(spec.plan.system_calls, profile="fallback-shared"),
    )
    import dataclasses

    return dataclasses.replace(spec, plan=plan)
