"""Putting a plan's walls around the calling process, step by step. Standard library, ctypes and msgspec alone.

Called in a freshly forked child of one thread that is already the first process of its own pid namespace. Each step
adds to the report what it saw, not what it hoped for; a step that fails says its name and ends the start.

The order matters. Namespaces come first, while there is the right to make them; the tree is built while the host's
files can still be seen; the change of uid comes after the tree, because mounting takes privilege, and before the user
namespace, so that the namespace belongs to the unprivileged uid; capabilities go when nothing needs them any more; the
system call filter is last, because it forbids most of what came before it.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import struct
from typing import TYPE_CHECKING, Final

from cardcage.sandbox import capabilities, landlock, recording, seccomp
from cardcage.sandbox.listen import open_listeners
from cardcage.sandbox.mounts import TreeBuilder, detach_from_host
from cardcage.sandbox.syscalls import call, prctl

if TYPE_CHECKING:
    from collections.abc import Callable

    from cardcage.sandbox.plan import Identity, SandboxPlan

CLONE_FLAGS: Final = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
    "time": 0x00000080,
}

_PROC_NAMES: Final = {"mount": "mnt", "network": "net", "time": "time_for_children"}
"""How /proc/self/ns calls a namespace where its name differs from ours."""


def namespace_number(name: str) -> int:
    """The number of the calling process's namespace of that kind, or 0 where the kernel has no such kind."""
    try:
        return os.stat(f"/proc/self/ns/{_PROC_NAMES.get(name, name)}").st_ino
    except OSError:
        return 0


_PR_SET_PDEATHSIG: Final = 1
_PR_SET_DUMPABLE: Final = 4
_PR_GET_SECCOMP: Final = 21
_SIGKILL: Final = 9
_SIOCSIFFLAGS: Final = 0x8914
_IFF_UP_RUNNING: Final = 0x1 | 0x40

LayerRow = tuple[str, str, str]
"""Name, status and detail, as a child tells them to the host."""


class SetupError(Exception):
    """A step of the walls failed: which one, the error's number and what it was about."""

    def __init__(self, step: str, number: int, detail: str) -> None:
        super().__init__(f"{step}: {detail}")
        self.step = step
        self.number = number
        self.detail = detail


class Surroundings:
    """What the forking process knows and its children need: its namespaces, a way to /proc, the kernel's Landlock."""

    def __init__(self, *, as_root: bool) -> None:
        self.as_root = as_root
        # Stays usable after the host's tree is gone: a process's id maps are written through it.
        self.proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.namespaces = {name: self.namespace(name) for name in CLONE_FLAGS}
        self.landlock_abi = landlock.abi()
        self.entered: frozenset[str] = frozenset()
        """The kinds of namespace that a child is forked into, ready for use: each a new one that is its alone."""
        self.environment_is_empty = False
        """Whether the forking process was started with an empty environment, which all its children show in /proc."""

    def namespace(self, name: str) -> int:
        """The number of the calling process's namespace, or 0 where the kernel has no such kind."""
        try:
            return os.stat(f"self/ns/{_PROC_NAMES.get(name, name)}", dir_fd=self.proc).st_ino
        except OSError:
            return 0


class Walls:
    """One process's walls going up. `layers` is the report so far."""

    def __init__(self, plan: SandboxPlan, surroundings: Surroundings, *, layers: list[LayerRow]) -> None:
        self._plan = plan
        self._around = surroundings
        self.layers = layers
        self.listeners: list[tuple[int, socket.socket]] = []
        """Open inside, with their places in the plan: for the host, and to be closed before any code of the plugin."""
        self.recorder = -1
        """Where what the plugin tries can be heard, for the host, where the plan asks for that."""

    def steps(self) -> tuple[tuple[str, Callable[[], None]], ...]:
        """What is done, in order."""
        return (
            ("namespaces", self._enter_namespaces),
            ("file tree", self._build_tree),
            ("loopback", self._raise_loopback),
            # Here, because low ports and addresses of the interface take rights that go with the next steps.
            ("egress", self._open_listeners),
            ("host name", self._set_hostname),
            ("time namespace", self._enter_time_namespace),
            ("identity", self._change_identity),
            ("user namespace", self._enter_user_namespace),
            # Limits after the namespace: it takes over the number of processes that was allowed when it was made as a
            # bound for all namespaces of this uid together.
            ("resource limits", self._limit_resources),
            ("capabilities", self._drop_capabilities),
            ("no new privileges", self._forbid_new_privileges),
            ("Landlock", self._apply_landlock),
            ("recording", self._record),
            ("system call filter", self._filter_system_calls),
            ("working folder", lambda: os.chdir(self._plan.working_dir)),
            ("floor", self._check_floor),
        )

    def put_up(self) -> None:
        """All steps in order. Raises `SetupError`, also where a layer of the plan's floor does not hold."""
        for step, act in self.steps():
            try:
                act()
            except OSError as error:
                what = f" ({error.filename})" if isinstance(error.filename, str) else ""
                raise SetupError(step, error.errno or 0, f"{error.strerror}{what}") from error

    def _say(self, name: str, status: str, detail: str = "") -> None:
        self.layers.append((name, status, detail))

    def _enter_namespaces(self) -> None:
        wanted = [name for name in ("mount", "network", "ipc", "uts", "cgroup") if name in self._plan.namespaces]
        call("unshare", sum(CLONE_FLAGS[name] for name in wanted if name not in self._around.entered))
        for name in ("pid", *wanted):
            self._say_namespace(name)

    def _say_namespace(self, name: str) -> None:
        number = self._around.namespace(name)
        if not number:
            self._say(f"{name}_namespace", "unavailable", "the kernel has none")
        elif number == self._around.namespaces[name]:
            self._say(f"{name}_namespace", "unavailable", "still in the host's")
        else:
            self._say(f"{name}_namespace", "enforced")

    def _build_tree(self) -> None:
        detach_from_host()
        builder = TreeBuilder(self._plan, uid=self._plan.identity.outside_uid)
        builder.build()
        builder.enter()
        self._say("read_only_root", "enforced", "; ".join(builder.notes))
        self._say("private_proc", "enforced" if builder.proc_detail else "unavailable", builder.proc_detail)

    def _raise_loopback(self) -> None:
        if "network" not in self._around.entered:
            raise_loopback()

    def _open_listeners(self) -> None:
        wanted = self._plan.network.all_listeners
        if not wanted:
            self._say("egress", "off", "no address is granted, and none can be reached")
            return
        self.listeners, failed = open_listeners(wanted)
        detail = "; ".join((f"{len(self.listeners)} of {len(wanted)} listeners", *(why for _, why in failed)))
        self._say("egress", "best-effort" if failed else "enforced", detail)

    def _set_hostname(self) -> None:
        name = self._plan.hostname.encode()
        call("sethostname", name, len(name))

    def _enter_time_namespace(self) -> None:
        if "time" not in self._plan.namespaces:
            return
        try:
            call("unshare", CLONE_FLAGS["time"])
        except OSError as error:
            self._say("time_namespace", "unavailable", error.strerror or "")
        else:
            self._say_namespace("time")

    def _limit_resources(self) -> None:
        for name, value in self._plan.rlimits.items():
            kind = getattr(resource, f"RLIMIT_{name}")
            _, ceiling = resource.getrlimit(kind)
            hard = value + 1 if name == "CPU" else value  # SIGXCPU at the first, which says why, and SIGKILL after it
            if ceiling != resource.RLIM_INFINITY:
                hard = min(hard, ceiling)
            resource.setrlimit(kind, (min(value, hard), hard))
        self._say("resource_limits", "enforced", ", ".join(f"{n} {v}" for n, v in self._plan.rlimits.items()))

    def _change_identity(self) -> None:
        uid, gid = self._plan.identity.outside_uid, self._plan.identity.outside_gid
        if uid is None or gid is None:
            if self._around.as_root or os.getuid() == 0:
                self._say("own_uid", "unavailable", "the process is still root to the kernel")
            else:
                self._say("own_uid", "best-effort", f"runs as the host's own user, uid {os.getuid()}")
            return
        drop_to(self._plan.identity)
        kept = os.getresuid() == (uid, uid, uid) and not os.getgroups()
        self._say("own_uid", "enforced" if kept and uid else "unavailable", f"uid {uid}")

    def _enter_user_namespace(self) -> None:
        uid, gid = os.getuid(), os.getgid()
        # A change of uid makes the process's own files in /proc root's, and the maps could not be written.
        prctl(_PR_SET_DUMPABLE, 1)
        call("unshare", CLONE_FLAGS["user"])
        identity = self._plan.identity
        self._write_map("setgroups", "deny")
        self._write_map("uid_map", f"{identity.inside_uid} {uid} 1")
        self._write_map("gid_map", f"{identity.inside_gid} {gid} 1")
        self._say_namespace("user")

    def _write_map(self, name: str, text: str) -> None:
        file = os.open(f"self/{name}", os.O_WRONLY | os.O_CLOEXEC, dir_fd=self._around.proc)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)

    def _drop_capabilities(self) -> None:
        capabilities.drop_all()
        none_left = capabilities.effective() == 0 and capabilities.bounding_is_empty()
        self._say("capabilities", "enforced" if none_left else "unavailable")

    def _forbid_new_privileges(self) -> None:
        capabilities.no_new_privileges()
        self._say("no_new_privileges", "enforced" if capabilities.has_no_new_privileges() else "unavailable")

    def _apply_landlock(self) -> None:
        abi = self._around.landlock_abi
        if not abi:
            for part in ("files", "network", "scopes"):
                self._say(f"landlock_{part}", "unavailable", "the kernel has no Landlock, or it is off")
            return
        landlock.restrict(self._plan.landlock, abi)
        self._say("landlock_files", "enforced", f"ABI {abi}")
        for part, since in (("network", landlock.NETWORK_ABI), ("scopes", landlock.SCOPES_ABI)):
            old = f"needs ABI {since}, the kernel has {abi}"
            self._say(f"landlock_{part}", "enforced" if abi >= since else "unavailable", "" if abi >= since else old)

    def _record(self) -> None:
        if self._plan.recording:
            self.recorder = recording.install()

    def _filter_system_calls(self) -> None:
        wanted = self._plan.system_calls
        seccomp.install(seccomp.assemble(execute=wanted.execute, name=wanted.profile))
        on = prctl(_PR_GET_SECCOMP) == 2
        profile = f"profile {wanted.profile}"
        self._say("system_call_filter", "enforced" if on else "unavailable", profile)

    def _check_floor(self) -> None:
        holding = {name for name, status, _ in self.layers if status == "enforced"}
        below = [name for name in self._plan.floor if name not in holding]
        if below:
            raise SetupError("floor", 0, f"not enforced: {', '.join(below)}")


INHERITED_NAMESPACES: Final = frozenset({"network"})
"""What a fork server enters for its next child, having no use for it itself: a network takes most of a millisecond to
make, and the other kinds next to nothing."""


def enter_for_next_child() -> None:
    """Leave those namespaces for new ones, with the loopback interface up, for one child to be forked into."""
    call("unshare", sum(CLONE_FLAGS[name] for name in INHERITED_NAMESPACES))
    raise_loopback()


def raise_loopback() -> None:
    """Make the loopback interface of the calling process's network namespace usable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP_RUNNING))


def drop_to(identity: Identity) -> None:
    """Become the kernel's unprivileged user of `identity` for good, where it names one."""
    if identity.outside_uid is None or identity.outside_gid is None:
        return
    os.setgroups([])
    os.setresgid(identity.outside_gid, identity.outside_gid, identity.outside_gid)
    os.setresuid(identity.outside_uid, identity.outside_uid, identity.outside_uid)


def close_from(first: int) -> None:
    """Close every descriptor from `first` on."""
    call("close_range", first, 0xFFFFFFFF, 0)


def die_with_parent() -> None:
    """Be killed when the parent ends. To be called again after a change of uid, which clears it."""
    prctl(_PR_SET_PDEATHSIG, _SIGKILL)


def hide_from_own_uid() -> None:
    """Keep processes of the same uid from looking into this one and those that it forks."""
    prctl(_PR_SET_DUMPABLE, 0)


def show_to_own_uid() -> None:
    """Take that back, for this process alone: its own files in /proc are its own again."""
    prctl(_PR_SET_DUMPABLE, 1)
