"""The plugins that take part in one analysis: each in an instance of its own, with the grants of this analysis alone.

An instance lives as long as the analysis: it is made, started, called and removed again, whatever happens. A plugin
that fails is written down, and the others go on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Generic, Self, TypeVar, cast

from cardcage.contracts import extension_point_of
from cardcage.foundation.errors import CardcageError, PluginFault
from cardcage.manager import PluginInfo, PluginManager, PluginView
from cardcage_finops.pipeline.result import PluginRun

P = TypeVar("P")
T = TypeVar("T")

CALL_TIMEOUT_S: Final = 120.0
"""One answer of one plugin over one batch. A batch is sized to take well under a second."""

LOCAL: Final = "none"
"""The isolation of the host's own code."""

ITEM_TIMEOUT_S: Final = 60.0
"""The longest wait for the next batch of a stream; a stream as a whole may take as long as the bill is large."""


@dataclass(slots=True)
class Member(Generic[P]):
    """One plugin in one role. `proxy` is None once it has failed to start."""

    name: str
    version: str
    role: str
    isolation: str
    digest: str
    instance: str = ""
    proxy: P | None = None
    walls: str = ""
    seconds: float = 0.0
    calls: int = 0
    error: CardcageError | None = None

    async def ask(self, answer: Awaitable[T], timeout_s: float | None = None) -> T:
        """Await one call, timed. Raises the plugin's error after writing it down."""
        timeout_s = CALL_TIMEOUT_S if timeout_s is None else timeout_s
        self.calls += 1
        started = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise self._failed(self._late(timeout_s)) from None
        except CardcageError as error:
            raise self._failed(error) from error
        finally:
            self.seconds += time.monotonic() - started

    async def each(self, items: AsyncIterator[T], timeout_s: float | None = None) -> AsyncIterator[T]:
        """The items of one streaming call, timed without what the caller does between them."""
        timeout_s = ITEM_TIMEOUT_S if timeout_s is None else timeout_s
        self.calls += 1
        async with aclosing(cast("AsyncGenerator[T]", items)) as stream:
            while True:
                started = time.monotonic()
                try:
                    async with asyncio.timeout(timeout_s):
                        item = await anext(stream)
                except StopAsyncIteration:
                    return
                except TimeoutError:
                    raise self._failed(self._late(timeout_s)) from None
                except CardcageError as error:
                    raise self._failed(error) from error
                finally:
                    self.seconds += time.monotonic() - started
                yield item

    def refuse(self, problem: str) -> PluginFault:
        """The error for an answer that has the right types and is still wrong; written down."""
        return PluginFault(
            f'plugin "{self.name}" {self.version} {problem}',
            code="invalid_result",
            plugin=self.name,
            version=self.version,
        )

    def fail(self, error: CardcageError) -> None:
        """Write a failure down; the first one counts."""
        self._failed(error)

    def run(self) -> PluginRun:
        """What the result says of this member."""
        return PluginRun(
            name=self.name,
            version=self.version,
            role=self.role,
            isolation=self.isolation,
            seconds=self.seconds,
            calls=self.calls,
            digest=self.digest,
            walls=self.walls,
            error=self.error.message if self.error else None,
            error_code=self.error.code if self.error else None,
        )

    def _failed(self, error: CardcageError) -> CardcageError:
        if self.error is None:
            self.error = error
        return error

    def _late(self, timeout_s: float) -> PluginFault:
        return PluginFault(
            f'plugin "{self.name}" {self.version} did not answer as {self.role} within {timeout_s:g} s',
            code="deadline_exceeded",
            plugin=self.name,
            version=self.version,
        )


@dataclass(slots=True)
class Crew:
    """Hires plugins for one analysis, and lets all of them go at its end."""

    manager: PluginManager
    label: str
    """Tells the instances of this analysis from those of others."""
    members: list[Member[Any]] = field(default_factory=list[Member[Any]])
    _instances: list[str] = field(default_factory=list[str])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for instance in reversed(self._instances):
            try:
                await self.manager.remove_instance(instance)
            except CardcageError:
                pass  # it never came to be, or is gone already; either is what is wanted
        self._instances.clear()

    def candidates(self, point: type) -> list[PluginView]:
        """The enabled plugins that provide an extension point, by priority."""
        wanted = extension_point_of(point).ref
        views = (self.manager.plugin_info(name) for name in self.manager.list_plugins())
        fitting = [view for view in views if wanted in view.provides and view.enabled]
        return sorted(fitting, key=lambda view: (view.priority, view.name))

    def local(self, point: type[P], role: str) -> list[Member[P]]:
        """The host's own code that provides an extension point in process (`PluginManager.provide`)."""
        found: list[Member[P]] = []
        for proxy in self.manager.providers(point):
            info: PluginInfo = cast(Any, proxy).plugin
            if info.isolation == LOCAL:
                member = Member[P](
                    name=info.name, version=info.version, role=role, isolation=LOCAL, digest="", proxy=proxy
                )
                found.append(member)
        self.members.extend(found)
        return found

    async def hire(
        self, point: type[P], plugin: PluginView, role: str, config: Mapping[str, Any], grants: Iterable[str] = ()
    ) -> Member[P]:
        """Start an instance of `plugin` for this role. Never raises for the plugin's sake: see `Member.error`."""
        return await self._start(plugin, role, config, grants, point)

    async def hire_for_hooks(self, plugin: PluginView, role: str, grants: Iterable[str] = ()) -> Member[Any]:
        """Start an instance of a plugin that only has hooks or listens to events."""
        return await self._start(plugin, role, {}, grants, None)

    async def _start(
        self, plugin: PluginView, role: str, config: Mapping[str, Any], grants: Iterable[str], point: type[Any] | None
    ) -> Member[Any]:
        member = Member[Any](
            name=plugin.name, version=plugin.version, role=role, isolation="none started", digest=plugin.digest
        )
        self.members.append(member)
        started = time.monotonic()
        try:
            label = f"{self.label}.{len(self.members)}"
            member.instance = await self.manager.create_instance(plugin.name, config, label=label, grants=grants)
            self._instances.append(member.instance)
            await self.manager.start_instance(member.instance)
            member.isolation = self.manager.plan(member.instance).isolation
            report = self.manager.report(member.instance)
            member.walls = report.summary() if report and report.asked else "no walls"
            if point is not None:
                member.proxy = self.manager.provider(point, member.instance)
        except CardcageError as error:
            member.fail(error)
        finally:
            member.seconds += time.monotonic() - started
        return member
