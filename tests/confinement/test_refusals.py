"""What hostile code tries and is refused, on the real kernel. Each attempt is also made without walls, where it must
succeed, or fail in another way: a test that could not fail shows nothing."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from cardcage.sandbox.plan import STRICT_FLOOR
from cardcage.sandbox.profile import profile
from cardcage.sandbox.report import Mode
from cardcage.sandbox.syscalls import MACHINE, NUMBERS

NOT_THERE = {"ENOENT"}
REFUSED = {"EPERM", "EACCES"}
READ_ONLY = {"EROFS", "EACCES"}
UNREACHABLE = {"ENETUNREACH", "EACCES", "ECONNREFUSED", "EPERM", "EADDRNOTAVAIL"}

OTHERWISE = "otherwise"
"""The control fails too, but in another way than behind the walls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One row: the probe, what must stop it, and what the control does (None where trying would do harm)."""

    name: str
    probe: str
    arguments: Callable[[SimpleNamespace], list[Any]]
    stopped_by: set[str]
    control: str | None = "value"
    control_as_root: bool = False
    """Only root can show the control: an ordinary user is refused on the host as well."""


def row(name: str, probe: str, *arguments: Any, stopped_by: set[str], **more: Any) -> Attempt:
    return Attempt(
        name=name,
        probe=probe,
        arguments=lambda planted: [getattr(planted, a[1:]) if _is_planted(a) else a for a in arguments],
        stopped_by=stopped_by,
        **more,
    )


def _is_planted(argument: Any) -> bool:
    return isinstance(argument, str) and argument.startswith("$")


FILES = [
    row("the user's ssh key", "read_file", "$key", stopped_by=NOT_THERE),
    row("the user's home folder", "list_folder", "$home", stopped_by=NOT_THERE),
    row("the host user's real home folder", "list_folder", os.path.expanduser("~"), stopped_by=NOT_THERE, control=None),
    row("another instance's data", "read_file", "$other", stopped_by=NOT_THERE),
    row("the shadow file", "read_file", "/etc/shadow", stopped_by=NOT_THERE | REFUSED, control_as_root=True),
    row("the host's users", "list_folder", "/home", stopped_by=NOT_THERE),
    row("a service's socket file", "connect_unix", "$unix", stopped_by=NOT_THERE),
    row("writing into its own package", "write_file", "/plugin/module.py", stopped_by=READ_ONLY, control=None),
    row("adding to its own package", "write_file", "/plugin/more.py", stopped_by=READ_ONLY, control=None),
    row("writing to the root", "write_file", "/probe", stopped_by=READ_ONLY, control=None),
    row("writing to /etc", "open_to_write", "/etc/hosts", stopped_by=READ_ONLY, control_as_root=True),
    row("writing to the system's libraries", "write_file", "/usr/lib/probe", stopped_by=READ_ONLY, control=None),
    row("writing to the standard library", "write_file", "/cardcage/python/probe", stopped_by=READ_ONLY, control=None),
    row("a hard link out of its package", "link_into_data", "/plugin/module.py", "/data/link",
        stopped_by={"EXDEV", "EPERM", "EACCES"}, control=None),
    row("a set-id file in its data", "make_setuid_file", "/data/setuid", stopped_by={"EPERM"}, control=None),
    row("a device node", "make_device", "/data/device", stopped_by={"EPERM"}, control=None),
    row("physical memory", "open_to_write", "/dev/mem", stopped_by=NOT_THERE, control=None),
    row("the hypervisor's device", "open_to_write", "/dev/kvm", stopped_by=NOT_THERE, control=None),
    row("the terminal multiplexer", "open_to_write", "/dev/ptmx", stopped_by=NOT_THERE),
    row("the core pattern", "open_to_write", "/proc/sys/kernel/core_pattern",
        stopped_by=NOT_THERE | REFUSED | READ_ONLY, control_as_root=True),
    row("the system request trigger", "open_to_write", "/proc/sysrq-trigger", stopped_by=NOT_THERE,
        control=None),
    row("the kernel's devices", "list_folder", "/sys/kernel", stopped_by=NOT_THERE),
]  # fmt: skip

PROCESSES = [
    row("the environment of its init", "read_file", "/proc/1/environ", stopped_by=NOT_THERE, control=OTHERWISE),
    row("signalling a host process", "signal_process", "$pid", stopped_by={"ESRCH"}),
    row("tracing a host process", "trace", "$pid", stopped_by={"EPERM"}),
    row("tracing its init", "trace", 1, stopped_by={"EPERM"}, control=None),
    row("the memory of a host process", "read_memory_of", "$pid", stopped_by={"EPERM"}, control=OTHERWISE),
    row("the memory of its init", "read_parents_memory", 1, stopped_by=NOT_THERE | REFUSED, control=None),
    row("becoming root", "become_root", stopped_by={"EPERM"}, control_as_root=True),
    row("changing groups", "drop_groups", stopped_by={"EPERM"}, control_as_root=True),
    row("a program", "run_program", "/bin/true", stopped_by={"EPERM", "ENOENT"}),
    row("a program by its loader", "run_program", "/lib64/ld-linux-x86-64.so.2", stopped_by={"EPERM", "ENOENT"},
        control=None),
    row("raising its limits", "raise_limit", stopped_by={"ValueError", "EPERM"}),
]  # fmt: skip

NETWORK = [
    row("a service on the host's loopback", "connect_tcp", socket.AF_INET, "127.0.0.1", "$tcp4",
        stopped_by=UNREACHABLE),
    row("the same by IPv6", "connect_tcp", socket.AF_INET6, "::1", "$tcp6", stopped_by=UNREACHABLE),
    row("the cloud's metadata address", "connect_tcp", socket.AF_INET, "169.254.169.254", 80,
        stopped_by=UNREACHABLE, control=None),
    row("an address outside", "connect_tcp", socket.AF_INET, "192.0.2.1", 443, stopped_by=UNREACHABLE, control=None),
    row("an address outside by IPv6", "connect_tcp", socket.AF_INET6, "2001:db8::1", 443, stopped_by=UNREACHABLE,
        control=None),
    row("UDP to a name server outside", "send_udp", socket.AF_INET, "192.0.2.53", 53, stopped_by=UNREACHABLE,
        control=None),
    row("UDP by IPv6", "send_udp", socket.AF_INET6, "2001:db8::1", 53, stopped_by=UNREACHABLE, control=None),
    row("a name", "resolve", "example.com", stopped_by={"gaierror"}, control=None),
    row("TCP fast open", "fast_open", "127.0.0.1", "$tcp4", stopped_by={"EOPNOTSUPP", "ENOTSUP"}),
    row("TCP fast open by option", "fast_open_option", "127.0.0.1", "$tcp4", stopped_by={"ENOPROTOOPT"}),
    row("an abstract Unix socket", "connect_unix", "$abstract", stopped_by={"ECONNREFUSED", "EPERM"}),
    row("multipath TCP", "open_socket", socket.AF_INET, socket.SOCK_STREAM, 262, stopped_by={"EPROTONOSUPPORT"},
        control=None),
    row("SCTP", "open_socket", socket.AF_INET, socket.SOCK_STREAM, 132, stopped_by={"EPROTONOSUPPORT"}, control=None),
    row("SMC", "open_socket", socket.AF_INET, socket.SOCK_STREAM, 256, stopped_by={"EPROTONOSUPPORT"}, control=None),
    row("UDP-Lite", "open_socket", socket.AF_INET, socket.SOCK_DGRAM, 136, stopped_by={"EPROTONOSUPPORT"}),
    row("vsock", "open_socket", 40, socket.SOCK_STREAM, stopped_by={"EAFNOSUPPORT"}, control=None),
    row("netlink", "open_socket", 16, socket.SOCK_RAW, stopped_by={"EAFNOSUPPORT"}),
    row("packets", "open_socket", 17, socket.SOCK_RAW, stopped_by={"EAFNOSUPPORT"}, control=OTHERWISE),
    row("kernel cryptography", "open_socket", 38, socket.SOCK_SEQPACKET, stopped_by={"EAFNOSUPPORT"}, control=None),
    row("raw IP", "open_socket", socket.AF_INET, socket.SOCK_RAW, 1, stopped_by={"EPERM"}, control_as_root=True),
]  # fmt: skip

NEW_USER, NEW_NETWORK, NEW_MOUNT = 0x10000000, 0x40000000, 0x20000

SYSTEM_CALLS: list[tuple[str, tuple[int, ...], bool]] = [
    # The arguments are chosen to be refused by the kernel itself with another error than EPERM, without any effect;
    # the flag says that only root gets so far.
    ("ptrace", (99999, 0, 0, 0), False),
    ("process_vm_readv", (0x7FFFFFFF, 0, 0, 0, 0, 0), False),
    ("process_vm_writev", (0x7FFFFFFF, 0, 0, 0, 0, 0), False),
    ("process_madvise", (-1, 0, 0, 0, 0), False),
    ("pidfd_getfd", (-1, 0, 0), False),
    ("kcmp", (0x7FFFFFFF, 0x7FFFFFFF, 0, 0, 0), False),
    ("mount", (0, 0, 0, 0, 0), True),
    ("umount2", (0, 0), True),
    ("pivot_root", (0, 0), True),
    ("fsopen", (0, 0), True),
    ("fsmount", (-1, 0, 0), True),
    ("move_mount", (-1, 0, -1, 0, 0xFFFF), True),
    ("open_tree", (-1, 0, 0xFFFF), False),
    ("mount_setattr", (-1, 0, 0xFFFF, 0, 0), False),
    ("unshare", (1,), False),
    ("setns", (-1, 0), False),
    ("bpf", (9999, 0, 0), False),
    ("perf_event_open", (0, 0, 0, 0, 0), False),
    ("userfaultfd", (0xFFFF,), True),
    ("io_uring_setup", (0, 0), False),
    ("io_uring_enter", (-1, 0, 0, 0, 0, 0), False),
    ("io_uring_register", (-1, 0, 0, 0), False),
    ("keyctl", (9999, 0, 0, 0, 0), False),
    ("add_key", (0, 0, 0, 0, 0), False),
    ("request_key", (0, 0, 0, 0), False),
    ("kexec_load", (0, 0, 0, 0xFFFF), True),
    ("init_module", (0, 0, 0), True),
    ("finit_module", (-1, 0, 0), True),
    ("delete_module", (0, 0), True),
    ("swapon", (0, 0), True),
    ("swapoff", (0,), True),
    ("reboot", (0, 0, 0, 0), True),
    ("settimeofday", (1, 0), True),
    ("clock_settime", (9999, 0), True),
    ("clock_adjtime", (9999, 0), False),
    ("sethostname", (0, 1 << 20), True),
    ("setdomainname", (0, 1 << 20), True),
    ("chroot", (0,), False),
    ("name_to_handle_at", (-1, 0, 0, 0, 0), False),
    ("open_by_handle_at", (-1, 0, 0), True),
    ("fanotify_init", (0xFFFFFF, 0), True),
    ("quotactl", (0, 0, 0, 0), False),
    ("syslog", (9999, 0, 0), True),
    ("personality", (0x0040000,), False),
    ("acct", (1,), True),
    ("mbind", (0, 0, 9999, 0, 0, 0), False),
    ("migrate_pages", (0x7FFFFFFF, 0, 0, 0), False),
    ("move_pages", (0x7FFFFFFF, 0, 0, 0, 0, 0), False),
    ("memfd_secret", (0xFFFF,), False),
    ("seccomp", (9999, 0, 0), False),
    ("landlock_create_ruleset", (0, 0, 9999), False),
    ("capset", (0, 0), False),
    ("mq_open", (0, 0, 0, 0), False),
    ("shmget", (0, 0, 0), False),
    ("vmsplice", (-1, 0, 0, 0), False),
]


@pytest.mark.parametrize("attempt", [*FILES, *PROCESSES, *NETWORK], ids=lambda attempt: attempt.name)
def test_it_is_refused(attempt: Attempt, walled: Any, unconfined: Any, planted: SimpleNamespace, as_root: bool) -> None:
    arguments = attempt.arguments(planted)
    answer = walled.attempt(attempt.probe, *arguments)
    assert answer.get("error") in attempt.stopped_by, f"{attempt.name}: {answer}"
    if attempt.control is None or (attempt.control_as_root and not as_root):
        return
    control = unconfined.attempt(attempt.probe, *arguments)
    if attempt.control == OTHERWISE:
        assert control != answer, f"without walls it ends the same way, so this shows nothing: {control}"
    else:
        assert "value" in control, f"without walls it should succeed: {control}"


@pytest.mark.parametrize(("name", "arguments", "needs_root"), SYSTEM_CALLS, ids=[name for name, _, _ in SYSTEM_CALLS])
def test_the_system_call_is_refused_by_the_filter(
    name: str, arguments: tuple[int, ...], needs_root: bool, walled: Any, unconfined: Any, as_root: bool
) -> None:
    if name not in NUMBERS[MACHINE]:
        pytest.skip(f"{MACHINE} has no {name}")
    order = (NUMBERS[MACHINE][name], *arguments)
    assert walled.attempt("system_call", *order) == {"error": "EPERM"}
    if as_root or not needs_root:
        assert unconfined.attempt("system_call", *order) != {"error": "EPERM"}


def test_no_number_but_those_of_the_profile_gets_through(walled: Any) -> None:
    words = profile(execute=False)
    # Newer kernels ask no filter about these two, and have nothing for who is not being probed.
    probes = tuple(name for name in ("uretprobe", "uprobe") if name in NUMBERS[MACHINE])
    let_through = {NUMBERS[MACHINE][name] for name in (*words.allowed, *words.conditional, *probes)}
    numbers = [number for number in range(max(NUMBERS[MACHINE].values()) + 64) if number not in let_through]
    assert len(numbers) > 150
    answers = walled.attempt("system_calls", numbers)["value"]
    assert {int(number) for number in answers} == set(numbers)
    absent = {NUMBERS[MACHINE][name] for name in words.absent}
    for number, answer in answers.items():
        missing = int(number) in absent or int(number) > max(NUMBERS[MACHINE].values())
        assert answer == ("ENOSYS" if missing else "EPERM"), number
    for name in probes:
        answer = walled.attempt("system_calls", [NUMBERS[MACHINE][name]])
        assert answer.get("signal") == "SIGILL" or answer["value"].popitem()[1] in ("EPERM", "ENXIO"), name


def test_options_and_requests_that_no_plugin_has_a_use_for_are_refused(walled: Any, unconfined: Any) -> None:
    assert walled.attempt("attach_socket_filter") == {"error": "ENOPROTOOPT"}
    assert unconfined.attempt("attach_socket_filter") == {"value": "attached"}
    assert walled.attempt("ask_a_device") == {"error": "ENOTTY"}
    assert "value" in unconfined.attempt("ask_a_device")
    assert walled.attempt("ordinary_requests") == {"value": "False"}


@pytest.mark.parametrize("flag", [NEW_USER, NEW_NETWORK, NEW_MOUNT], ids=["user", "network", "mount"])
def test_no_new_namespace_can_be_made(flag: int, walled: Any, unconfined: Any, as_root: bool) -> None:
    numbers = NUMBERS[MACHINE]
    assert walled.attempt("system_call", numbers["unshare"], flag) == {"error": "EPERM"}
    assert walled.attempt("system_call", numbers["clone"], flag | 17, 0, 0, 0, 0) == {"error": "EPERM"}
    if as_root or flag == NEW_USER:
        assert unconfined.attempt("system_call", numbers["unshare"], flag) == {"value": 0}


def test_no_namespace_is_shared_with_the_host_or_with_another_instance(walled: Any, enter: Any) -> None:
    # Three in a row: the fork server makes some for its next child while the one before is on its way.
    answers = [prober.attempt("namespaces")["value"] for prober in (walled, enter(), enter(), enter())]
    host = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
    assert {"user", "pid", "mnt", "net", "ipc", "uts", "cgroup"} <= host.keys()
    for name in host:
        seen = [host[name], *(answer[name] for answer in answers)]
        assert len(set(seen)) == len(seen), f"the {name} namespace is shared: {seen}"


def test_clone3_is_said_not_to_exist_so_that_libraries_use_clone(walled: Any) -> None:
    assert walled.attempt("system_call", NUMBERS[MACHINE]["clone3"], 0, 0) == {"error": "ENOSYS"}


def test_a_call_that_is_newer_than_the_filter_is_said_not_to_exist(walled: Any) -> None:
    assert walled.attempt("system_call", max(NUMBERS[MACHINE].values()) + 100) == {"error": "ENOSYS"}


def test_typing_into_a_terminal_is_refused_by_the_filter(walled: Any, unconfined: Any) -> None:
    assert walled.attempt("type_into_terminal") == {"error": "EPERM"}
    assert unconfined.attempt("type_into_terminal") == {"error": "ENOTTY"}


@pytest.mark.skipif(MACHINE != "x86_64", reason="only x86_64 has other system call tables")
def test_a_32_bit_system_call_ends_the_process(walled: Any, unconfined: Any) -> None:
    assert walled.attempt("call_i386") == {"signal": "SIGSYS"}
    assert walled.attempt("call_x32") == {"signal": "SIGSYS"}
    assert unconfined.attempt("call_i386") != {"signal": "SIGSYS"}


def test_the_hosts_secrets_are_in_no_environment_it_can_see(
    walled: Any, unconfined: Any, planted: SimpleNamespace
) -> None:
    assert "hunter2" in unconfined.attempt("every_environment")["value"], "the secret is there to be found"
    assert "hunter2" not in walled.attempt("every_environment")["value"]
    assert "hunter2" not in walled.attempt("own_environment")["value"]


def test_it_sees_no_process_but_its_own(walled: Any, planted: SimpleNamespace) -> None:
    assert planted.pid not in walled.attempt("processes")["value"]
    assert max(walled.attempt("processes")["value"]) < 1000


def test_it_has_no_descriptor_of_the_hosts(walled: Any, planted: SimpleNamespace) -> None:
    wire_and_pipe = 3
    assert len(walled.attempt("own_descriptors")["value"]) <= wire_and_pipe


def test_it_has_no_capability(walled: Any, unconfined: Any, as_root: bool) -> None:
    assert set(walled.attempt("capabilities")["value"].split()) == {"0" * 16}
    if as_root:
        assert set(unconfined.attempt("capabilities")["value"].split()) != {"0" * 16}


def test_it_is_an_unprivileged_user_to_itself_and_to_the_kernel(walled: Any, machine: Any) -> None:
    seen = walled.attempt("identity")["value"]
    assert (seen["uid"], seen["gid"], seen["host"]) == (1000, 1000, "plugin")
    assert os.getgid() not in seen["groups"]
    outside = os.stat(f"/proc/{walled.process.pid}").st_uid
    assert outside != 0
    if machine.mode is Mode.ROOT:
        assert outside >= 62_000


def test_it_has_loopback_and_no_other_interface(walled: Any) -> None:
    # Listing interfaces takes netlink or an ioctl; either way there is nothing but lo.
    assert walled.attempt("interfaces").get("value", ["lo"]) == ["lo"]


def test_it_may_write_its_data_and_its_temporary_folder(walled: Any) -> None:
    assert walled.attempt("write_file", "/data/mine.txt") == {"value": "written"}
    assert walled.attempt("read_file", "/data/mine.txt") == {"value": "x"}
    assert walled.attempt("write_file", "/tmp/mine.txt") == {"value": "written"}
    assert walled.attempt("read_file", "/plugin/module.py") == {"value": ""}


def test_the_temporary_folder_is_bounded_in_bytes_and_in_files(walled: Any) -> None:
    assert walled.attempt("fill", "/tmp/small", 4 << 20) == {"value": "filled"}
    assert walled.attempt("fill", "/tmp/large", 32 << 20) == {"error": "ENOSPC"}
    assert walled.attempt("make_files", "/tmp", 20_000) == {"error": "ENOSPC"}


def test_descriptors_are_bounded(walled: Any) -> None:
    assert walled.attempt("open_without_end") == {"error": "EMFILE"}


def test_a_fork_bomb_stops_and_the_host_still_forks(walled: Any) -> None:
    assert walled.attempt("fork_bomb") == {"error": "EAGAIN"}
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


def test_it_leaves_no_core_file(walled: Any) -> None:
    assert walled.attempt("core_limit") == {"value": [0, 0]}


def test_the_standard_library_does_not_tell_where_the_host_keeps_it(walled: Any) -> None:
    for path in walled.attempt("module_files")["value"]:
        assert path.startswith("/cardcage/"), path


def test_the_whole_floor_is_reported_as_enforced(walled: Any, machine: Any) -> None:
    asked = [name for name in STRICT_FLOOR if name != "own_uid" or machine.mode is Mode.ROOT]
    assert walled.report.below(asked) == ()


def test_the_data_folder_belongs_to_the_instance_alone(walled: Any, machine: Any) -> None:
    if machine.mode is not Mode.ROOT:
        pytest.skip("must run as root: an ordinary user has one uid for all")
    spec = walled.process.handle.spec
    found = spec.data_dir.stat()
    assert (found.st_uid, stat.S_ISDIR(found.st_mode)) == (spec.plan.identity.outside_uid, True)
