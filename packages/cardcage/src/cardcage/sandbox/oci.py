"""A plan as the configuration of an OCI runtime (crun, runc, podman's, runsc): pure data, from pure data.

What the runtime is asked for is the plan's tree, namespaces, users, an empty set of capabilities, no new privileges and
a system call filter. What no runtime offers (Landlock, a filter without `execve`, a look at what really holds) the
first process in the container adds itself, before it starts the plugin: see `inside`.

Format: https://github.com/opencontainers/runtime-spec, version 1.0.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from typing import Any, Final

from cardcage.sandbox.plan import Mount, SandboxPlan
from cardcage.sandbox.profile import Condition, Refusal, profile
from cardcage.sandbox.syscalls import MACHINE

OCI_VERSION: Final = "1.0.2"

_NAMESPACES: Final = {"user", "pid", "mount", "network", "ipc", "uts"}
"""The first process makes the others itself: that of control groups once it is in its group, or the plugin would see
the group's name, and that of time because not every runtime knows it."""

_ARCHITECTURES: Final = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}

_FIRST_PROCESS_CALLS: Final = (
    "landlock_create_ruleset",
    "landlock_add_rule",
    "landlock_restrict_self",
    "seccomp",
    "capset",
    "prctl",
)
"""What the first process needs to add its own walls. The filter that it puts on refuses them again."""

_FIRST_PROCESS_RIGHTS: Final = ("CAP_SETPCAP", "CAP_SYS_ADMIN")
_TO_LISTEN: Final = ("CAP_NET_ADMIN", "CAP_NET_BIND_SERVICE")
"""What the first process is given: to make its last namespaces and to give up all of it, and where endpoints are
granted to make their addresses the container's own and listen there. They count in the container's own user namespace
alone, and are gone before the plugin's process is made."""

_MADE_INSIDE: Final = (0x02000000, 0x00000080)
"""The flags of those namespaces, cgroup and time."""

_RULES_MAX: Final = 64
"""A call with more combinations of allowed arguments is allowed here as a whole: the inner filter is exact."""

_DEV: Final = {
    "destination": "/dev",
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ["nosuid", "noexec", "strictatime", "mode=755", "size=64k"],
}
_MASKED: Final = ("kcore", "keys", "key-users", "kmsg", "sysrq-trigger", "timer_list", "sched_debug", "latency_stats")
_READ_ONLY: Final = ("sys", "bus", "fs", "irq", "acpi", "scsi", "driver", "tty")

_AF_NETLINK, _SOCK_RAW = 16, 3

IdMap = tuple[int, int]
"""Owner and group of a granted file, which is to look like the instance's own."""


def oci_config(
    plan: SandboxPlan,
    *,
    command: Sequence[str],
    own_mounts: Iterable[Mount] = (),
    environment: Mapping[str, str] | None = None,
    id_maps: Mapping[str, IdMap] | None = None,
    host_ids: tuple[int, int],
    without: Iterable[str] = (),
    rootfs: str = "rootfs",
) -> dict[str, Any]:
    """The `config.json` of a bundle that runs `command` behind the walls of `plan`.

    `own_mounts` are the launcher's own, and `environment` what its first process needs; `id_maps` says by target which
    binds are shown id-mapped; `host_ids` is the user and group that the plugin's are outside; `without` names optional
    mounts that the host does not have.
    """
    left_out = set(without)
    mounts = [one for one in (*plan.mounts, *own_mounts) if one.target not in left_out]
    inside = plan.identity
    return {
        "ociVersion": OCI_VERSION,
        "hostname": plan.hostname,
        "root": {"path": rootfs, "readonly": True},
        "process": {
            "terminal": False,
            "user": {"uid": inside.inside_uid, "gid": inside.inside_gid},
            "args": list(command),
            # The first process's, which is shown in /proc: the plan's is given to the plugin's process alone.
            "env": [f"{name}={value}" for name, value in (environment or {}).items()],
            "cwd": "/",
            "capabilities": {
                kind: list(_first_process_capabilities(plan))
                for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
            },
            "noNewPrivileges": True,
            "rlimits": [
                {"type": f"RLIMIT_{name}", "soft": value, "hard": value}
                for name, value in plan.rlimits.items()
                if name not in _LATER_LIMITS
            ],
        },
        "mounts": [_DEV, *(_mount(one, (id_maps or {}).get(one.target), plan) for one in mounts if _is_mounted(one))],
        "linux": {
            "namespaces": [{"type": name} for name in plan.namespaces if name in _NAMESPACES],
            "uidMappings": [{"containerID": inside.inside_uid, "hostID": host_ids[0], "size": 1}],
            "gidMappings": [{"containerID": inside.inside_gid, "hostID": host_ids[1], "size": 1}],
            "rootfsPropagation": "private",
            "maskedPaths": [
                *(one.target for one in mounts if one.kind == "mask"),
                *(f"/proc/{name}" for name in _MASKED),
            ],
            "readonlyPaths": [f"/proc/{name}" for name in _READ_ONLY],
            "seccomp": seccomp_profile(),
        },
    }


_LATER_LIMITS: Final = ("NPROC", "DATA", "CPU")
"""Set by the first process for itself and what it starts: a runtime's own setting up must not be counted or stopped."""


def _first_process_capabilities(plan: SandboxPlan) -> tuple[str, ...]:
    return (*_FIRST_PROCESS_RIGHTS, *(_TO_LISTEN if plan.network.all_listeners else ()))


def rootfs_entries(plan: SandboxPlan, own_mounts: Iterable[Mount] = ()) -> list[Mount]:
    """What must stand in the root folder before the runtime mounts anything, since the container's user may make
    nothing there: links, small files, and an empty file or folder where something is mounted. Parents come first.

    A mount point is of kind `directory` or `file`; which of the two that of a bind is, `whole_folder` says, or the
    source.
    """
    entries = [Mount(kind="directory", target=path) for path in ("/dev", "/proc")]
    for one in (*plan.mounts, *own_mounts):
        match one.kind:
            case "symlink" | "file" if not one.target.startswith("/dev/"):
                entries.append(one)
            case "bind":
                entries.append(one)
            case "tmpfs" | "proc" | "directory" if not one.target.startswith("/dev/"):
                entries.append(Mount(kind="directory", target=one.target))
            case _:
                pass  # devices are the runtime's, and what is masked stands there
    return entries


def _is_mounted(one: Mount) -> bool:
    return one.kind in ("bind", "tmpfs", "proc")


def _mount(one: Mount, id_map: IdMap | None, plan: SandboxPlan) -> dict[str, Any]:
    if one.kind == "proc":
        options = ["nosuid", "noexec", "nodev", "hidepid=invisible", "subset=pid"]
        return {"destination": one.target, "type": "proc", "source": "proc", "options": options}
    options = ["nosuid", "nodev", *(() if one.executable else ("noexec",)), "rw" if one.writable else "ro"]
    if one.kind == "tmpfs":
        options += [f"size={one.size_bytes}", f"nr_inodes={one.inodes}", "mode=700"]
        return {"destination": one.target, "type": "tmpfs", "source": "tmpfs", "options": options}
    if id_map is not None:
        options.append(_id_map_option(id_map, plan))
    return {"destination": one.target, "type": "none", "source": one.source, "options": ["rbind", *options]}


def _id_map_option(id_map: IdMap, plan: SandboxPlan) -> str:
    uid, gid = plan.identity.outside_uid, plan.identity.outside_gid
    return f"idmap=uids={id_map[0]}-{uid}-1;gids={id_map[1]}-{gid}-1"


def seccomp_profile(machine: str = MACHINE) -> dict[str, Any]:
    """Our system call filter in the runtime's form: by name, and by argument where that form can say it.

    Programs may be started under it, since the first process is one; and that process may add walls, addresses and two
    namespaces. The filter that it puts on before the plugin's code is loaded takes all of that away.
    """
    ours = profile(execute=True, machine=machine)
    rules: list[dict[str, Any]] = [
        {"names": sorted({*ours.allowed, *_FIRST_PROCESS_CALLS}), "action": "SCMP_ACT_ALLOW"},
    ]
    for name, conditions in ours.conditional.items():
        if name in _FIRST_PROCESS_CALLS:
            continue
        combinations = _allowed_arguments(conditions)
        if combinations is None:
            rules.append({"names": [name], "action": "SCMP_ACT_ALLOW"})
        else:
            rules += [{"names": [name], "action": "SCMP_ACT_ALLOW", "args": args} for args in combinations]
    # An address is made the container's own over a netlink socket; the inner filter refuses that family again.
    netlink = [_masked_equal(0, 0xFFFFFFFF, _AF_NETLINK), _masked_equal(1, 0xF, _SOCK_RAW)]
    rules.append({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": netlink})
    for flag in _MADE_INSIDE:
        args = [_masked_equal(0, 0xFFFFFFFF, flag)]
        rules.append({"names": ["unshare"], "action": "SCMP_ACT_ALLOW", "args": args})
    refused = sorted({name for names in ours.refused.values() for name in names} - {*_FIRST_PROCESS_CALLS, "unshare"})
    rules.append({"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": 1})
    return {
        # What is newer than the table does not exist, so that C libraries fall back.
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": [_ARCHITECTURES[machine]],
        "syscalls": rules,
    }


def _allowed_arguments(conditions: Iterable[Condition]) -> list[list[dict[str, Any]]] | None:
    """What is allowed, as alternatives of which each is a list of comparisons; None where that form cannot say it.

    It compares each argument once at most, and knows no "none of these".
    """
    choices: dict[int, list[dict[str, Any]]] = {}
    for one in conditions:
        if not isinstance(one, Refusal) or one.values or one.argument in choices:
            return None
        accepted = one.except_for or (0,)
        mask = one.bits or one.mask
        choices[one.argument] = [_masked_equal(one.argument, mask, value) for value in accepted]
    combinations = [list(each) for each in product(*choices.values())]
    return combinations if len(combinations) <= _RULES_MAX else None


def _masked_equal(argument: int, mask: int, value: int) -> dict[str, Any]:
    return {"index": argument, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}
