"""The filter that shows what a plugin tries: laid below the real one, it asks a listener about calls that name things.

Standard library and ctypes alone. Nothing becomes possible by it: where several filters stand, the kernel takes the
most restrictive answer, so what the real filter refuses stays refused.
"""

from __future__ import annotations

from typing import Final

from cardcage.sandbox import notify, seccomp
from cardcage.sandbox.syscalls import MACHINE, NUMBERS

OPENS: Final = ("open", "openat", "openat2", "creat")
LOOKS: Final = (
    "stat",
    "lstat",
    "newfstatat",
    "statx",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
)
CHANGES: Final = (
    "mkdir",
    "mkdirat",
    "unlink",
    "unlinkat",
    "rmdir",
    "rename",
    "renameat",
    "renameat2",
    "truncate",
)
PROGRAMS: Final = ("execve", "execveat")
CONNECTIONS: Final = ("connect",)
RECORDED: Final = (*OPENS, *LOOKS, *CHANGES, *PROGRAMS, *CONNECTIONS)


def install() -> int:
    """Put the filter on this process and all that come of it; returns the listener's descriptor.

    Whoever calls must hand the listener on at once: from here on every recorded call of its own waits for an answer.
    """
    known = NUMBERS[MACHINE]
    return notify.install(seccomp.notifying([known[name] for name in RECORDED if name in known]))
