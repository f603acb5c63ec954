"""The kernel's rarer doors. Arguments are chosen so that the kernel itself would say no to them, without any effect, in
another word than the filter: so a refusal by the filter is told from one by the kernel."""

from __future__ import annotations

from typing import Any, Final

from cardcage.sandbox.syscalls import MACHINE, NUMBERS

from ..behaviour import Attempt, Behaviour, Control
from .network import native
from .words import FILTER, MOUNT, NOTHING, PROC, UTS

_NUMBERS: Final = NUMBERS[MACHINE]
_DIFFERS, _AS_ROOT, _NONE = Control.DIFFERS, Control.DIFFERS_AS_ROOT, Control.NONE
_REFUSED: Final = {"EPERM": FILTER}
_NOT_KNOWN: Final = {"ENOSYS": FILTER}
_NEW_USER, _NEW_NETWORK, _NEW_MOUNT, _NEW_PID = 0x10000000, 0x40000000, 0x20000, 0x20000000
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423


def prober(method: str, *arguments: Any, stopped_by: dict[str, str], control: Control = Control.SUCCEEDS) -> Attempt:
    """An attempt of the plugin `kernel-prober`."""
    return Attempt(plugin="kernel-prober", method=method, arguments=arguments, stopped_by=stopped_by, control=control)


def call(name: str, *arguments: int, control: Control = _DIFFERS, method: str = "call") -> tuple[Attempt, ...]:
    """A raw system call, where this machine has it."""
    if name not in _NUMBERS:
        return ()
    return (prober(method, _NUMBERS[name], *arguments, stopped_by=_REFUSED, control=control),)


KERNEL: Final = (
    Behaviour(
        number=26,
        title="mounts something",
        attempts=(
            *call("mount", 0, 0, 0, 0, 0, control=_AS_ROOT),
            *call("umount2", 0, 0, control=_AS_ROOT),
            *call("pivot_root", 0, 0, control=_AS_ROOT),
            *call("fsopen", 0, 0, control=_AS_ROOT),
            *call("fsconfig", -1, 0, 0, 0, 0),
            *call("fsmount", -1, 0, 0, control=_AS_ROOT),
            *call("move_mount", -1, 0, -1, 0, 0xFFFF, control=_AS_ROOT),
            *call("open_tree", -1, 0, 0xFFFF),
            *call("mount_setattr", -1, 0, 0xFFFF, 0, 0),
            *call("chroot", 0),
        ),
    ),
    Behaviour(
        number=27,
        title="makes a nested user namespace, where it would be root",
        attempts=(
            # In a child: where nothing stops it, the process itself would never be the same again.
            *call("unshare", _NEW_USER, method="call_in_child", control=Control.SUCCEEDS),
            *call("unshare", _NEW_NETWORK, method="call_in_child", control=Control.SUCCEEDS_AS_ROOT),
            *call("unshare", _NEW_MOUNT, method="call_in_child", control=Control.SUCCEEDS_AS_ROOT),
            *call("unshare", _NEW_USER, method="call_in_thread", control=_NONE),
            *call("unshare", _NEW_USER, control=_NONE),
            prober("call", _NUMBERS["clone3"], 0, 0, stopped_by=_NOT_KNOWN, control=_DIFFERS),
            native("clone_into", _NEW_USER, stopped_by=_REFUSED),
            native("clone_into", _NEW_USER | _NEW_PID | _NEW_MOUNT, stopped_by=_REFUSED),
            native("clone3_into", _NEW_USER, stopped_by=_NOT_KNOWN),
            native("vfork_and_call", _NUMBERS["unshare"], _NEW_USER, 0, 0, stopped_by=_REFUSED, control=_NONE),
        ),
    ),
    Behaviour(number=28, title="enters a namespace of the host", attempts=call("setns", -1, 0)),
    Behaviour(
        number=39,
        title="uses io_uring, past the filter's eyes",
        attempts=(
            *call("io_uring_setup", 0, 0),
            *call("io_uring_enter", -1, 0, 0, 0, 0, 0),
            *call("io_uring_register", -1, 0, 0, 0),
            *call("io_setup", 0, 0),
            native("io_uring", stopped_by=_REFUSED, control=_NONE),
        ),
    ),
    Behaviour(
        number=40,
        title="loads BPF programs or counts other processes' events",
        attempts=(*call("bpf", 9999, 0, 0), *call("perf_event_open", 0, 0, 0, 0, 0)),
    ),
    Behaviour(number=41, title="uses userfaultfd", attempts=call("userfaultfd", 0xFFFF, control=_AS_ROOT)),
    Behaviour(
        number=42,
        title="uses the kernel's keyrings",
        attempts=(
            *call("keyctl", 9999, 0, 0, 0, 0),
            *call("add_key", 0, 0, 0, 0, 0),
            *call("request_key", 0, 0, 0, 0),
            prober("find_key_rings", stopped_by={"ENOENT": PROC, "EACCES": PROC, NOTHING: PROC}, control=_NONE),
        ),
    ),
    Behaviour(
        number=43,
        title="loads another kernel, modules or swap",
        attempts=(
            *call("kexec_load", 0, 0, 0, 0xFFFF, control=_AS_ROOT),
            *call("init_module", 0, 0, 0, control=_AS_ROOT),
            *call("finit_module", -1, 0, 0, control=_AS_ROOT),
            *call("delete_module", 0, 0, control=_AS_ROOT),
            *call("swapon", 0, 0, control=_AS_ROOT),
            *call("swapoff", 0, control=_AS_ROOT),
            *call("reboot", 0, 0, 0, 0, control=_AS_ROOT),
            *call("acct", 1, control=_AS_ROOT),
        ),
    ),
    Behaviour(
        number=46,
        title="types into the operator's terminal",
        attempts=(
            *(
                prober("type_into_terminal", request, stopped_by=_REFUSED, control=_DIFFERS)
                for request in (_TIOCSTI, _TIOCLINUX, _TIOCSETD)
            ),
            Attempt(
                plugin="process-spy",
                method="watch_terminal",
                stopped_by={"ENOENT": MOUNT, "ENXIO": MOUNT},
                control=_NONE,
            ),
        ),
    ),
    Behaviour(
        number=47,
        title="sets the clock or the host's name",
        attempts=(
            *call("settimeofday", 1, 0, control=_AS_ROOT),
            *call("clock_settime", 9999, 0, control=_AS_ROOT),
            *call("clock_adjtime", 9999, 0),
            *call("adjtimex", 0),
            *call("sethostname", 0, 1 << 20, control=_AS_ROOT),
            *call("setdomainname", 0, 1 << 20, control=_AS_ROOT),
            prober("hostname", "plugin", stopped_by={NOTHING: UTS}),
        ),
    ),
    Behaviour(
        number=48,
        title="makes system calls of another architecture",
        audit=("system_call.refused",),
        attempts=(
            prober("call_32_bit", stopped_by={"system_call": FILTER}, control=_NONE),
            prober("call", 0x40000000 | 39, stopped_by={"system_call": FILTER}, control=_DIFFERS),
            prober("call", 0x40000000 | 520, 0, 0, 0, stopped_by={"system_call": FILTER}, control=_NONE),
            native("i386_gate", stopped_by={"system_call": FILTER}, control=_NONE),
            native("x32_gate", stopped_by={"system_call": FILTER}, control=_NONE),
        )
        if MACHINE == "x86_64"
        else (),
    ),
    Behaviour(
        number=79,
        title="tries to get around the filter itself",
        attempts=(
            # The upper half of an argument, which a filter of 32 bits cannot see and the kernel does not look at.
            prober("call_with_high_bits", _NUMBERS["unshare"], _NEW_USER, stopped_by=_REFUSED, control=_NONE),
            prober("call_with_high_bits", _NUMBERS["socket"], 16, stopped_by={"EAFNOSUPPORT": FILTER}, control=_NONE),
            *call("seccomp", 9999, 0, 0),
            *call("unshare", _NEW_USER, method="call_in_thread", control=_NONE),
            prober("remove_filter", stopped_by={"EINVAL": FILTER, "EPERM": FILTER}, control=_NONE),
            native(
                "allow_everything",
                _NUMBERS["unshare"],
                _NEW_USER,
                stopped_by={"EINVAL": FILTER, "EPERM": FILTER},
                control=_NONE,
            ),
            prober("call", max(_NUMBERS.values()) + 100, stopped_by=_NOT_KNOWN, control=_NONE),
            *call("personality", 0x0040000),
            *call("landlock_create_ruleset", 0, 0, 9999),
        ),
    ),
    Behaviour(
        number=80,
        title="asks the kernel's rarer interfaces for memory and files of others",
        attempts=(
            *call("process_madvise", -1, 0, 0, 0, 0),
            *call("pidfd_getfd", -1, 0, 0),
            *call("kcmp", 0x7FFFFFFF, 0x7FFFFFFF, 0, 0, 0),
            *call("name_to_handle_at", -1, 0, 0, 0, 0),
            *call("open_by_handle_at", -1, 0, 0, control=_AS_ROOT),
            *call("fanotify_init", 0xFFFFFF, 0, control=_AS_ROOT),
            *call("quotactl", 0, 0, 0, 0),
            *call("mbind", 0, 0, 9999, 0, 0, 0),
            *call("migrate_pages", 0x7FFFFFFF, 0, 0, 0),
            *call("move_pages", 0x7FFFFFFF, 0, 0, 0, 0, 0),
            *call("memfd_secret", 0xFFFF),
            *call("vmsplice", -1, 0, 0, 0),
            *call("capset", 0, 0),
            *call("shmget", 0, 0, 0),
            *call("iopl", 99, control=_NONE),
            *call("ioperm", 0xFFFFFF, 1, 1, control=_NONE),
            *call("modify_ldt", 99, 0, 0),
        ),
    ),
    Behaviour(
        number=81,
        title="reads the kernel's log or where the kernel stands in memory",
        attempts=(
            *call("syslog", 9999, 0, 0, control=_AS_ROOT),
            prober("read_kernel_log", stopped_by={"ENOENT": MOUNT, "EPERM": MOUNT, "EACCES": MOUNT}, control=_NONE),
            prober("find_kernel_addresses", stopped_by={NOTHING: PROC, "ENOENT": PROC, "EACCES": PROC}, control=_NONE),
        ),
    ),
)
"""Behaviours after the kernel."""
