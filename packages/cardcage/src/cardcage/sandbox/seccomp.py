"""The system call filter: an allow-list with conditions on arguments, and an assembler that makes a BPF program of it.

What is not listed is refused with EPERM; a number that is newer than the table with ENOSYS, so that C libraries fall
back to what they did before it existed. Calls of another architecture (i386, x32) end the process. Standard library and
ctypes alone.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from functools import cache
from typing import Final, NamedTuple

from cardcage.sandbox.syscalls import AUDIT_ARCH, MACHINE, NUMBERS, call

_ALWAYS: Final = tuple(
    """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat creat close close_range lseek
    stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir
    getdents getdents64 rename renameat renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat
    truncate ftruncate fallocate fsync fdatasync sync_file_range fadvise64 readahead sendfile copy_file_range splice tee
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask utime utimes utimensat futimesat flock
    getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr
    removexattr lremovexattr fremovexattr
    dup dup2 dup3 pipe pipe2 fcntl poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait
    epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch memfd_create
    bind listen accept accept4 connect getsockname getpeername getsockopt recvfrom recvmsg recvmmsg shutdown
    mmap munmap mprotect mremap madvise msync mincore brk mlock mlock2 munlock mlockall munlockall membarrier mseal
    pkey_alloc pkey_free pkey_mprotect
    futex futex_waitv futex_wake futex_wait futex_requeue set_robust_list get_robust_list rseq set_tid_address
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigqueueinfo
    rt_tgsigqueueinfo sigaltstack kill tkill tgkill pause pidfd_open pidfd_send_signal restart_syscall
    fork vfork exit exit_group wait4 waitid
    getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid setpgid getsid
    setsid capget
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times alarm getitimer setitimer
    timer_create timer_settime timer_gettime timer_getoverrun timer_delete
    getrlimit setrlimit prlimit64 getrusage sysinfo uname getrandom getcpu
    getpriority setpriority sched_yield sched_getaffinity sched_setaffinity sched_getparam sched_getscheduler
    sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_getattr arch_prctl get_mempolicy
    """.split()  # noqa: SIM905 -- three hundred quoted words would hide the list
)

_TO_EXECUTE: Final = ("execve", "execveat")
"""Allowed only where the plan grants programs."""

_NEW_NAMESPACES: Final = 0x7E020000
_SET_ID_BITS: Final = 0o6000
_MSG_FASTOPEN: Final = 0x20000000
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE_MASK: Final = 0xF
_SOCK_RAW, _SOCK_RDM, _SOCK_DCCP, _SOCK_PACKET = 3, 4, 6, 10
_IPPROTO_UDP: Final = 17
_IPPROTO_TCP: Final = 6
_TCP_FASTOPEN, _TCP_FASTOPEN_CONNECT, _TCP_ULP = 23, 30, 31
_TIOCSTI, _TIOCLINUX, _TIOCCONS, _TIOCSETD = 0x5412, 0x541C, 0x541D, 0x5423
_S_IFMT, _S_IFCHR, _S_IFBLK = 0xF000, 0x2000, 0x6000
_PRCTL_OPTIONS: Final = (1, 2, 3, 4, 15, 16, 21, 23, 27, 29, 30, 36, 37, 38, 39, 40, 41, 42, 0x53564D41)
"""Name, dumpable, death signal, subreaper, timer slack, huge pages, named memory, and questions about oneself."""


class Refusal(NamedTuple):
    """Refuse where argument `argument`, masked, has a bit of `bits`, is one of `values`, or is none of `except_for`."""

    argument: int
    why: str
    code: int = errno.EPERM
    mask: int = 0xFFFFFFFF
    bits: int = 0
    values: tuple[int, ...] = ()
    except_for: tuple[int, ...] = ()


_FASTOPEN: Final = "TCP fast open connects without connect()"
_SET_ID: Final = "set-id files would outlive the walls"
_DEVICE: Final = "device nodes"

_CONDITIONAL: Final[dict[str, tuple[Refusal, ...]]] = {
    "sendto": (Refusal(3, _FASTOPEN, errno.EOPNOTSUPP, bits=_MSG_FASTOPEN),),
    "sendmsg": (Refusal(2, _FASTOPEN, errno.EOPNOTSUPP, bits=_MSG_FASTOPEN),),
    "sendmmsg": (Refusal(3, _FASTOPEN, errno.EOPNOTSUPP, bits=_MSG_FASTOPEN),),
    "open": (Refusal(2, _SET_ID, bits=_SET_ID_BITS),),
    "openat": (Refusal(3, _SET_ID, bits=_SET_ID_BITS),),
    "creat": (Refusal(1, _SET_ID, bits=_SET_ID_BITS),),
    "chmod": (Refusal(1, _SET_ID, bits=_SET_ID_BITS),),
    "fchmod": (Refusal(1, _SET_ID, bits=_SET_ID_BITS),),
    "fchmodat": (Refusal(2, _SET_ID, bits=_SET_ID_BITS),),
    "fchmodat2": (Refusal(2, _SET_ID, bits=_SET_ID_BITS),),
    "mknod": (
        Refusal(1, _SET_ID, bits=_SET_ID_BITS),
        Refusal(1, _DEVICE, mask=_S_IFMT, values=(_S_IFCHR, _S_IFBLK)),
    ),
    "mknodat": (
        Refusal(2, _SET_ID, bits=_SET_ID_BITS),
        Refusal(2, _DEVICE, mask=_S_IFMT, values=(_S_IFCHR, _S_IFBLK)),
    ),
    "clone": (Refusal(0, "new namespaces", bits=_NEW_NAMESPACES),),
    "ioctl": (Refusal(1, "typing into a terminal", values=(_TIOCSTI, _TIOCLINUX, _TIOCCONS, _TIOCSETD)),),
    "socket": (
        Refusal(
            0, "families besides UNIX, INET, INET6", errno.EAFNOSUPPORT, except_for=(_AF_UNIX, _AF_INET, _AF_INET6)
        ),
        Refusal(1, "raw sockets", mask=_SOCK_TYPE_MASK, values=(_SOCK_RAW, _SOCK_RDM, _SOCK_DCCP, _SOCK_PACKET)),
        # Multipath TCP, SCTP, SMC, L2TP, UDP-Lite and whatever comes: each is kernel code that a plugin has no use for.
        Refusal(2, "protocols besides TCP and UDP", errno.EPROTONOSUPPORT, except_for=(0, _IPPROTO_TCP, _IPPROTO_UDP)),
    ),
    "socketpair": (Refusal(0, "families besides UNIX", errno.EAFNOSUPPORT, except_for=(_AF_UNIX,)),),
    "prctl": (Refusal(0, "options that change more than oneself", errno.EINVAL, except_for=_PRCTL_OPTIONS),),
    "personality": (Refusal(0, "changing it", except_for=(0xFFFFFFFF,)),),
}
"""Allowed but for these arguments. `setsockopt` is apart: its refusal takes two arguments together."""

_SETSOCKOPT_TCP: Final = Refusal(2, "TCP fast open and layered protocols", values=(23, 30, 31))

_LD_ABSOLUTE, _JEQ, _JGT, _JGE, _JSET, _AND, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x54, 0x06
_ALLOW, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_X32_BIT: Final = 0x40000000

_Instruction = tuple[int, int, int, int]
"""Code, jump where true, jump where false, operand."""


def _return(value: int) -> _Instruction:
    return (_RETURN, 0, 0, value)


def _refuse(code: int) -> _Instruction:
    return _return(_ERRNO | code)


def _load_argument(index: int) -> _Instruction:
    """The lower half of an argument; all that the checked calls look at fits in it on a little-endian machine."""
    return (_LD_ABSOLUTE, 0, 0, _ARGUMENTS_OFFSET + 8 * index)


def _check(refusal: Refusal) -> list[_Instruction]:
    """Instructions that return where `refusal` holds and fall through where it does not."""
    body = [_load_argument(refusal.argument)]
    if refusal.mask != 0xFFFFFFFF:
        body.append((_AND, 0, 0, refusal.mask))
    deny = _refuse(refusal.code)
    if refusal.bits:
        body += [(_JSET, 0, 1, refusal.bits), deny]
    for value in refusal.values:
        body += [(_JEQ, 0, 1, value), deny]
    if refusal.except_for:
        last = len(refusal.except_for)
        body += [(_JEQ, last - index, 0, value) for index, value in enumerate(refusal.except_for)]
        body.append(deny)
    return body


def _for_call(number: int, body: list[_Instruction]) -> list[_Instruction]:
    """`body` runs where the call is `number`, and must return; otherwise it is stepped over with the number loaded."""
    return [(_JEQ, 0, len(body), number), *body]


def _conditional(name: str, number: int) -> list[_Instruction]:
    if name == "setsockopt":
        refusal = _check(_SETSOCKOPT_TCP)
        body = [_load_argument(1), (_JEQ, 0, len(refusal), _IPPROTO_TCP), *refusal]
    else:
        body = [step for refusal in _CONDITIONAL[name] for step in _check(refusal)]
    return _for_call(number, [*body, _return(_ALLOW)])


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _allow_ranges(numbers: list[int]) -> list[_Instruction]:
    steps: list[_Instruction] = []
    for low, high in _ranges(numbers):
        steps += [(_JGT, 3, 0, high), (_JGE, 0, 1, low), _return(_ALLOW), _refuse(errno.EPERM)]
    return steps


class Profile(NamedTuple):
    """The filter in words: what is always allowed, and what is allowed but for some arguments."""

    allowed: tuple[str, ...]
    conditional: dict[str, tuple[Refusal, ...]]


def profile(*, execute: bool, machine: str = MACHINE) -> Profile:
    """The filter for `machine`, readable."""
    known = NUMBERS[machine]
    conditional = {name: refusals for name, refusals in _CONDITIONAL.items() if name in known}
    conditional["setsockopt"] = (_SETSOCKOPT_TCP,)
    names = (*_ALWAYS, *(_TO_EXECUTE if execute else ()))
    return Profile(tuple(name for name in names if name in known and name not in conditional), conditional)


@cache
def assemble(*, execute: bool, machine: str = MACHINE) -> bytes:
    """The filter for `machine` as a BPF program."""
    known = NUMBERS[machine]
    wanted = profile(execute=execute, machine=machine)
    steps = _head(machine)
    for name in wanted.conditional:
        steps += _conditional(name, known[name])
    # clone3 takes its flags by pointer, where a filter cannot look; without it C libraries use clone. openat2 likewise
    # hides the mode of a new file.
    steps += [step for name in ("clone3", "openat2") for step in _for_call(known[name], [_refuse(errno.ENOSYS)])]
    steps += _allow_ranges([known[name] for name in wanted.allowed])
    steps += [(_JGT, 0, 1, max(known.values())), _refuse(errno.ENOSYS), _refuse(errno.EPERM)]
    return _encode(steps)


def _head(machine: str) -> list[_Instruction]:
    """End the process for a call of another architecture; go on with the call's number loaded."""
    steps: list[_Instruction] = [
        (_LD_ABSOLUTE, 0, 0, _ARCHITECTURE_OFFSET),
        (_JEQ, 1, 0, AUDIT_ARCH[machine]),
        _return(_KILL_PROCESS),
        (_LD_ABSOLUTE, 0, 0, _NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        steps += [(_JGE, 0, 1, _X32_BIT), _return(_KILL_PROCESS)]
    return steps


def _encode(steps: list[_Instruction]) -> bytes:
    return b"".join(struct.pack("HBBI", *step) for step in steps)


_SECCOMP_SET_MODE_FILTER: Final = 1


def install(program: bytes) -> None:
    """Put `program` on this process and all that come of it. Needs `no_new_privileges` first."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    call("seccomp", _SECCOMP_SET_MODE_FILTER, 0, header)
