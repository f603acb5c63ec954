"""The walls that someone else put up, looked at from behind them, and the rest added. Standard library alone.

An OCI runtime is asked for most of a plan's walls. What it was asked for is believed only where the first process in
the container, which runs this before any code of the plugin, sees it: in its own state as the kernel tells it, and by
trying what must fail. What runtimes do not offer is put on here, the same way as around a plugin that the fork server
starts: Landlock, the exact system call filter, the limits on processes and memory.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from cardcage.sandbox import capabilities
from cardcage.sandbox.enter import CLONE_FLAGS, LayerRow, Surroundings, Walls
from cardcage.sandbox.syscalls import call, prctl

if TYPE_CHECKING:
    from cardcage.sandbox.plan import SandboxPlan

_PR_GET_SECCOMP: Final = 21
_PROBE_ADDRESS: Final = ("192.0.2.1", 9)
"""Documentation's own: no packet leaves, only a route is looked for."""


class InnerWalls(Walls):
    """What holds in a container, and what is added there. `host` has the host's namespaces by kind, to compare with."""

    def __init__(
        self, plan: SandboxPlan, *, by: str, host: Mapping[str, int], outside: tuple[int, int], layers: list[LayerRow]
    ) -> None:
        surroundings = Surroundings(as_root=outside[0] == 0)
        surroundings.namespaces.update(host)
        surroundings.entered = frozenset({"mount", "network", "ipc", "uts", "cgroup", "user", "pid"})
        super().__init__(plan, surroundings, layers=layers)
        self._by = by
        self._outside = outside
        self._seen = f"made by {by}, seen from inside"

    def steps(self) -> tuple[tuple[str, Callable[[], None]], ...]:
        """What is looked at and what is added, in order."""
        return (
            ("cgroup namespace", self._enter_cgroup_namespace),
            ("namespaces", self._look_at_namespaces),
            ("time namespace", self._enter_time_namespace),
            ("file tree", self._look_at_tree),
            ("private /proc", self._look_at_proc),
            ("loopback", self._look_at_network),
            ("egress", self._open_listeners),
            ("identity", self._look_at_identity),
            ("resource limits", self._limit_resources),
            ("capabilities", self._look_at_capabilities),
            ("no new privileges", self._look_at_privileges),
            ("Landlock", self._apply_landlock),
            ("system call filter", self._filter_twice),
            ("working folder", lambda: os.chdir(self._plan.working_dir)),
            ("floor", self._check_floor),
        )

    def put_up(self) -> None:
        """All steps in order. Raises `SetupError`, also where a layer of the plan's floor does not hold."""
        try:
            super().put_up()
        finally:
            os.close(self._around.proc)

    def _look_at_namespaces(self) -> None:
        for name in CLONE_FLAGS:
            if name != "time":
                self._say_namespace(name)

    def _enter_cgroup_namespace(self) -> None:
        """Once it is in its group, and not before: the namespace begins where the process that makes it is."""
        call("unshare", CLONE_FLAGS["cgroup"])

    def _look_at_tree(self) -> None:
        shows_host = [path for path in ("/sys/kernel", "/root", "/home", "/var", "/boot") if os.path.lexists(path)]
        if os.path.lexists("/sys/kernel") or not _refused(lambda: os.mkdir("/probe")):
            self._say("read_only_root", "unavailable", "the root can be written, or the kernel's files stand in it")
        elif not os.statvfs("/").f_flag & os.ST_RDONLY:
            self._say("read_only_root", "best-effort", "what was tried was refused; the mount is not read-only")
        else:
            granted = f"; also there: {', '.join(shows_host)}" if shows_host else ""
            self._say("read_only_root", "enforced", f"{self._seen}{granted}")

    def _look_at_proc(self) -> None:
        dangerous = [path for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern") if _can_write(path)]
        readable = [path for path in ("/proc/kcore", "/proc/keys") if _holds_something(path)]
        if dangerous or readable or os.getpid() != 1:
            self._say("private_proc", "unavailable", f"open: {', '.join((*dangerous, *readable)) or 'another pid'}")
        else:
            covered = os.path.lexists("/proc/sys")
            detail = "kernel files covered one by one" if covered else "processes of its own only, no kernel files"
            self._say("private_proc", "enforced", detail)

    def _look_at_network(self) -> None:
        with open("/proc/self/net/dev", encoding="ascii") as file:  # asking by socket takes a family that is refused
            names = [line.partition(":")[0].strip() for line in file if ":" in line]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            closed = _refused(lambda: sock.connect(_PROBE_ADDRESS))
        if names != ["lo"] or not closed:
            self._replace("network_namespace", "unavailable", f"it holds {', '.join(names)}, or a way out")

    def _replace(self, name: str, status: str, detail: str) -> None:
        self.layers[:] = [row for row in self.layers if row[0] != name]
        self._say(name, status, detail)

    def _look_at_identity(self) -> None:
        inside = self._plan.identity
        mine = os.getresuid() == (inside.inside_uid,) * 3 and os.getresgid() == (inside.inside_gid,) * 3
        if not mine or not self._outside[0] or not _refused(lambda: os.setuid(0)):
            self._say("own_uid", "unavailable", f"runs as uid {os.getuid()}, {self._outside[0]} outside")
        elif self._plan.identity.outside_uid is None:
            self._say("own_uid", "best-effort", f"runs as the host's own user, uid {self._outside[0]}")
        else:
            self._say("own_uid", "enforced", f"uid {self._outside[0]} outside, {os.getuid()} inside")

    def _look_at_capabilities(self) -> None:
        capabilities.drop_all()  # what it was given to make the rest with
        none_left = capabilities.effective() == 0 and capabilities.bounding_is_empty()
        none_left = none_left and _refused(lambda: os.chroot("/tmp"))  # noqa: S108 -- the container's own
        self._say("capabilities", "enforced" if none_left else "unavailable")

    def _look_at_privileges(self) -> None:
        on = capabilities.has_no_new_privileges()
        if not on:
            self._forbid_new_privileges()
        else:
            self._say("no_new_privileges", "enforced", self._seen)

    def _filter_twice(self) -> None:
        outer = prctl(_PR_GET_SECCOMP) == 2
        self._filter_system_calls()
        holds = _refused(lambda: call("unshare", CLONE_FLAGS["user"]))
        under = f"under that of {self._by}" if outer else f"{self._by} put on none of its own"
        detail = f"profile {self._plan.system_calls.profile}, {under}"
        self._replace("system_call_filter", "enforced" if holds else "unavailable", detail)


def _refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


def _can_write(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CLOEXEC))
    except OSError:
        return False
    # A covered file is /dev/null, which anybody may write to no effect.
    return os.stat(path).st_rdev != os.stat("/dev/null").st_rdev


def _holds_something(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(file.read(1))
    except OSError:
        return False
