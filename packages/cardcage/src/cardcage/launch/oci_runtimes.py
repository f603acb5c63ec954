"""The OCI runtimes that a machine has, and how each is told to run a bundle. Tried by doing elsewhere.

Some kernels carry control groups of both versions, version 2 below `/sys/fs/cgroup/unified`. crun and podman refuse to
run where they see that. They need no control groups of ours, since the host puts the container's first process into its
group itself; so they are started in a mount namespace of their own in which that folder is covered.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cardcage.foundation.errors import Misuse, Refused
from cardcage.launch import podman
from cardcage.sandbox.plan import Mount

RUNTIMES: Final = ("crun", "podman")
"""In the order in which they are chosen. crun takes all of a plan, and starts in a fraction of the time."""

PRESERVED: Final = 4
"""Descriptors that the first process inherits, from 3 on: stream, control, standard output, standard error."""

PODMAN: Final = "podman"
HYBRID: Final = "/sys/fs/cgroup/unified"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HIDE_AND_RUN: Final = f'mount -t tmpfs -o ro,size=4k cardcage {HYBRID} && exec "$@"'
"""Something is mounted over it: to unmount what the host mounted is forbidden to an ordinary user's namespace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OciRuntime:
    """One runtime: its name, where it is, and whether it is started out of sight of the mixed control groups."""

    name: str
    path: str
    unshare: str = ""
    as_root: bool = True

    @property
    def hides_cgroups(self) -> bool:
        """Whether it is started in a mount namespace of its own."""
        return bool(self.unshare)

    def host_ids(self, uid: int | None, gid: int | None) -> tuple[int, int]:
        """The plugin's user and group outside the container, as the runtime sees them."""
        if uid is not None and gid is not None:
            return uid, gid
        # An ordinary user is 0 in the namespace that it had to make in order to unmount something.
        return (0, 0) if self.hides_cgroups else (os.geteuid(), os.getegid())

    def run(self, *, state: Path, bundle: Path, name: str) -> Sequence[str]:
        """The command that runs `bundle` and ends with it. Raises `ValueError` where it cannot be told the plan."""
        if self.name == PODMAN:
            config = json.loads((bundle / "config.json").read_text(encoding="utf-8"))
            podman.write_settings(bundle, config)
            arguments = podman.run_arguments(config, bundle=bundle, name=name, preserved=PRESERVED)
            return self._outside((*podman.engine(self.path, state), "run", *arguments))
        fds = ("--preserve-fds", str(PRESERVED))
        return self._outside((*self._crun(state), "run", *fds, "--bundle", str(bundle), name))

    def delete(self, *, state: Path, name: str) -> Sequence[str]:
        """The command that takes away what a killed runtime has left of a container."""
        if self.name == PODMAN:
            return self._outside((*podman.engine(self.path, state), "rm", "--force", "--ignore", "--time=0", name))
        return self._outside((*self._crun(state), "delete", "--force", name))

    def may_have_left(self, *, state: Path, name: str) -> bool:
        """Whether something of the container may still be there when its runtime has ended."""
        return state.exists() if self.name == PODMAN else (state / name).exists()

    def environment(self, bundle: Path) -> dict[str, str]:
        """What it is started with: nothing of the host's own environment."""
        plain = {"PATH": _PATH, "HOME": "/", "LANG": "C.UTF-8"}
        if self.name != PODMAN:
            return plain
        own = str(bundle)  # it keeps things in its user's home
        return {**plain, "HOME": own, "XDG_RUNTIME_DIR": own, "CONTAINERS_CONF": f"{own}/containers.conf"}

    @property
    def extra_entries(self) -> tuple[Mount, ...]:
        """What must stand in the root folder besides the plan's own."""
        return podman.EXTRA_ENTRIES if self.name == PODMAN else ()

    def _crun(self, state: Path) -> tuple[str, ...]:
        return (self.path, "--root", str(state), "--cgroup-manager", "disabled")

    def _outside(self, command: tuple[str, ...]) -> tuple[str, ...]:
        if not self.hides_cgroups:
            return command
        user = () if self.as_root else ("--user", "--map-root-user")
        shell = ("/bin/sh", "-c", _HIDE_AND_RUN, "sh")
        return (self.unshare, *user, "--mount", "--propagation", "private", *shell, *command)


def find_runtime(wanted: str | None = None) -> OciRuntime:
    """The runtime named `wanted`, or the first of `RUNTIMES` that is installed.

    Raises `Refused` with code `container_runtime_missing` where there is none, `Misuse` for a name that is not known.
    """
    if wanted is not None and wanted not in RUNTIMES:
        raise Misuse(
            f"the container runtime is {wanted!r}, expected one of: {', '.join(RUNTIMES)}",
            code="container_runtime_unknown",
        )
    for name in (wanted,) if wanted else RUNTIMES:
        path = shutil.which(name, path=_PATH)
        if path is not None:
            return _runtime(name, path)
    raise Refused(
        f"isolation container needs an OCI runtime, and {wanted or ' or '.join(RUNTIMES)} is not installed here",
        code="container_runtime_missing",
        hint="apt-get install crun (Debian, Ubuntu), dnf install crun (Fedora), apk add crun (Alpine)",
    )


def installed_runtimes() -> tuple[OciRuntime, ...]:
    """All that are installed, in the order in which they are chosen."""
    found = ((name, shutil.which(name, path=_PATH)) for name in RUNTIMES)
    return tuple(_runtime(name, path) for name, path in found if path is not None)


def _runtime(name: str, path: str) -> OciRuntime:
    as_root = os.geteuid() == 0
    unshare = (shutil.which("unshare", path=_PATH) or "") if os.path.ismount(HYBRID) else ""
    return OciRuntime(name=name, path=path, unshare=unshare, as_root=as_root)
