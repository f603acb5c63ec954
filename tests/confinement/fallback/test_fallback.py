"""What hostile code tries behind the wall without namespaces, on the real kernel, beside the same code without walls.

What this wall leaves open is tried too, at the end, so that docs/reference/fallback.md stays true.
"""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from cardcage.foundation.errors import Refused
from cardcage.sandbox.mode import namespaces_at_hand
from cardcage.sandbox.plan import FALLBACK_FLOOR, ResourceLimits, make_plan
from cardcage.sandbox.profile import profile
from cardcage.sandbox.report import LayerStatus, MachineReport
from cardcage.sandbox.syscalls import MACHINE, NUMBERS

REFUSED = {"EPERM", "EACCES"}
UNREACHABLE = {"ENETUNREACH"}

Arguments = Callable[[SimpleNamespace, Path], list[Any]]

FILES: list[tuple[str, str, Arguments, set[str], bool]] = [
    ("the user's ssh key", "read_file", lambda p, f: [p.key], REFUSED, True),
    ("another instance's data", "read_file", lambda p, f: [p.other], REFUSED, True),
    ("a public file", "read_file", lambda p, f: [str(f)], {"EACCES"}, True),
    ("the list of users", "read_file", lambda p, f: ["/etc/passwd"], {"EACCES"}, True),
    ("the shadow file", "read_file", lambda p, f: ["/etc/shadow"], REFUSED, False),
    ("the root folder", "list_folder", lambda p, f: ["/"], {"EACCES"}, True),
    ("the folder of all instances", "list_folder", lambda p, f: [str(f.parent)], REFUSED, True),
    ("its own package, to write", "write_file", lambda p, f: ["{package}/module.py"], REFUSED, False),
    ("a file in the shared /tmp", "write_file", lambda p, f: ["/tmp/cardcage-probe"], {"EACCES"}, False),
    ("shared memory", "write_file", lambda p, f: ["/dev/shm/cardcage-probe"], {"EACCES"}, False),
    ("a public file by a link", "read_through_link", lambda p, f: [str(f), "{data}/link"], {"EACCES"}, False),
    ("a hard link of a public file", "link_into_data", lambda p, f: [str(f), "{data}/hard"],
     REFUSED | {"EXDEV"}, False),
    ("a set-id file in its data", "make_setuid_file", lambda p, f: ["{data}/setuid"], {"EPERM"}, False),
    ("a device node", "make_device", lambda p, f: ["{data}/device"], {"EPERM"}, False),
    ("a host file's mode", "change_mode", lambda p, f: [str(f)], {"EPERM"}, True),
    ("a host file's times", "change_times", lambda p, f: [str(f)], {"EPERM"}, True),
    ("a host file, to cut short", "cut_short", lambda p, f: [str(f)], REFUSED, True),
    ("what happens in a folder", "watch", lambda p, f: [str(f)], {"EPERM"}, True),
    ("its own memory map", "read_file", lambda p, f: ["/proc/self/maps"], {"EACCES"}, True),
    ("the table of mounts", "read_file", lambda p, f: ["/proc/self/mountinfo"], {"EACCES"}, True),
    ("a host process's environment", "read_file", lambda p, f: [f"/proc/{p.pid}/environ"], REFUSED, True),
    ("a host process's command", "read_file", lambda p, f: [f"/proc/{p.pid}/cmdline"], {"EACCES"}, True),
    ("a host process's memory", "read_parents_memory", lambda p, f: [p.pid], REFUSED, False),
]  # fmt: skip

PROCESSES: list[tuple[str, str, Arguments, set[str], bool]] = [
    ("every process", "processes", lambda p, f: [], {"EACCES"}, True),
    ("signalling a host process", "signal_process", lambda p, f: [p.pid], {"EPERM"}, True),
    ("signalling its supervisor", "signal_parent", lambda p, f: [], {"EPERM"}, False),
    ("tracing a host process", "trace", lambda p, f: [p.pid], {"EPERM"}, True),
    ("reading a host process's memory", "read_memory_of", lambda p, f: [p.pid], {"EPERM"}, False),
    ("another process's limits", "limit_process", lambda p, f: [p.pid], {"EPERM"}, True),
    ("another process's priority", "renice", lambda p, f: [p.pid], {"EPERM"}, True),
    ("another process's processors", "pin", lambda p, f: [p.pid], {"EPERM"}, True),
    ("becoming root", "become_root", lambda p, f: [], {"EPERM"}, False),
    ("running a program", "run_program", lambda p, f: ["/bin/true"], {"EPERM"}, True),
]

NETWORK: list[tuple[str, str, Arguments, set[str], bool]] = [
    ("a service on the host's loopback", "connect_tcp",
     lambda p, f: [socket.AF_INET, "127.0.0.1", p.tcp4], UNREACHABLE, True),
    ("the same by IPv6", "connect_tcp", lambda p, f: [socket.AF_INET6, "::1", p.tcp6], UNREACHABLE, True),
    ("the cloud's metadata", "connect_tcp", lambda p, f: [socket.AF_INET, "169.254.169.254", 80], UNREACHABLE, False),
    ("UDP", "send_udp", lambda p, f: [socket.AF_INET, "127.0.0.1", p.udp], {"EPERM"}, True),
    ("UDP by IPv6", "open_socket", lambda p, f: [socket.AF_INET6, socket.SOCK_DGRAM], {"EPERM"}, True),
    ("TCP fast open", "fast_open", lambda p, f: ["127.0.0.1", p.tcp4], {"EOPNOTSUPP", "ENOTSUP"}, True),
    ("TCP fast open by option", "fast_open_option", lambda p, f: ["127.0.0.1", p.tcp4], {"ENOPROTOOPT"}, True),
    ("an abstract Unix socket", "connect_unix", lambda p, f: [p.abstract], {"EACCES"}, True),
    ("a service's socket file", "connect_unix", lambda p, f: [p.unix], {"EACCES"}, True),
    ("datagrams to a service's socket file", "send_from_pair", lambda p, f: [p.unix], {"EPERM"}, False),
    ("the same by raw sockets", "send_from_pair", lambda p, f: [p.unix, socket.SOCK_RAW], {"EPERM"}, False),
    ("Unix datagrams", "open_socket", lambda p, f: [socket.AF_UNIX, socket.SOCK_DGRAM], {"EPERM"}, True),
    ("listening", "listen_tcp", lambda p, f: [], {"EPERM"}, True),
    ("listening without a port", "listen_unbound", lambda p, f: [], {"EPERM"}, True),
    ("netlink", "open_socket", lambda p, f: [16, socket.SOCK_RAW], {"EAFNOSUPPORT"}, True),
    ("packet sockets", "open_socket", lambda p, f: [17, socket.SOCK_RAW], {"EAFNOSUPPORT"}, False),
    ("vsock", "open_socket", lambda p, f: [40, socket.SOCK_STREAM], {"EAFNOSUPPORT"}, False),
    ("raw sockets", "open_socket", lambda p, f: [socket.AF_INET, socket.SOCK_RAW, 1], {"EPERM"}, False),
    ("names", "resolve", lambda p, f: ["example.com"], {"EAI_AGAIN", "ENOEXEC", "gaierror"}, False),
]  # fmt: skip


def filled(arguments: list[Any], prober: Any) -> list[Any]:
    """The arguments with the prober's own folders in them."""
    spec = prober.process.handle.spec if hasattr(prober.process.handle, "spec") else None
    folders = {"package": str(spec.package_dir), "data": str(spec.data_dir)} if spec else {}
    return [one.format(**folders) if isinstance(one, str) and folders else one for one in arguments]


@pytest.mark.parametrize(
    ("probe", "arguments", "stopped_by", "control"),
    [pytest.param(*rest, id=name) for name, *rest in (*FILES, *PROCESSES, *NETWORK)],
)
def test_it_is_refused(
    probe: str,
    arguments: Arguments,
    stopped_by: set[str],
    control: bool,
    confined: Any,
    free: Any,
    planted: SimpleNamespace,
    public_file: Path,
) -> None:
    wanted = arguments(planted, public_file)
    answer = confined.attempt(probe, *filled(wanted, confined))
    assert answer.get("error") in stopped_by, answer
    if control:
        assert "value" in free.attempt(probe, *wanted), "without walls it should succeed, or this shows nothing"


def test_no_number_but_those_of_its_profile_gets_through(confined: Any) -> None:
    wanted = confined.process.handle.spec.plan.system_calls
    words = profile(execute=False, name=wanted.profile, signals=wanted.signals)
    probes = ("uretprobe", "uprobe")
    let_through = {
        NUMBERS[MACHINE][one] for one in (*words.allowed, *words.conditional, *probes) if one in NUMBERS[MACHINE]
    }
    absent = {NUMBERS[MACHINE][one] for one in words.absent}
    last = max(NUMBERS[MACHINE].values())
    answers = confined.attempt("system_calls", [one for one in range(last + 64) if one not in let_through])["value"]
    assert len(answers) > 150
    for number, answer in answers.items():
        assert answer == ("ENOSYS" if int(number) in absent or int(number) > last else "EPERM"), number


@pytest.mark.skipif(MACHINE != "x86_64", reason="only x86_64 has other system call tables")
def test_a_32_bit_system_call_ends_the_process(confined: Any) -> None:
    assert confined.attempt("call_i386") == {"signal": "SIGSYS"}
    assert confined.attempt("call_x32") == {"signal": "SIGSYS"}


def test_the_hosts_secrets_are_nowhere_to_be_seen(confined: Any, planted: SimpleNamespace) -> None:
    assert "hunter2" not in confined.attempt("own_environment")["value"]
    assert len(confined.attempt("own_descriptors")["value"]) <= 3


def test_where_the_host_is_root_it_has_a_uid_of_its_own_and_no_groups(confined: Any) -> None:
    if os.geteuid() != 0:
        pytest.skip("must run as root: an ordinary user has one uid for all")
    seen = confined.attempt("identity")["value"]
    assert (seen["uid"], seen["gid"], seen["groups"]) == (seen["uid"], seen["uid"], [])
    assert seen["uid"] >= 62_500


def test_two_instances_cannot_see_each_other(confined: Any, confine: Any) -> None:
    other = confine()
    theirs = other.process.handle.spec.data_dir / "own.txt"
    assert other.attempt("read_file", str(theirs))["value"] == other.process.handle.spec.instance
    assert confined.attempt("read_file", str(theirs)).get("error") in REFUSED
    assert confined.attempt("signal_process", other.process.pid) == {"error": "EPERM"}


def test_it_may_use_its_own_folders(confined: Any) -> None:
    spec = confined.process.handle.spec
    for folder in (spec.data_dir, spec.temp_dir):
        assert confined.attempt("write_file", f"{folder}/mine.txt") == {"value": "written"}
        assert confined.attempt("read_file", f"{folder}/mine.txt") == {"value": "x"}
    assert confined.attempt("read_file", f"{spec.package_dir}/module.py") == {"value": ""}
    assert confined.attempt("own_environment")["value"].count(str(spec.data_dir)) == 1


def test_its_temporary_files_are_gone_at_the_next_start_and_nothing_that_they_lead_to(
    loop: Any, fallback_runner: Any, make_fallback_spec: Any, prober_of: Any, public_file: Path
) -> None:
    spec = make_fallback_spec()
    (spec.temp_dir / "folder").mkdir()
    (spec.temp_dir / "folder" / "file").write_text("left behind")
    (spec.temp_dir / "link").symlink_to(public_file)
    (spec.temp_dir / "folder" / "up").symlink_to(public_file.parent)
    plugin = prober_of(fallback_runner, loop.run(fallback_runner.start(spec)))
    try:
        assert plugin.attempt("list_folder", str(spec.temp_dir)) == {"value": []}
    finally:
        plugin.close()
    assert public_file.read_text() == "PLANTED BUT PUBLIC"


def test_granted_paths_are_there_and_nothing_beside_them(confine: Any, public_file: Path) -> None:
    neighbour = public_file.with_name("neighbour.txt")
    neighbour.write_text("not granted")
    neighbour.chmod(0o644)
    granted = confine(f"read:{public_file}")
    assert granted.attempt("read_file", str(public_file)) == {"value": "PLANTED BUT PUBLIC"}
    assert granted.attempt("read_file", str(neighbour)) == {"error": "EACCES"}
    assert granted.attempt("open_to_write", str(public_file)).get("error") in REFUSED


def test_a_granted_program_runs_behind_the_same_wall(confine: Any) -> None:
    granted = confine("subprocess:/usr/bin/env")
    assert granted.attempt("run_program", "/usr/bin/env") == {"value": "ran"}
    assert granted.attempt("run_program", "/usr/bin/id").get("error") in REFUSED


def test_a_fork_bomb_stops_and_the_host_still_forks(confine: Any) -> None:
    bomb = confine(limits=ResourceLimits(processes=16))
    assert bomb.attempt("fork_bomb") == {"error": "EAGAIN"}
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert "value" in bomb.attempt("identity"), "it goes on when its children are gone"


def test_the_floor_is_enforced_and_what_is_missing_is_named(confined: Any, without_namespaces: MachineReport) -> None:
    report = confined.report
    asked = [name for name in FALLBACK_FLOOR if name != "own_uid" or os.geteuid() == 0]
    assert report.below(asked) == ()
    for name in ("user_namespace", "pid_namespace", "mount_namespace", "network_namespace", "private_proc"):
        layer = next(layer for layer in report.layers if layer.name == name)
        assert layer.status is LayerStatus.UNAVAILABLE
        assert layer.detail


def test_root_adds_the_namespaces_that_need_no_user_namespace(
    loop: Any, fallback_runner: Any, make_fallback_spec: Any, prober_of: Any, planted: SimpleNamespace
) -> None:
    at_hand = namespaces_at_hand()
    if at_hand != ("network", "ipc", "uts"):
        pytest.skip("must run as root: an ordinary user can make no namespace without a user namespace")
    spec = make_fallback_spec(f"network:127.0.0.1:{planted.tcp4}")
    plan = msgspec.structs.replace(spec.plan, namespaces=at_hand)
    process = loop.run(fallback_runner.start(dataclasses.replace(spec, plan=plan)))
    plugin = prober_of(fallback_runner, process)
    try:
        layers = ("network_namespace", "ipc_namespace", "uts_namespace")
        assert {process.report.status(name) for name in layers} == {LayerStatus.ENFORCED}
        assert plugin.attempt("identity")["value"]["host"] == "plugin"
        assert plugin.attempt("connect_tcp", socket.AF_INET, "127.0.0.1", planted.tcp4) == {"value": "connected"}
        assert plugin.attempt("connect_tcp", socket.AF_INET, "127.0.0.1", planted.tcp4 + 1) == {"error": "ENETUNREACH"}
    finally:
        process.close_listeners()
        plugin.close()


def test_it_is_not_taken_unless_it_is_allowed(request_plan: Any, without_namespaces: MachineReport) -> None:
    with pytest.raises(Refused) as refusal:
        make_plan(request_plan(allow=False), without_namespaces)
    assert refusal.value.code == "fallback_not_allowed"
    assert "gives no namespaces (the test says so)" in refusal.value.message
    assert "cardcage doctor" in (refusal.value.hint or "")


def test_a_floor_that_it_cannot_reach_is_refused(loop: Any, fallback_runner: Any, make_fallback_spec: Any) -> None:
    with pytest.raises(Refused) as refusal:
        loop.run(fallback_runner.start(make_fallback_spec(floor=("network_namespace",))))
    assert refusal.value.code == "below_floor"
    assert "network_namespace" in refusal.value.message


OPEN: list[tuple[str, str, Arguments]] = [
    ("Whether a file exists, its size and times", "look_at", lambda p, f: ["/etc/passwd"]),
    ("The host's name and kernel", "identity", lambda p, f: []),
]


@pytest.mark.parametrize(("words", "probe", "arguments"), OPEN, ids=[words for words, _, _ in OPEN])
def test_what_stays_open_is_open_and_stands_in_the_document(
    words: str, probe: str, arguments: Arguments, confined: Any, planted: Any, public_file: Path, project_root: Path
) -> None:
    assert "value" in confined.attempt(probe, *arguments(planted, public_file))
    document = (project_root / "docs/reference/fallback.md").read_text()
    assert re.search(rf"^\| {re.escape(words)} \|", document, flags=re.MULTILINE)
