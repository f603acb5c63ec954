"""Where hostile plugins are let loose: one manager with walls, one without as the control, and a neighbour to watch."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import yaml

from cardcage import CardcageError, PluginManager
from cardcage.audit import AuditEvent
from cardcage.runtime import RuntimePolicy
from cardcage.sandbox.report import EnforcementReport, LayerName, LayerStatus
from cardcage.supervise import PluginState, RestartPolicy

from .behaviour import Attempt, Behaviour, Control, NotStopped, Row, Stop
from .planted import Planted, plant
from .weaken import Weakening, without_namespaces

PLUGINS: Final = Path(__file__).parent.parent / "plugins"
NEIGHBOUR: Final = "honest"
NEIGHBOUR_TIMEOUT_S: Final = 20.0
IN_FALLBACK: Final = dict.fromkeys(("EACCES", "ENOENT", "EXDEV"), "landlock_files")
"""What stands in for an empty tree where there is no mount namespace: the host's own, shut."""

STAND_INS: Final = {
    "mount_namespace": "landlock_files",
    "read_only_root": "landlock_files",
    "private_proc": "landlock_files",
    "network_namespace": "supervised_calls",
    "pid_namespace": "supervised_calls",
}
"""What does the work of a namespace where there are none."""

AUDIT_S: Final = 10.0
ENDING_S: Final = 2.0

_ERRNO: Final = re.compile(r"\[Errno (\d+)\]")


class Arena:
    """Runs behaviours, one after another. An asynchronous context manager."""

    def __init__(self, *, isolation: str = "process", without: frozenset[str] = frozenset()) -> None:
        """`isolation` may be `fallback`: process isolation on a machine that forbids namespaces, which this one is then
        taken for. `without` names layers that are switched off on purpose, see `weaken`.
        """
        self.fallback = isolation == "fallback"
        self.isolation = "process" if self.fallback else isolation
        self.weakening = Weakening(without)
        self.planted: Planted
        self.walled: PluginManager
        self.bare: PluginManager
        self.folder: Path
        self.has_compiler = shutil.which("cc") is not None
        self._stack = contextlib.AsyncExitStack()
        self._spent: set[tuple[int, str]] = set()
        self.audited: list[AuditEvent] = []
        """What the host recorded, the newest last."""

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    def record(self, event: AuditEvent) -> None:
        """Take an audit event: the arena is where its managers record to."""
        self.audited.append(event)

    @property
    def as_root(self) -> bool:
        """Whether the host is root, so that what only root is refused can be shown."""
        return os.geteuid() == 0

    @property
    def report(self) -> EnforcementReport:
        """The walls that really stand around the neighbour, which has the same as the others."""
        report = self.walled.report(NEIGHBOUR)
        assert report is not None
        return report

    async def _open(self) -> None:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cardcage-hostile-")))
        self.folder.chmod(0o711)
        shutil.copytree(PLUGINS, self.folder / "plugins", ignore=shutil.ignore_patterns("__pycache__"))
        self._compile()
        self._without_limits()
        self.planted = self._stack.enter_context(plant(self.folder))
        self._stack.enter_context(self.weakening.applied(self.planted, self.folder))
        if self.fallback:
            self._stack.enter_context(without_namespaces())
        self.walled = await self._stack.enter_async_context(self.manager("walled", isolation=self.isolation))
        bare = self.manager("bare", isolation="unconfined", plugin_paths=[self.folder / "limitless"])
        self.bare = await self._stack.enter_async_context(bare)
        await self.walled.start_plugin(NEIGHBOUR)
        await self.walled.call(NEIGHBOUR, "keep", self.planted.secret)
        kept = self.data_dir(NEIGHBOUR) / "secret.txt"
        if not kept.exists():
            kept.write_text(self.planted.secret)  # a machine keeps its data in a disk of its own: the control needs it

    def manager(self, name: str, *, isolation: str | None = None, **more: Any) -> PluginManager:
        """A manager over the arena's plugins with a state folder of its own."""
        # A hostile plugin is not to be revived behind our back: each attempt finds a fresh one.
        deadlines = RuntimePolicy(restart=RestartPolicy(intensity=0), hang_grace_s=0.5, stop_timeout_s=1.0)
        return PluginManager(
            plugin_paths=more.pop("plugin_paths", [self.folder / "plugins"]),
            state_dir=self.folder / "state" / name,
            isolation=isolation or self.isolation,
            auto_start=False,
            deadlines=deadlines,
            audit=self,
            policy="permissive" if self.fallback else None,
            **more,
        )

    def package(self, name: str, code: str = "class Main:\n    pass\n", **manifest: Any) -> Path:
        """A package apart from the arena's own, in a folder of its own."""
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / name
        folder.mkdir()
        folder.parent.chmod(0o711)  # without namespaces an instance's uid has to get to its package by itself
        document = {"name": name, "version": "1.0.0", "entrypoint": "main:Main", **manifest}
        (folder / "plugin.yaml").write_text(yaml.safe_dump(document))
        (folder / "main.py").write_text(code)
        return folder

    def _compile(self) -> None:
        if self.has_compiler:
            source = self.folder / "plugins" / "intruder" / "native.c"
            library = source.with_suffix(".so")
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True, timeout=120)

    def _without_limits(self) -> None:
        """The same plugins for the control, which asks for no limits: those hold without walls as well."""
        shutil.copytree(self.folder / "plugins", self.folder / "limitless")
        for manifest in (self.folder / "limitless").glob("*/plugin.yaml"):
            document = yaml.safe_load(manifest.read_text())
            document.pop("limits", None)
            manifest.write_text(yaml.safe_dump(document))

    # running ------------------------------------------------------------------------------------------------------

    async def run(self, behaviour: Behaviour) -> Row:
        """Let one behaviour loose, and see what stops it, whether that could have failed, and who suffered."""
        begun_s = time.monotonic()
        first = len(self.audited)
        stops: list[Stop] = []
        faults: list[str] = []
        controls: list[str] = []
        left_out: list[str] = []
        try:
            for attempt in behaviour.attempts:
                if why := self._why_not(attempt):
                    left_out.append(f"{attempt.method}: {why}")
                    continue
                stops.append(await self._attempt(attempt))
                controls.append(await self._control(attempt, stops[-1]))
            if behaviour.scenario is not None:
                stops += map(self._here, await behaviour.scenario(self))
        except NotStopped as failure:
            faults.append(str(failure))
        except CardcageError as error:
            faults.append(f"something else went wrong: {error.code}: {error.message}")
        except TimeoutError:
            faults.append("nothing came of it in the time allowed")
        except OSError as error:
            faults.append(f"the suite itself was refused: {error}")
        if suffering := await self._suffering(behaviour.number):
            faults.append(suffering)
        layers = tuple(dict.fromkeys(stop.layer for stop in stops))
        audit = ""
        if behaviour.audit and stops and (not behaviour.audit_where or behaviour.audit_where in layers):
            audit = await self._audit(behaviour, first)
            if not audit:
                found = ", ".join(sorted({each.action.value for each in self.audited[first:]})) or "nothing"
                faults.append(f"no audit line: expected {', '.join(behaviour.audit)}, found {found}")
        return Row(
            number=behaviour.number,
            behaviour=behaviour.title,
            stopped=not faults and bool(stops),
            layer=", ".join(layers),
            enforced=not faults and all(map(self._holds, stops)),
            seconds=time.monotonic() - begun_s,
            seen=", ".join(dict.fromkeys(stop.seen for stop in stops)),
            fault="; ".join(faults),
            controls=tuple(controls),
            audit=audit,
            not_tried=tuple(left_out),
        )

    def _why_not(self, attempt: Attempt) -> str | None:
        if attempt.native and not self.has_compiler:
            return "no C compiler"
        if attempt.needs is not None and self.report.status(attempt.needs) is not LayerStatus.ENFORCED:
            return f"{attempt.needs} is {self.report.status(attempt.needs)} here"
        return None

    async def _attempt(self, attempt: Attempt) -> Stop:
        label, detail = await self.attempt(self.walled, attempt)
        stopped_by = {**IN_FALLBACK, **attempt.stopped_by} if self.fallback else attempt.stopped_by
        if (layer := stopped_by.get(label)) is None:
            expected = ", ".join(attempt.stopped_by)
            raise NotStopped(f"{attempt.plugin}.{attempt.method}: {label} ({detail}), expected {expected}")
        return self._here(Stop(seen=label, layer=layer))

    def _here(self, stop: Stop) -> Stop:
        """The same with the layer that does its work where there are no namespaces."""
        return replace(stop, layer=STAND_INS.get(stop.layer, stop.layer)) if self.fallback else stop

    async def _control(self, attempt: Attempt, stop: Stop) -> str:
        """The same without walls. Raises `NotStopped` where it ends alike: then the refusal shows nothing."""
        control = attempt.control
        as_root_only = control in (Control.SUCCEEDS_AS_ROOT, Control.DIFFERS_AS_ROOT)
        if control is Control.NONE or (as_root_only and not self.as_root):
            return "not tried"
        label, detail = await self.attempt(self.bare, attempt)
        succeeds = control in (Control.SUCCEEDS, Control.SUCCEEDS_AS_ROOT)
        if (label != "succeeded") if succeeds else (label == stop.seen):
            raise NotStopped(
                f"{attempt.method}{attempt.arguments} without walls: {label} ({detail}): so its refusal shows nothing"
            )
        return label

    async def attempt(self, manager: PluginManager, attempt: Attempt) -> tuple[str, str]:
        """What came of one attempt: `succeeded`, or the word for what stopped it; and the whole sentence."""
        await self.ensure(manager, attempt.plugin)
        arguments = [self._filled_in(argument, manager, attempt.plugin) for argument in attempt.arguments]
        try:
            got = await manager.call(attempt.plugin, attempt.method, *arguments, timeout_s=attempt.timeout_s)
        except CardcageError as error:
            if error.code != "plugin_error":
                # Its connection may have ended, or be about to.
                self._spent.add((id(manager), attempt.plugin))
            return label_of(error), error.message
        return "succeeded", repr(got)[:200]

    def _filled_in(self, argument: Any, manager: PluginManager, plugin: str) -> Any:
        """What was planted for a name, and the plugin's own folders where they really are."""
        if not isinstance(argument, str):
            return argument
        match argument.partition("$")[::2]:
            case ["", "neighbour_pid"]:
                return self.pid_of(NEIGHBOUR)
            case ["", "neighbour_data"]:
                return f"{self.data_dir(NEIGHBOUR)}/secret.txt"
            case ["", "state"]:
                return str(self.folder / "state" / "walled")
            case ["", str(name)] if name:
                return getattr(self.planted, name)
            case _:
                inside = manager.plan(plugin).inside
                places = {"/plugin": inside.package_dir, "/data": inside.data_dir, "/tmp": inside.temp_dir}
                top = "/".join(argument.split("/")[:2])
                return places.get(top, top) + argument[len(top) :]

    async def ensure(self, manager: PluginManager, plugin: str) -> None:
        """The plugin, up and active, whatever became of it before."""
        if (id(manager), plugin) in self._spent:
            await self._see_its_end(manager, plugin)
        if manager.get_plugin_status(plugin) is not PluginState.ACTIVE or (id(manager), plugin) in self._spent:
            await self.renew(plugin, manager)

    async def _see_its_end(self, manager: PluginManager, plugin: str) -> None:
        """Where its process is ending, wait until the host has seen that: what it does not see it cannot record."""
        until_s = time.monotonic() + ENDING_S
        while manager.get_plugin_status(plugin) is PluginState.ACTIVE and time.monotonic() < until_s:
            await asyncio.sleep(0.01)

    async def renew(self, plugin: str, manager: PluginManager | None = None) -> None:
        """A fresh process for the plugin."""
        manager = manager or self.walled
        await manager.unload_plugin(plugin)
        await manager.start_plugin(plugin)
        self._spent.discard((id(manager), plugin))

    def pid_of(self, plugin: str, manager: PluginManager | None = None) -> int:
        """The plugin's process, as the host numbers it."""
        pid = (manager or self.walled)._live.get(plugin).pid  # pyright: ignore[reportPrivateUsage]
        assert pid is not None
        return pid

    def data_dir(self, plugin: str) -> Path:
        """The plugin's data folder on the host."""
        return self.walled._live.get(plugin).blueprint.spec.data_dir  # pyright: ignore[reportPrivateUsage]

    async def _audit(self, behaviour: Behaviour, first: int) -> str:
        """The audit line that tells of a behaviour; one of a death comes a moment after the call has failed."""
        until_s = time.monotonic() + AUDIT_S
        while behaviour.audit:
            for event in self.audited[first:]:
                if event.action.value in behaviour.audit and event.allowed is not True:
                    return f"{event.action.value}: {event.reason}"
            if time.monotonic() > until_s:
                break
            await asyncio.sleep(0.02)
        return ""

    # watching -----------------------------------------------------------------------------------------------------

    def _holds(self, stop: Stop) -> bool:
        """Whether a layer is enforced around instances; what the host itself checks always is."""
        if stop.enforced is not None:
            return stop.enforced
        return stop.layer not in list(map(str, LayerName)) or self.report.status(stop.layer) is LayerStatus.ENFORCED

    async def _suffering(self, number: int) -> str:
        """What is wrong with the neighbour or with the host, after an attempt: nothing, as it should be."""
        try:
            if await self.walled.call(NEIGHBOUR, "echo", number, timeout_s=NEIGHBOUR_TIMEOUT_S) != number:
                return "the neighbour answers wrongly"
        except CardcageError as error:
            return f"the neighbour suffered: {error.message}"
        done = await asyncio.create_subprocess_exec("/bin/true")
        if await asyncio.wait_for(done.wait(), NEIGHBOUR_TIMEOUT_S):
            return "the host cannot start a program any more"
        if Path(self.planted.marker).exists():
            return "code of a plugin ran in the host: its marker is there"
        return ""


def label_of(error: CardcageError) -> str:
    """One word for how an attempt ended: an errno, an exception, a signal, a reason of the host's, or a code."""
    facts: Mapping[str, Any] = error.fields
    data: Any = facts.get("data")
    if error.code == "plugin_error" and isinstance(data, Mapping):
        if found := _ERRNO.search(str(data.get("message", ""))):  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
            return errno.errorcode.get(int(found[1]), found[1])
        return str(data.get("type", "plugin_error"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
    if error.code == "crashed":
        reason, number = facts.get("exit_reason"), facts.get("signal")
        if reason not in ("crashed", "killed"):
            return str(reason)
        return signal.Signals(number).name if number else f"exit {facts.get('exit_code')}"
    return error.code
