"""Takes single walls away, to show that the suite can fail. Nothing of it can be reached from the product.

Layers inside a process are switched off by a fork server of the suite's own (`weak_zygote.py`), which is the product's
with single steps replaced; what a plan decides, by changing the plan on its way to the runner; what the host itself
checks, by replacing the check for as long as the arena is open. The instance's own enforcement report then shows the
layer as off, because the step that would have said otherwise was not run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import msgspec

from cardcage.channel import Channel, ChannelLimits
from cardcage.launch import fork_server, zygote, zygote_main
from cardcage.launch.runner import LaunchSpec, Process
from cardcage.manager import manager
from cardcage.runtime import live
from cardcage.sandbox.plan import Identity, Mount, SandboxPlan
from cardcage.sandbox.report import Mode
from cardcage_sdk.wire import WireLimits

if TYPE_CHECKING:
    from .planted import Planted

GROUPS: Final[dict[str, frozenset[str]]] = {
    "files": frozenset({"mount_namespace", "landlock_files"}),
    "network": frozenset({"network_namespace", "landlock_network", "landlock_scopes"}),
    "processes": frozenset({"pid_namespace", "private_proc", "landlock_scopes"}),
    "seccomp": frozenset({"system_call_filter"}),
    "limits": frozenset({"resource_limits", "cgroup_limits"}),
    "uid": frozenset({"own_uid"}),
    "capabilities": frozenset({"capabilities"}),
    "privileges": frozenset({"no_new_privileges", "system_call_filter", "landlock_files"}),
    "environment": frozenset({"environment", "private_proc"}),
    "descriptors": frozenset({"descriptors"}),
    "wire": frozenset({"wire limits"}),
    "names": frozenset({"uts_namespace"}),
}
"""What `--without` takes: a wall with the second wall behind it. Single layers may be named as well."""

_LANDLOCK: Final = frozenset({"landlock_files", "landlock_network", "landlock_scopes"})
_WEAK_SERVER: Final = Path(__file__).with_name("weak_zygote.py")


def layers_of(names: list[str]) -> frozenset[str]:
    """The layers that groups and single names stand for."""
    wanted = frozenset[str]().union(*(GROUPS.get(name, frozenset({name})) for name in names))
    # Landlock is one set of rules for all three: where one is off, they all are.
    return wanted | _LANDLOCK if wanted & _LANDLOCK else wanted


@dataclasses.dataclass(frozen=True, slots=True)
class Weakening:
    """The layers that are off. Empty: everything is as the product has it, and nothing is replaced."""

    without: frozenset[str]

    @contextlib.contextmanager
    def applied(self, planted: Planted, folder: Path) -> Generator[None]:
        """Everything replaced that has to be, until the end of the block."""
        if not self.without:
            yield
            return
        with contextlib.ExitStack() as stack:
            script = folder / "weak_zygote.py"
            script.write_text(
                _WEAK_SERVER.read_text()
                .replace("frozenset()", f"frozenset({sorted(self.without)!r})", 1)
                .replace("@CARDCAGE@", str(Path(zygote.__file__).parent.parent))
            )
            stand_in = SimpleNamespace(**{**vars(zygote_main), "__file__": str(script)})
            stack.enter_context(mock.patch.object(fork_server, "zygote_main", stand_in))
            stack.enter_context(mock.patch.object(fork_server, "subprocess", self._processes()))
            stack.enter_context(mock.patch.object(zygote.ZygoteRunner, "start", self._weak_start(planted)))
            if "wire limits" in self.without:
                stack.enter_context(mock.patch.object(live, "Channel", _Limitless))
            yield

    def _processes(self) -> SimpleNamespace:
        """`subprocess`, as a careless host would use it."""

        def start(*args: Any, **options: Any) -> Any:
            if "environment" in self.without:
                options["env"] = dict(os.environ)
            if "descriptors" in self.without:
                options["close_fds"] = False
                options["pass_fds"] = ()
                for descriptor in [int(argument) for argument in args[0] if argument.isdigit()][-1:]:
                    os.set_inheritable(descriptor, True)
            return subprocess.Popen(*args, **options)

        return SimpleNamespace(**{**vars(subprocess), "Popen": start})

    def _weak_start(self, planted: Planted) -> Callable[..., Any]:
        start = zygote.ZygoteRunner.start

        async def weak_start(runner: zygote.ZygoteRunner, spec: LaunchSpec) -> Process:
            if "cgroup_limits" in self.without:
                runner._groups = None  # pyright: ignore[reportPrivateUsage]
            return await start(runner, dataclasses.replace(spec, plan=self.weaken(spec.plan, planted)))

        return weak_start

    def weaken(self, plan: SandboxPlan, planted: Planted) -> SandboxPlan:
        """The plan of a host that forgot a wall."""
        changes: dict[str, Any] = {"floor": tuple(name for name in plan.floor if name not in self.without)}
        if "mount_namespace" in self.without:
            changes["mounts"] = (*plan.mounts, *_whole_host(plan, planted))
        if "own_uid" in self.without:
            changes["identity"] = Identity(outside_uid=0, outside_gid=0)
        return msgspec.structs.replace(plan, **changes)


def _whole_host(plan: SandboxPlan, planted: Planted) -> Iterator[Mount]:
    """The host's own folders at their places, and every file of a plan's tmpfs as large as it likes."""
    taken = {mount.target for mount in plan.mounts}
    for path in ("/home", "/root", "/run", "/var", "/sys", "/etc/shadow"):
        if path not in taken and os.path.exists(path):
            yield Mount(kind="bind", source=path, target=path, optional=True)
    folder = str(Path(planted.home).parent)
    yield Mount(kind="bind", source=folder, target=folder, writable=True)


class _Limitless:
    """A channel for which no frame is too long."""

    @staticmethod
    async def open(*args: Any, **options: Any) -> Channel:
        return await Channel.open(*args, **options, wire=WireLimits(frame_bytes=1 << 32, depth=1 << 20))


@contextlib.contextmanager
def without_namespaces() -> Generator[None]:
    """This machine, taken for one that forbids namespaces: plugins get the wall that is put up there."""
    with contextlib.ExitStack() as stack:
        for module in (manager, zygote):
            stack.enter_context(mock.patch.object(module, "detect_mode", return_value=Mode.FALLBACK))
        yield


@contextlib.contextmanager
def hurried() -> Generator[None]:
    """Plugins that are started in this block get deadlines of a second where the product waits 10 and 60."""
    impatient = ChannelLimits(frame_s=1.0, stall_s=1.0)
    channel: Any = vars(live)["Channel"]  # the one that is in use now

    class Hurried:
        @staticmethod
        async def open(*args: Any, **options: Any) -> Channel:
            return await channel.open(*args, **options, limits=impatient)

    with mock.patch.object(live, "Channel", Hurried):
        yield
