"""Files that were not given, and ways out of the plugin's own folders."""

from __future__ import annotations

from typing import Any, Final

from cardcage.sandbox.syscalls import MACHINE, NUMBERS

from ..behaviour import Attempt, Behaviour, Control
from ..scenarios import files as scenes
from .words import FILTER, LANDLOCK, MOUNT, NOT_THERE, NOTHING, OWN_UID, PROC, READ_ONLY, ROOT, SHUT


def thief(method: str, *arguments: Any, stopped_by: dict[str, str], control: Control = Control.SUCCEEDS) -> Attempt:
    """An attempt of the plugin `file-thief`."""
    return Attempt(plugin="file-thief", method=method, arguments=arguments, stopped_by=stopped_by, control=control)


_AS_ROOT, _NONE = Control.SUCCEEDS_AS_ROOT, Control.NONE
_NOT_MADE: Final = {"ENOENT": MOUNT, "EROFS": ROOT, "EACCES": LANDLOCK, "EPERM": OWN_UID}

FILES: Final = (
    Behaviour(
        number=1,
        title="reads the user's ssh keys",
        attempts=(
            thief("read", "$key", stopped_by=SHUT),
            thief("list", "$home", stopped_by=SHUT),
            thief("probe", "$key", stopped_by=NOT_THERE),
            thief("climb", "$key", stopped_by={NOTHING: MOUNT}),
            thief("climb_by_descriptor", "$key", stopped_by={NOTHING: "descriptors"}, control=_NONE),
            thief("read", "~/.ssh/id_rsa", stopped_by=NOT_THERE, control=_NONE),
            thief("list", "/home", stopped_by=NOT_THERE),
            thief("list", "/root", stopped_by=NOT_THERE, control=_AS_ROOT),
            thief(
                "open_by_handle",
                NUMBERS[MACHINE]["open_by_handle_at"],
                "/plugin",
                stopped_by={"EPERM": FILTER},
                control=_NONE,
            ),
        ),
    ),
    Behaviour(
        number=2,
        title="reads /etc/shadow",
        attempts=(
            thief("read", "/etc/shadow", stopped_by=SHUT, control=_AS_ROOT),
            thief("probe", "/etc/shadow", stopped_by=NOT_THERE),
            thief("climb", "/etc/shadow", stopped_by={NOTHING: MOUNT}, control=_AS_ROOT),
        ),
    ),
    Behaviour(
        number=3,
        title="reads another plugin's data",
        attempts=(
            thief("read", "$neighbour_data", stopped_by=SHUT),
            thief("climb", "$neighbour_data", stopped_by={NOTHING: MOUNT}),
            thief("list", "$state", stopped_by=SHUT),
        ),
    ),
    Behaviour(
        number=16,
        title="leaves a symbolic link that leads out of its folder for the host to follow",
        audit=("release.refused",),
        scenario=scenes.leave_links_for_the_host,
    ),
    Behaviour(
        number=17,
        title="hard-links a file of the host",
        attempts=(
            thief("link", "$key", "/data/key", stopped_by=SHUT, control=_NONE),
            thief(
                "link",
                "/plugin/file_thief.py",
                "/data/link",
                stopped_by={"EXDEV": MOUNT, "EPERM": MOUNT, "EACCES": LANDLOCK},
                control=_NONE,
            ),
            thief(
                "link",
                "/etc/hosts",
                "/data/link",
                stopped_by={"EXDEV": MOUNT, "EACCES": LANDLOCK, "EPERM": "protected_hardlinks"},
                control=_NONE,
            ),
        ),
    ),
    Behaviour(
        number=30,
        title="talks to docker.sock and other socket files",
        attempts=(
            Attempt(plugin="smuggler", method="connect_unix", arguments=("$unix",), stopped_by=SHUT),
            Attempt(
                plugin="smuggler",
                method="connect_unix",
                arguments=("/var/run/docker.sock",),
                stopped_by=NOT_THERE,
                control=_NONE,
            ),
            thief("find_sockets", stopped_by={NOTHING: MOUNT}),
        ),
    ),
    Behaviour(
        number=44,
        title="opens /dev/mem and /dev/kvm, or makes its own device nodes",
        attempts=(
            *(
                thief("open_to_write", f"/dev/{name}", stopped_by=SHUT, control=_NONE)
                for name in ("mem", "kvm", "port", "sda", "vda", "fuse", "net/tun", "loop-control", "kmsg", "vsock")
            ),
            thief("open_to_write", "/dev/ptmx", stopped_by=SHUT),
            thief("make_device", "/data/mem", 1, 1, stopped_by={"EPERM": FILTER}, control=_NONE),
            thief("make_device", "/tmp/disk", 8, 0, stopped_by={"EPERM": FILTER}, control=_NONE),
        ),
    ),
    Behaviour(
        number=45,
        title="writes to core_pattern, sysrq and other switches of the kernel",
        attempts=(
            thief(
                "open_to_write",
                "/proc/sys/kernel/core_pattern",
                stopped_by=_NOT_MADE | {"ENOENT": PROC},
                control=_AS_ROOT,
            ),
            thief("open_to_write", "/proc/sysrq-trigger", stopped_by=_NOT_MADE | {"ENOENT": PROC}, control=_NONE),
            thief("open_to_write", "/proc/sys/kernel/modprobe", stopped_by=_NOT_MADE | {"ENOENT": PROC}, control=_NONE),
            thief(
                "open_to_write",
                "/proc/sys/vm/overcommit_memory",
                stopped_by=_NOT_MADE | {"ENOENT": PROC},
                control=_AS_ROOT,
            ),
            thief("list", "/sys/kernel", stopped_by=SHUT),
            thief("list", "/sys/fs/cgroup", stopped_by=SHUT),
        ),
    ),
    Behaviour(
        number=71,
        title="changes its own package, the standard library or the system's files to stay for the next start",
        attempts=(
            thief("open_to_write", "/plugin/file_thief.py", stopped_by=READ_ONLY, control=_NONE),
            thief("create", "/plugin/sitecustomize.py", stopped_by=READ_ONLY, control=_NONE),
            thief("make_writable", "/plugin/file_thief.py", stopped_by=_NOT_MADE, control=_NONE),
            thief("replace", "/plugin/file_thief.py", stopped_by=READ_ONLY | {"EXDEV": MOUNT}, control=_NONE),
            thief(
                "map_to_write",
                "/plugin/file_thief.py",
                stopped_by={"EACCES": MOUNT, "PermissionError": MOUNT},
                control=_NONE,
            ),
            thief("create", "/cardcage/lib/json.py", stopped_by=READ_ONLY, control=_NONE),
            thief("create", "/cardcage/python/evil.py", stopped_by=READ_ONLY, control=_NONE),
            thief("create", "/usr/lib/evil.so", stopped_by=READ_ONLY, control=_AS_ROOT),
            thief("create", "/evil", stopped_by=READ_ONLY, control=_AS_ROOT),
            thief("open_to_write", "/etc/hosts", stopped_by=READ_ONLY, control=_AS_ROOT),
            thief("open_to_write", "/etc/passwd", stopped_by=READ_ONLY, control=_AS_ROOT),
        ),
    ),
    Behaviour(
        number=72,
        title="leaves a set-id file for somebody else to run",
        attempts=(
            thief("make_setuid", "/data/evil", stopped_by={"EPERM": FILTER}, control=_NONE),
            thief("make_setuid", "/tmp/evil", stopped_by={"EPERM": FILTER}),
        ),
    ),
    Behaviour(
        number=73,
        title="writes files that belong to root on the host",
        scenario=scenes.own_files_as_root,
        root_only=True,
    ),
)
"""Behaviours after files."""
