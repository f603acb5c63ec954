"""The layers by short names, and what each of them answers."""

from __future__ import annotations

from typing import Final

MOUNT: Final = "mount_namespace"
ROOT: Final = "read_only_root"
PROC: Final = "private_proc"
PID: Final = "pid_namespace"
NET: Final = "network_namespace"
FILTER: Final = "system_call_filter"
LIMITS: Final = "resource_limits"
CAPS: Final = "capabilities"
NO_NEW: Final = "no_new_privileges"
LANDLOCK: Final = "landlock_files"
SCOPES: Final = "landlock_scopes"
UTS: Final = "uts_namespace"
OWN_UID: Final = "own_uid"
DESCRIPTORS: Final = "descriptors"
ENVIRONMENT: Final = "environment"
CGROUP: Final = "cgroup_limits"
USER_NS: Final = "user_namespace"

# What the host itself checks: these are not walls of a process, and hold on every machine.
WIRE: Final = "wire limits"
DEADLINES: Final = "deadlines"
SUPERVISION: Final = "supervision"
LOGS: Final = "log limits"
GRANTS: Final = "grants"
CHECKS: Final = "package checks"
DIGEST: Final = "package digest"
MANIFEST: Final = "manifest checks"
FLOOR: Final = "floor"
NO_SURFACE: Final = "no surface"
TYPES: Final = "declared types"

NOT_THERE: Final = {"ENOENT": MOUNT}
SHUT: Final = {"ENOENT": MOUNT, "EACCES": LANDLOCK, "EPERM": LANDLOCK}
"""A file that is not shown, or that is shown and closed by the second wall."""
READ_ONLY: Final = {"EROFS": ROOT, "EACCES": LANDLOCK}
NOTHING: Final = "FoundNothing"
REFUSED_CALL: Final = {"EPERM": FILTER}
"""The filter's own word."""
UNREACHABLE: Final = {
    "ENETUNREACH": NET,
    "ECONNREFUSED": NET,
    "EADDRNOTAVAIL": NET,
    "EHOSTUNREACH": NET,
    "EACCES": "landlock_network",
    "EPERM": "landlock_network",
}
