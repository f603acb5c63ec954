"""Putting the wall without namespaces around the calling process. Standard library, ctypes and msgspec alone.

Called in the child that is to become the plugin's process; its parent, the supervisor, has the instance's uid already.
Like `enter.Walls` it reports what it saw. The system call filter comes last and hands back the listener at which the
supervisor decides.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from cardcage.sandbox import capabilities, notify, seccomp
from cardcage.sandbox.enter import CLONE_FLAGS, SetupError, Walls, drop_to
from cardcage.sandbox.syscalls import call

if TYPE_CHECKING:
    from collections.abc import Callable, Container

    from cardcage.sandbox.enter import LayerRow, Surroundings
    from cardcage.sandbox.plan import SandboxPlan

_WITHOUT_OTHERS: Final = {"network": "net", "ipc": "ipc", "uts": "uts"}
"""The namespaces that a supervisor with the right to it makes for its plugin, and how /proc calls them."""

_NOT_HAD: Final = (
    ("user_namespace", "namespaces cannot be made here"),
    ("pid_namespace", "the host's processes can be counted; a supervisor ends all of the instance"),
    ("mount_namespace", "the host's tree is there; Landlock keeps its contents shut"),
    ("network_namespace", "the host's network is there; a supervisor makes each connection"),
    ("ipc_namespace", "System V and POSIX queues are refused by the filter"),
    ("uts_namespace", "the host's name can be read"),
    ("cgroup_namespace", "the control groups are seen by nobody who cannot read /proc"),
    ("time_namespace", "the clock since boot is the host's"),
    ("read_only_root", "Landlock refuses writing outside the plugin's own folders"),
    ("private_proc", "Landlock keeps all of /proc shut"),
)


class Confinement(Walls):
    """The wall without namespaces going up around one process. `listener` is open once it stands."""

    def __init__(
        self, plan: SandboxPlan, surroundings: Surroundings, *, layers: list[LayerRow], entered: Container[str] = ()
    ) -> None:
        super().__init__(plan, surroundings, layers=layers)
        self.listener = -1
        self._entered = entered

    def steps(self) -> tuple[tuple[str, Callable[[], None]], ...]:
        """What is done, in order."""
        return (
            ("namespaces", self._say_what_is_missing),
            ("identity", self._look_at_identity),
            ("reach", self._reach_own_folders),
            ("resource limits", self._limit_resources),
            ("no new privileges", self._forbid_new_privileges),
            ("capabilities", self._drop_capabilities),
            ("Landlock", self._apply_landlock),
            ("working folder", lambda: os.chdir(self._plan.working_dir)),
            ("system call filter", self._supervise_system_calls),
            ("floor", self._check_floor),
        )

    def _say_what_is_missing(self) -> None:
        for name, why in _NOT_HAD:
            if name.removesuffix("_namespace") in self._entered:
                self._say(name, "enforced")
            else:
                self._say(name, "unavailable", why)

    def _look_at_identity(self) -> None:
        """The supervisor has changed it already, for both: here it is looked at."""
        uid = self._plan.identity.outside_uid
        if uid is None:
            own = os.getuid()
            self._say("own_uid", "best-effort" if own else "unavailable", f"runs as the host's own user, uid {own}")
            return
        kept = os.getresuid() == (uid, uid, uid) and not os.getgroups()
        self._say("own_uid", "enforced" if kept and uid else "unavailable", f"uid {uid}")

    def _reach_own_folders(self) -> None:
        """Whoever stands outside the owner's folders cannot get in by a path, and here there is no other way."""
        inside = self._plan.inside
        for path in (*self._plan.python_path[:1], *self._plan.packages, inside.package_dir, inside.data_dir):
            try:
                os.stat(path)
            except PermissionError as error:
                uid = os.getuid()
                raise SetupError(
                    "reach",
                    error.errno or 0,
                    f"uid {uid} cannot get to {path}, and without namespaces no other path can be given to it: let "
                    "others pass through the folders above it (chmod o+x), or move it",
                ) from error

    def _drop_capabilities(self) -> None:
        capabilities.clear()
        shut = "" if capabilities.bounding_is_empty() else "no program can give any, for no_new_privileges is set"
        none_left = capabilities.effective() == 0 and capabilities.has_no_new_privileges()
        self._say("capabilities", "enforced" if none_left else "unavailable", shut)

    def _supervise_system_calls(self) -> None:
        wanted = self._plan.system_calls
        program = seccomp.assemble(execute=wanted.execute, name=wanted.profile, signals=wanted.signals)
        self.listener = notify.install(program)
        self._say("system_call_filter", "enforced", f"profile {wanted.profile}")
        if self.listener < 0:
            self._say("supervised_calls", "unavailable", "the kernel gave no listener")
        else:
            self._say("supervised_calls", "enforced", "connections and new processes are decided one by one")
        endpoints = len(self._plan.network.endpoints)
        self._say("egress", "enforced" if endpoints else "off", f"{endpoints} granted endpoints" if endpoints else "")


def become_supervisor(plan: SandboxPlan) -> frozenset[str]:
    """Take on the instance's uid and give up all rights, for the process that decides and for the plugin that it forks.

    It stays outside Landlock and the filter: it reads the plugin's memory and the list of its processes, and runs no
    code of it. Its session is its own, so that no signal to a group and no `setpgid` leads to another instance. Returns
    the kinds of namespace that it is in and the host is not.
    """
    call("setsid")
    entered = frozenset(name for name in plan.namespaces if _enter(name))
    if "uts" in entered:
        hostname = plan.hostname.encode()
        call("sethostname", hostname, len(hostname))
    capabilities.no_new_privileges()
    if capabilities.effective() >> capabilities.CAP_SETPCAP & 1:
        capabilities.drop_bounding()
    drop_to(plan.identity)
    capabilities.clear()
    return entered


def _enter(name: str) -> bool:
    """Whether the process is in a new namespace of that kind now."""
    place = f"/proc/self/ns/{_WITHOUT_OTHERS[name]}"
    try:
        before = os.stat(place).st_ino
        call("unshare", CLONE_FLAGS[name])
        return os.stat(place).st_ino != before
    except OSError:
        return False


def namespaces_at_hand() -> tuple[str, ...]:
    """Those that can be made without a user namespace. To be called in a child, which is in them afterwards."""
    return tuple(name for name in _WITHOUT_OTHERS if _enter(name))
