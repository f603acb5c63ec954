"""The three levels, each as the set of rules that it stands for.

Layers are called by the names that enforcement reports use.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cardcage.manifest import Limits
from cardcage.manifest.limits import LIMIT_KEYS
from cardcage.permissions import PermissionKind
from cardcage.policy.model import Conditions, Effects, Level, Rule

MIB: Final = 1024 * 1024

FLOOR: Final = (
    "user_namespace",
    "pid_namespace",
    "mount_namespace",
    "network_namespace",
    "ipc_namespace",
    "uts_namespace",
    "read_only_root",
    "own_uid",
    "capabilities",
    "no_new_privileges",
    "system_call_filter",
    "resource_limits",
    "descriptors",
    "environment",
)
"""The layers that every kernel with user namespaces and seccomp has."""

SECOND_WALLS: Final = (
    "private_proc",
    "cgroup_namespace",
    "landlock_files",
    "landlock_network",
    "landlock_scopes",
    "cgroup_limits",
)
"""Layers behind those, which older kernels and some containers lack."""

BROAD_KINDS: Final = (
    PermissionKind.NETWORK,
    PermissionKind.READ,
    PermissionKind.WRITE,
    PermissionKind.SUBPROCESS,
)

STRICT_DEFAULTS: Final = Limits(
    memory_bytes=256 * MIB,
    cpu_cores=1.0,
    processes=32,
    descriptors=256,
    disk_bytes=256 * MIB,
    inodes=10_000,
    network_bytes_per_s=10 * MIB,
    connections=32,
    log_lines_per_s=100,
)
"""What a plugin gets that asks for nothing in particular: several times what an idle one in Python uses."""


def _rule(level: Level, name: str, then: Effects, when: Conditions | None = None, reason: str = "") -> Rule:
    return Rule(name=f"{level}/{name}", position=f"level {level}", when=when or Conditions(), then=then, reason=reason)


LEVELS: Final[Mapping[Level, tuple[Rule, ...]]] = {
    Level.STRICT: (
        _rule(Level.STRICT, "walls", Effects(floor=FLOOR, floor_where_possible=SECOND_WALLS)),
        _rule(Level.STRICT, "no-way-around", Effects(unconfined="never", fallback="never")),
        _rule(
            Level.STRICT,
            "nothing-broad",
            Effects(deny=True),
            Conditions(broad=BROAD_KINDS),
            "patterns of hosts, any port, any program and all files are too much for one plugin",
        ),
        _rule(Level.STRICT, "bounds", Effects(defaults=STRICT_DEFAULTS, bounded=tuple(LIMIT_KEYS))),
        _rule(Level.STRICT, "encryption", Effects(encrypt=True)),
    ),
    Level.STANDARD: (
        _rule(Level.STANDARD, "walls", Effects(floor=FLOOR)),
        _rule(Level.STANDARD, "unconfined-by-name", Effects(unconfined="named")),
    ),
    Level.PERMISSIVE: (
        _rule(Level.PERMISSIVE, "walls", Effects(floor=FLOOR, fallback="allow")),
        _rule(Level.PERMISSIVE, "unconfined", Effects(unconfined="any")),
        _rule(
            Level.PERMISSIVE,
            "warning",
            Effects(warn="the policy is permissive: plugins may run behind weaker walls, or behind none"),
        ),
    ),
}
"""The rules of each level. Whatever `strict` allows `standard` allows, and whatever that allows `permissive` does."""
