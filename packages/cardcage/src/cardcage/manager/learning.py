"""Learning from a plugin's tests which permissions it needs: each run in a host of its own that is gone afterwards."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from cardcage.audit import Action, MemoryAuditor
from cardcage.broker.services import OBSERVE_PLUGINS
from cardcage.contracts.pack import Pack
from cardcage.foundation.errors import CardcageError, Misuse
from cardcage.launch.recorder import Tried
from cardcage.launch.recording import RecordingRunner
from cardcage.manager.learned import Bounds, FileKind, Learned, Outcome, learn
from cardcage.manager.manager import PluginManager
from cardcage.manager.planning import PROCESS
from cardcage.manifest import Manifest, Runtime
from cardcage.manifest.rewrite import with_entry_point, with_permissions
from cardcage.permissions import Permission
from cardcage.policy import Level, Policy
from cardcage.runtime import RuntimePolicy
from cardcage.sandbox.python_layout import find_python_layout
from cardcage.trust import VerifiedRelease, verify

TESTS_MODULE: Final = "cardcage_own_tests"
_TESTS_METHOD: Final = "run_own_tests"
_TESTS_CODE: Final = '''\
"""Runs a plugin's own tests as a plugin, behind the plugin's walls."""

import io
import os
import unittest

from cardcage_sdk import Plugin


class OwnTests(Plugin):
    def run_own_tests(self):
        package = os.path.dirname(os.path.abspath(__file__))
        folder = os.path.join(package, "tests")
        start = folder if os.path.isdir(folder) else package
        suite = unittest.defaultTestLoader.discover(start, pattern="test_*.py", top_level_dir=start)
        result = unittest.TextTestRunner(stream=io.StringIO(), verbosity=0).run(suite)
        problems = [f"{test}: {trace.strip().splitlines()[-1]}" for test, trace in [*result.errors, *result.failures]]
        return {"ran": result.testsRun, "problems": problems[:20]}
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Exercise:
    """One call of a plugin's method. It passes where it returns, and where `expected` is given, returns that."""

    method: str
    args: tuple[Any, ...] = ()
    expected: Any = None
    has_expected: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What to learn from: a package, the calls to make (none: its own tests), its config, and the host around it."""

    package_dir: Path
    exercises: tuple[Exercise, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    hosts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names that lead to an address of the operator's choice, such as that of a stand-in on this machine."""
    secrets: tuple[str, ...] = ()
    """Secrets that may be handed to it, each the value of the environment variable of that name."""
    timeout_s: float | None = None
    """The longest that one step of the plugin may take; None leaves the usual deadlines."""
    packs: Sequence[Pack] | None = None
    prepare: Callable[[PluginManager], None] | None = None
    """Called with each manager before it is opened: to register services."""


async def learn_permissions(lesson: Lesson, bounds: Bounds) -> Learned:
    """The fewest permissions with which the lesson passes. The package itself is not changed.

    Raises what `verify` raises for a package that is none, and `Misuse` where it has no tests to learn from.
    """
    release = await asyncio.to_thread(verify, lesson.package_dir)
    _check_tests(release, lesson)
    with tempfile.TemporaryDirectory(prefix="cardcage-learning-") as folder:
        trial = _Trial(release, lesson, Path(folder))
        visible = await trial.visible()
        return await learn(trial, HostTree(), bounds, visible=visible)


def _check_tests(release: VerifiedRelease, lesson: Lesson) -> None:
    if lesson.exercises:
        return
    folder = release.package_dir
    found = [*folder.glob("test_*.py"), *(folder / "tests").glob("test_*.py")]
    if release.manifest.runtime is not Runtime.PYTHON or not found:
        raise Misuse(
            f'plugin "{release.manifest.name}" has no tests of its own (test_*.py beside its code or under tests/)',
            code="nothing_to_learn_from",
            hint="say what to run: --run 'METHOD ARG', or --fixture FILE",
        )


class _TestsRun(msgspec.Struct):
    """What the plugin's process says of its tests."""

    ran: int
    problems: list[str]


def _tests_run(answer: Any) -> _TestsRun:
    """The answer as it should be: a plugin's code runs beside the tests, and can say anything."""
    try:
        return msgspec.convert(answer, _TestsRun)
    except msgspec.ValidationError as error:
        return _TestsRun(ran=1, problems=[f"the tests told nothing that makes sense: {error}"])


def _capabilities(manager: PluginManager, auditor: MemoryAuditor) -> tuple[str, ...]:
    """The capabilities behind the services that were called, granted or not, and behind events that were withheld."""
    calls = [*auditor.of(Action.CAPABILITY_REFUSED), *auditor.of(Action.CAPABILITY_CALLED)]
    found = [manager.capability_of(str(event.fields.get("service"))) for event in calls]
    if any("pattern" in event.fields for event in auditor.of(Action.EVENT_REFUSED)):
        found.append(OBSERVE_PLUGINS)
    return tuple(dict.fromkeys(name for name in found if name is not None))


def _deadlines(timeout_s: float | None) -> RuntimePolicy:
    if timeout_s is None:
        return RuntimePolicy()
    return RuntimePolicy(call_timeout_s=timeout_s, start_timeout_s=timeout_s)


class HostTree:
    """The files of this host, each as it was when it was first looked at: tests make files, too."""

    def __init__(self) -> None:
        self._kinds: dict[str, FileKind] = {}

    def kind(self, path: str) -> FileKind:
        return self._kinds.setdefault(path, self._kind_now(path))

    def _kind_now(self, path: str) -> FileKind:
        try:
            mode = os.stat(path).st_mode
        except (OSError, ValueError):
            return ""
        return "folder" if stat.S_ISDIR(mode) else "file" if stat.S_ISREG(mode) else ""

    def is_open_to_all(self, path: str) -> bool:
        """Whether it, and every folder on the way to it, is for others to read."""
        try:
            if not os.stat(path).st_mode & stat.S_IROTH:
                return False
            return all(os.stat(folder).st_mode & stat.S_IXOTH for folder in Path(os.path.realpath(path)).parents)
        except (OSError, ValueError):
            return False

    def is_itself(self, path: str) -> bool:
        return os.path.realpath(path) == path

    def is_program(self, path: str) -> bool:
        return self.kind(path) == "file" and os.access(path, os.X_OK)


class _Trial:
    """Runs one lesson again and again, each time in a state folder of its own."""

    def __init__(self, release: VerifiedRelease, lesson: Lesson, folder: Path) -> None:
        self._release = release
        self._lesson = lesson
        self._folder = folder
        self._runs = 0

    @property
    def _manifest(self) -> Manifest:
        return self._release.manifest

    async def visible(self) -> tuple[str, ...]:
        """The places that the plugin sees without any permission."""
        manager = self._manager(await asyncio.to_thread(self._make_package, ()), (), MemoryAuditor())
        async with manager:
            plan = manager.plan(self._manifest.name)
        # Tracebacks look for sources where the host has them; no plugin needs those.
        return (*(mount.target for mount in plan.mounts), *plan.packages, find_python_layout().stdlib)

    async def run(self, granted: Sequence[Permission], *, recording: bool) -> Outcome:
        package = await asyncio.to_thread(self._make_package, granted)
        auditor, tried = MemoryAuditor(), list[Tried]()
        manager = self._manager(package, granted, auditor)
        reason = ""
        try:
            async with manager:
                if recording:
                    manager.wrap_runner(PROCESS, lambda runner: RecordingRunner(runner, tried.extend))
                await manager.start_plugin(self._manifest.name)
                reason = await self._exercise(manager)
        except CardcageError as error:
            reason = error.message
        finally:
            await asyncio.to_thread(shutil.rmtree, package.parent, ignore_errors=True)
        return Outcome(
            passed=not reason,
            reason=reason,
            tried=tuple(dict.fromkeys(tried)),
            capabilities=_capabilities(manager, auditor),
            secrets=self._lesson.secrets,  # nobody sees which of them the plugin's code looks up
        )

    async def _exercise(self, manager: PluginManager) -> str:
        """What went wrong first; nothing where all passed."""
        name = self._manifest.name
        if not self._lesson.exercises:
            found = _tests_run(await manager.call(name, _TESTS_METHOD))
            if not found.ran:
                return "none of its own tests was found"
            return "; ".join(found.problems)
        for exercise in self._lesson.exercises:
            result = await manager.call(name, exercise.method, *exercise.args)
            if exercise.has_expected and result != exercise.expected:
                return f"{exercise.method}() returned {result!r:.80}, expected {exercise.expected!r:.80}"
        return ""

    def _manager(self, package: Path, granted: Sequence[Permission], auditor: MemoryAuditor) -> PluginManager:
        name = self._manifest.name
        manager = PluginManager(
            {
                "plugins": {name: {"enabled": True, "config": dict(self._lesson.config)}},
                "network": {"hosts": dict(self._lesson.hosts)},
                "secrets": {"environment": {secret: secret for secret in self._lesson.secrets}},
            },
            plugin_paths=[package.parent],
            state_dir=package.parent / "state",
            grants={name: [str(permission) for permission in granted]},
            packs=self._lesson.packs,
            policy=Policy(level=Level.STANDARD),
            deadlines=_deadlines(self._lesson.timeout_s),
            audit=auditor,
            auto_start=False,
        )
        if self._lesson.prepare is not None:
            self._lesson.prepare(manager)
        return manager

    def _make_package(self, granted: Sequence[Permission]) -> Path:
        """A copy of the package whose manifest asks for exactly these permissions."""
        self._runs += 1
        place = self._folder / f"run{self._runs}"
        package = place / "package"
        place.mkdir(mode=0o755)
        shutil.copytree(self._release.package_dir, package, symlinks=True)
        manifest = package / self._release.manifest_file
        as_json = manifest.name.endswith(".json")
        text = with_permissions(manifest.read_text(encoding="utf-8"), granted, as_json=as_json)
        if not self._lesson.exercises:
            (package / f"{TESTS_MODULE}.py").write_text(_TESTS_CODE, encoding="utf-8")
            text = with_entry_point(text, f"{TESTS_MODULE}:OwnTests", as_json=as_json)
        manifest.write_text(text, encoding="utf-8")
        return package
