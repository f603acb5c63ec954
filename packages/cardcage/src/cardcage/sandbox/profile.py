"""The system call filter in words: for every call of the kernel, whether a plugin may make it, and if not, why.

`profile` gives each call exactly one place; `seccomp.assemble` makes a program of it, and
`docs/reference/system-calls.md` is written from it. A number that is newer than the table is refused with ENOSYS, so
that C libraries fall back to what they did before it existed. Standard library alone.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from cardcage.sandbox.syscalls import MACHINE, NUMBERS

_ALWAYS: Final = tuple(
    """
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 open openat creat close close_range lseek
    stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 readlink readlinkat getcwd chdir fchdir
    getdents getdents64 rename renameat renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat
    truncate ftruncate fallocate fsync fdatasync sync_file_range fadvise64 readahead sendfile copy_file_range splice tee
    chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask utime utimes utimensat futimesat flock
    getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr
    removexattr lremovexattr fremovexattr
    dup dup2 dup3 pipe pipe2 poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait
    epoll_pwait epoll_pwait2 eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime
    inotify_init inotify_init1 inotify_add_watch inotify_rm_watch memfd_create
    bind listen accept accept4 connect getsockname getpeername recvfrom recvmsg recvmmsg shutdown
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

_ABSENT: Final = {
    "clone3": "takes its flags by pointer, where a filter cannot look; without it C libraries use `clone`",
    "openat2": "takes the mode of a new file by pointer; without it C libraries use `openat`",
    "setxattrat": "a newer spelling of `setxattr`",
    "getxattrat": "a newer spelling of `getxattr`",
    "listxattrat": "a newer spelling of `listxattr`",
    "removexattrat": "a newer spelling of `removexattr`",
}
"""Said not to exist (ENOSYS), so that there is one way to do a thing and the filter sees it."""

_REFUSED: Final = {
    "namespaces and the root": "unshare setns chroot pivot_root",
    "mounts, and what they tell": """mount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig
        fsmount fspick statmount listmount""",
    "the memory and descriptors of other processes": """ptrace process_vm_readv process_vm_writev process_madvise
        process_mrelease pidfd_getfd kcmp""",
    "programs and probes in the kernel": "bpf perf_event_open userfaultfd",
    "probes of programs; the kernel asks no filter about them, and answers a plugin with SIGILL or ENXIO": """uretprobe
        uprobe""",
    "a second way to make system calls, which no filter sees": "io_uring_setup io_uring_enter io_uring_register",
    "asynchronous input and output that is little used and had holes": """io_setup io_destroy io_submit io_cancel
        io_getevents io_pgetevents vmsplice""",
    "keyrings, which no namespace parts": "add_key request_key keyctl",
    "kernel modules, another kernel, switching off": """create_module init_module finit_module delete_module
        get_kernel_syms query_module kexec_load kexec_file_load reboot""",
    "users and rights": """setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups capset""",
    "filters and walls of one's own": """seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self
        lsm_get_self_attr lsm_set_self_attr lsm_list_modules""",
    "the machine's clock and name": """settimeofday clock_settime clock_adjtime adjtimex sethostname
        setdomainname""",
    "the machine's disks, swap, quotas, log and terminals": """swapon swapoff quotactl quotactl_fd acct syslog sync
        syncfs vhangup ustat sysfs lookup_dcookie nfsservctl _sysctl""",
    "files by handle, past the path": "name_to_handle_at open_by_handle_at",
    "watching what others do with files": "fanotify_init fanotify_mark cachestat",
    "attributes of files that no library uses": "file_getattr file_setattr",
    "System V and POSIX queues, which outlive who made them": """shmget shmat shmctl shmdt semget semop semctl
        semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink mq_timedsend mq_timedreceive mq_notify
        mq_getsetattr""",
    "where memory lies, and memory that nobody can inspect": """mbind set_mempolicy set_mempolicy_home_node
        migrate_pages move_pages memfd_secret remap_file_pages map_shadow_stack""",
    "raising one's own priority": "sched_setparam sched_setscheduler sched_setattr ioprio_set ioprio_get",
    "ports and segments of the processor": "iopl ioperm modify_ldt set_thread_area get_thread_area",
    "remains of old kernels": """uselib epoll_ctl_old epoll_wait_old getpmsg putpmsg afs_syscall tuxcall security
        vserver""",
}
"""Why a call is refused (EPERM), and which are for that reason."""

PROGRAMS: Final = "starting programs, unless one is granted"

_NEW_NAMESPACES: Final = 0x7E020000
_SET_ID_BITS: Final = 0o6000
_MSG_FASTOPEN: Final = 0x20000000
_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_SOCK_TYPE_MASK: Final = 0xF
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_SEQPACKET = 1, 2, 5
_IPPROTO_TCP, _IPPROTO_UDP = 6, 17
_TIOCSTI, _TIOCLINUX, _TIOCCONS, _TIOCSETD = 0x5412, 0x541C, 0x541D, 0x5423
_S_IFMT, _S_IFCHR, _S_IFBLK = 0xF000, 0x2000, 0x6000
_PRCTL_OPTIONS: Final = (1, 2, 3, 4, 15, 16, 21, 23, 27, 29, 30, 36, 37, 38, 39, 40, 41, 42, 0x53564D41)
"""Name, dumpable, death signal, subreaper, timer slack, huge pages, named memory, and questions about oneself."""

_IOCTL_REQUESTS: Final = (
    0x5401, 0x802C542A, 0x540F, 0x5413,  # TCGETS, TCGETS2, TIOCGPGRP, TIOCGWINSZ: is it a terminal, and how wide
    0x541B, 0x5411, 0x8905,  # FIONREAD, SIOCOUTQ, SIOCATMARK: how much waits
    0x5421, 0x5450, 0x5451, 0x5452,  # FIONBIO, FIONCLEX, FIOCLEX, FIOASYNC
    0x8910, 0x8912, 0x8913, 0x8915, 0x8919, 0x891B, 0x8921, 0x8927, 0x8933,  # SIOCGIF*: what its own interfaces are
    0x80086601, 0x40049409, 0x4020940D,  # FS_IOC_GETFLAGS, FICLONE, FICLONERANGE: copying a file
)  # fmt: skip

_FCNTL_COMMANDS: Final = (
    0, 1, 2, 3, 4, 1030,  # duplicating, flags
    5, 6, 7, 36, 37, 38, 1024, 1025,  # locks and leases
    8, 9, 10, 11, 15, 16,  # who is signalled
    1031, 1032, 1033, 1034, 1035, 1036, 1037, 1038,  # pipe sizes, seals, hints of a file's lifetime
)  # fmt: skip

_SOL_SOCKET, _SOL_IP, _SOL_TCP, _SOL_IPV6 = 1, 0, 6, 41

_OPTIONS_TO_SET: Final = {
    # Reuse, broadcast, buffers, keep-alive, out-of-band, linger, credentials of the peer, low-water mark, timeouts.
    _SOL_SOCKET: (2, 6, 7, 8, 9, 10, 13, 15, 16, 18, 20, 21, 66, 67),
    # Kind of service, hops, path size, errors as messages, the port at connect.
    _SOL_IP: (1, 2, 10, 11, 24),
    # No delay, segment size, cork, keep-alive, retries, linger, defer, window, quick answers, timeout, low water.
    _SOL_TCP: (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 18, 25),
    # Hops, path size, errors as messages, v6 only, traffic class.
    _SOL_IPV6: (16, 23, 25, 26, 67),
}
_OPTIONS_TO_GET: Final = {
    # Besides those to set: type, error, peer's credentials and its groups and pidfd, listening, protocol, family, port.
    _SOL_SOCKET: (*_OPTIONS_TO_SET[_SOL_SOCKET], 3, 4, 17, 30, 38, 39, 59, 77),
    _SOL_IP: (*_OPTIONS_TO_SET[_SOL_IP], 14),
    # Information, congestion control.
    _SOL_TCP: (*_OPTIONS_TO_SET[_SOL_TCP], 11, 13),
    _SOL_IPV6: (*_OPTIONS_TO_SET[_SOL_IPV6], 24),
}
"""By level, which socket options. All else is none of a plugin's: filters and BPF programs, marks, devices, time
stamps, netfilter's tables, multicast, tunnels, routing headers, IPsec, congestion modules, TCP repair, fast open and
TLS."""


class Refusal(NamedTuple):
    """Refuse where argument `argument`, masked, has a bit of `bits`, is one of `values`, or is none of `except_for`.

    Where none of the three is given it refuses always: a refusal with an error of its own.
    """

    argument: int
    why: str
    code: int = errno.EPERM
    mask: int = 0xFFFFFFFF
    bits: int = 0
    values: tuple[int, ...] = ()
    except_for: tuple[int, ...] = ()


class Options(NamedTuple):
    """Refuse unless argument 1 (the level) is a key of `allowed` and argument 2 (the option) one of its values."""

    why: str
    allowed: Mapping[int, tuple[int, ...]]
    code: int = errno.ENOPROTOOPT


Condition = Refusal | Options

_FASTOPEN: Final = "TCP fast open, which connects without `connect`"
_SET_ID: Final = "set-id files, which would outlive the walls"
_DEVICE: Final = "device nodes"

_CONDITIONAL: Final[dict[str, tuple[Condition, ...]]] = {
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
    "ioctl": (
        Refusal(1, "typing into a terminal, or taking it over", values=(_TIOCSTI, _TIOCLINUX, _TIOCCONS, _TIOCSETD)),
        Refusal(
            1,
            "all requests but those about waiting bytes, terminals' sizes, own interfaces and copies of files",
            errno.ENOTTY,
            except_for=_IOCTL_REQUESTS,
        ),
    ),
    "fcntl": (
        Refusal(1, "commands besides those of files, locks and pipes", errno.EINVAL, except_for=_FCNTL_COMMANDS),
    ),
    "socket": (
        Refusal(
            0, "families besides UNIX, INET, INET6", errno.EAFNOSUPPORT, except_for=(_AF_UNIX, _AF_INET, _AF_INET6)
        ),
        Refusal(
            1,
            "raw sockets, and kinds besides stream, datagram and packet stream",
            mask=_SOCK_TYPE_MASK,
            except_for=(_SOCK_STREAM, _SOCK_DGRAM, _SOCK_SEQPACKET),
        ),
        # Multipath TCP, SCTP, SMC, L2TP, UDP-Lite and whatever comes: each is kernel code that a plugin has no use for.
        Refusal(2, "protocols besides TCP and UDP", errno.EPROTONOSUPPORT, except_for=(0, _IPPROTO_TCP, _IPPROTO_UDP)),
    ),
    "socketpair": (Refusal(0, "families besides UNIX", errno.EAFNOSUPPORT, except_for=(_AF_UNIX,)),),
    "setsockopt": (Options("options besides those of ordinary clients and servers", _OPTIONS_TO_SET),),
    "getsockopt": (Options("options besides those of ordinary clients and servers", _OPTIONS_TO_GET),),
    "prctl": (Refusal(0, "options that change more than oneself", errno.EINVAL, except_for=_PRCTL_OPTIONS),),
    "personality": (Refusal(0, "changing it", except_for=(0xFFFFFFFF,)),),
}
"""Allowed but for these arguments."""


ProfileName = Literal["plugin", "fallback", "fallback-shared", "hypervisor"]
"""`plugin` stands behind namespaces of its own. `fallback` is for a process that has none, but a uid of its own;
`fallback-shared` for one that shares its uid with the host, whose files and processes are its own to the kernel.
`hypervisor` is `plugin` with the requests of /dev/kvm, for QEMU where it uses that."""

BEHIND_NAMESPACES: Final = ("plugin", "hypervisor")

NOTIFIED: Final = ("connect", "fork", "vfork", "clone")
"""What a supervisor decides call by call where there are no namespaces: where to connect, and how many processes."""

_WITHOUT_NAMESPACES: Final = {
    "servers: without a network of one's own they would be the machine's": "bind listen",
    "watching files, which Landlock does not hear of": "inotify_init inotify_init1 inotify_add_watch inotify_rm_watch",
}

_WITHOUT_OWN_UID: Final = {
    "modes, owners and times of files, which Landlock does not hear of": """chmod fchmod fchmodat fchmodat2 chown fchown
        lchown fchownat utime utimes utimensat futimesat""",
}
_ATTRIBUTES: Final = """getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr setxattr lsetxattr fsetxattr
    removexattr lremovexattr fremovexattr"""

_SIGNALS: Final = {
    "signals, where the kernel cannot confine them to the sandbox": """kill tkill tgkill rt_sigqueueinfo
        rt_tgsigqueueinfo pidfd_send_signal""",
}

_PRIO_USER: Final = 2
_ONLY_ONESELF: Final = "other processes than oneself"

_STRICTER_WITHOUT_NAMESPACES: Final[dict[str, tuple[Condition, ...]]] = {
    "socket": (
        *_CONDITIONAL["socket"],
        Refusal(1, "datagrams, which go where they are addressed", mask=_SOCK_TYPE_MASK, values=(_SOCK_DGRAM,)),
    ),
    # By kinds that are allowed: the kernel takes a raw Unix socket for a datagram one.
    "socketpair": (
        *_CONDITIONAL["socketpair"],
        Refusal(
            1,
            "datagrams, which go where they are addressed",
            mask=_SOCK_TYPE_MASK,
            except_for=(_SOCK_STREAM, _SOCK_SEQPACKET),
        ),
    ),
    # Neither the signal of a dead parent, which ends the sandbox with its supervisor, nor taking in orphans.
    "prctl": (
        Refusal(
            0,
            "options that change more than oneself",
            errno.EINVAL,
            except_for=tuple(option for option in _PRCTL_OPTIONS if option not in (1, 36)),
        ),
    ),
    "fcntl": (
        Refusal(
            1,
            "commands besides those of files, locks and pipes; who is signalled",
            errno.EINVAL,
            except_for=tuple(command for command in _FCNTL_COMMANDS if command not in (8, 10, 15)),
        ),
    ),
    "prlimit64": (Refusal(0, _ONLY_ONESELF, except_for=(0,)),),
    "setpriority": (
        Refusal(0, "all processes of a user", values=(_PRIO_USER,)),
        Refusal(1, _ONLY_ONESELF, except_for=(0,)),
    ),
    "sched_setaffinity": (Refusal(0, _ONLY_ONESELF, except_for=(0,)),),
}


class Profile(NamedTuple):
    """The filter in words. Every call of the architecture stands in one of the first four."""

    allowed: tuple[str, ...]
    conditional: Mapping[str, tuple[Condition, ...]]
    """Allowed but for some arguments."""
    absent: Mapping[str, str]
    """Said not to exist (ENOSYS), each with the reason."""
    refused: Mapping[str, tuple[str, ...]]
    """The reason, and the calls that are refused (EPERM) for it."""
    notified: tuple[str, ...] = ()
    """Of the first two: those that a supervisor decides where the filter does not refuse them."""


def profile(*, execute: bool, machine: str = MACHINE, name: ProfileName = "plugin", signals: bool = True) -> Profile:
    """The filter for `machine`. `execute` says whether programs may be started, `signals` whether any may be sent."""
    known = NUMBERS[machine]
    refused = _refusals(name, execute=execute, signals=signals)
    gone = {call for calls in refused.values() for call in calls}
    conditional = _CONDITIONAL if name in BEHIND_NAMESPACES else {**_CONDITIONAL, **_STRICTER_WITHOUT_NAMESPACES}
    if name == "hypervisor":
        conditional = {**_CONDITIONAL, "ioctl": _CONDITIONAL["ioctl"][:1]}
    if name == "fallback-shared":
        unsupported = (Refusal(0, "attributes of files, which Landlock does not hear of", errno.EOPNOTSUPP),)
        conditional = {**conditional, **dict.fromkeys(_ATTRIBUTES.split(), unsupported)}
    allowed = (*_ALWAYS, *(_TO_EXECUTE if execute else ()))
    return Profile(
        allowed=tuple(one for one in allowed if one in known and one not in conditional and one not in gone),
        conditional={one: found for one, found in conditional.items() if one in known and one not in gone},
        absent={one: why for one, why in _ABSENT.items() if one in known},
        refused={why: kept for why, calls in refused.items() if (kept := tuple(one for one in calls if one in known))},
        notified=() if name in BEHIND_NAMESPACES else tuple(one for one in NOTIFIED if one in known),
    )


def _refusals(name: ProfileName, *, execute: bool, signals: bool) -> dict[str, tuple[str, ...]]:
    reasons = dict(_REFUSED)
    if name not in BEHIND_NAMESPACES:
        reasons |= _WITHOUT_NAMESPACES
    if name == "fallback-shared":
        reasons |= _WITHOUT_OWN_UID
    if not signals:
        reasons |= _SIGNALS
    refused = {why: tuple(calls.split()) for why, calls in reasons.items()}
    return refused if execute else {**refused, PROGRAMS: _TO_EXECUTE}
