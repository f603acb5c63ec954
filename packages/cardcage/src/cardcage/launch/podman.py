"""A bundle's configuration as a command line of podman, which takes no configuration of its own making from others.

podman adds what no plan asks for: a few files that say that this is a container, and a view of the control groups. The
first process's Landlock rules shut the plugin out of them. It shows all of `/proc` with the kernel's files covered one
by one, and bounds no number of files in `/tmp`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cardcage.sandbox.plan import Mount

EXTRA_ENTRIES: Final = (
    *(Mount(kind="directory", target=path) for path in ("/sys", "/run")),
    *(Mount(kind="file", target=path) for path in ("/etc/hostname", "/run/.containerenv")),
)
"""What podman mounts on by itself, and could not make in a root folder that belongs to another user."""

SETTINGS: Final = """\
[containers]
default_sysctls = []
default_ulimits = []
[engine]
events_logger = "none"
cgroup_manager = "cgroupfs"
lock_type = "file"
no_pivot_root = false
"""
"""By default it sets up a network, limits and logs that are not wanted, or that one mapped user may not have."""

_FIXED: Final = (
    *("--rm", "--read-only", "--read-only-tmpfs=false", "--systemd=false", "--passwd=false", "--no-hosts"),
    *("--cgroups=disabled", "--network=none", "--log-driver=none", "--http-proxy=false", "--unsetenv-all"),
    *(
        "--ipc=private",
        "--pid=private",
        "--cgroupns=host",
        "--uts=private",
        "--cap-drop=all",
        "--security-opt=no-new-privileges",
    ),
    "--mount=type=tmpfs,destination=/sys,ro,tmpfs-size=4096",
)


def engine(path: str, state: Path) -> tuple[str, ...]:
    """The command up to its verb, with everything that it keeps beneath `state`."""
    places = ("--root", f"{state}/root", "--runroot", f"{state}/run", "--tmpdir", f"{state}/own")
    return (path, *places, "--storage-driver", "vfs", "--log-level", "error", "--runtime-flag", f"root={state}/oci")


def run_arguments(config: Mapping[str, Any], *, bundle: Path, name: str, preserved: int) -> Sequence[str]:
    """The arguments of `podman run` that amount to `config`.

    Raises `ValueError` for a path that its command line cannot spell.
    """
    process, linux = config["process"], config["linux"]
    user = process["user"]
    maps = [
        f"--{kind}map={one['containerID']}:{one['hostID']}:{one['size']}"
        for kind, key in (("uid", "uidMappings"), ("gid", "gidMappings"))
        for one in linux[key]
    ]
    limits = {limit["type"].removeprefix("RLIMIT_").lower(): limit for limit in process["rlimits"]}
    # Those of processes come from the first process; podman must be told some, or it asks for more than it may.
    ulimits = [f"--ulimit=nofile={limits['nofile']['soft']}:{limits['nofile']['hard']}", "--ulimit=nproc=256:256"]
    return (
        *_FIXED,
        f"--name={name}",
        f"--hostname={config['hostname']}",
        f"--user={user['uid']}:{user['gid']}",
        *maps,
        *ulimits,
        *(f"--cap-add={name}" for name in process["capabilities"]["bounding"]),
        *(f"--env={entry}" for entry in process["env"]),
        f"--security-opt=seccomp={bundle}/seccomp.json",
        f"--security-opt=mask={':'.join(linux['maskedPaths'])}",
        f"--preserve-fds={preserved}",
        f"--workdir={process['cwd']}",
        *(argument for one in config["mounts"] for argument in _mount(one)),
        "--rootfs",
        str(bundle / config["root"]["path"]),
        *process["args"],
    )


def _mount(one: Mapping[str, Any]) -> tuple[str, ...]:
    target, options = one["destination"], list(one["options"])
    if target in ("/dev", "/proc"):
        return ()  # it makes its own
    spelled = (one["source"], target) if one["type"] == "none" else (target,)
    if any(":" in path or "," in path for path in spelled):
        raise ValueError(f"podman's command line cannot spell the path {' or '.join(spelled)}")
    if one["type"] == "tmpfs":
        known = (option for option in options if option != "rw" and not option.startswith("nr_inodes="))
        return ("--tmpfs", f"{target}:{','.join(known)}")
    return ("--volume", f"{one['source']}:{target}:{','.join(options)}")


def write_settings(bundle: Path, config: Mapping[str, Any]) -> Path:
    """Put beside the bundle what podman reads from files; the place of its settings."""
    (bundle / "seccomp.json").write_text(json.dumps(config["linux"]["seccomp"]), encoding="utf-8")
    settings = bundle / "containers.conf"
    settings.write_text(SETTINGS, encoding="utf-8")
    return settings
