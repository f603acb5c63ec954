"""`PluginManager` without async: the same names, the same errors, for programs that have no event loop.

The loop runs in a thread of its own; every method hands its work over and waits. May be used from any thread.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from cardcage.audit import Auditor
from cardcage.broker import Event, HookOutcome, Outcome
from cardcage.contracts import ExtensionPoint, MethodSpec, extension_point_of, make_proxy
from cardcage.egress import EgressCount
from cardcage.foundation.errors import Misuse
from cardcage.manager import InstanceUsage, PluginView, Problem
from cardcage.manager import PluginManager as AsyncPluginManager
from cardcage.policy import PolicyDecision
from cardcage.runtime import LogLine
from cardcage.sandbox.plan import SandboxPlan
from cardcage.sandbox.report import EnforcementReport
from cardcage.supervise import PluginState

T = TypeVar("T")

_END = object()


class PluginManager:
    """Discovers, verifies, registers, starts, calls and stops plugins, and returns when it is done."""

    def __init__(self, config: Mapping[str, Any] | None = None, **options: Any) -> None:
        """Takes what `cardcage.PluginManager` takes."""
        self._manager = AsyncPluginManager(config, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        started = threading.Event()
        loop = asyncio.new_event_loop()

        def run() -> None:
            asyncio.set_event_loop(loop)
            loop.call_soon(started.set)
            loop.run_forever()

        self._loop = loop
        self._thread = threading.Thread(target=run, name="cardcage", daemon=True)
        self._thread.start()
        started.wait()
        try:
            self._wait(self._manager.__aenter__())
        except BaseException:
            self._end_loop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop every plugin and the loop's thread. Harmless twice."""
        if self._loop is not None:
            try:
                self._wait(self._manager.stop())
            finally:
                self._end_loop()

    @property
    def audit(self) -> Auditor:
        """Where decisions are recorded while the manager is open."""
        return self._manager.audit

    # plugins ------------------------------------------------------------------------------------------------------

    def discover_plugins(self) -> list[PluginView]:
        """Look through the plugin paths and register what is new or changed."""
        return self._wait(self._manager.discover_plugins())

    def register_plugin(self, path: str | os.PathLike[str], *, allow_older: bool = False) -> PluginView:
        """Verify one package and register it; one older than the last only with `allow_older`."""
        return self._wait(self._manager.register_plugin(path, allow_older=allow_older))

    def load_plugin(self, plugin_name: str) -> bool:
        """Bring a plugin up to LOADED."""
        return self._wait(self._manager.load_plugin(plugin_name))

    def start_plugin(self, plugin_name: str) -> bool:
        """Start a plugin, what it depends on first."""
        return self._wait(self._manager.start_plugin(plugin_name))

    def stop_plugin(self, plugin_name: str) -> bool:
        """Take a plugin to INACTIVE."""
        return self._wait(self._manager.stop_plugin(plugin_name))

    def unload_plugin(self, plugin_name: str) -> bool:
        """End every process of a plugin."""
        return self._wait(self._manager.unload_plugin(plugin_name))

    def remove_plugin(self, plugin_name: str) -> None:
        """Unload a plugin and take it out of the registry."""
        self._wait(self._manager.remove_plugin(plugin_name))

    def get_plugin_status(self, plugin_name: str) -> PluginState:
        """The state of a plugin's default instance."""
        return self._run(lambda: self._manager.get_plugin_status(plugin_name))

    def list_plugins(self) -> list[str]:
        """The names of all registered plugins."""
        return self._run(self._manager.list_plugins)

    def plugin_info(self, plugin_name: str) -> PluginView:
        """Everything known about one plugin."""
        return self._run(lambda: self._manager.plugin_info(plugin_name))

    def problems(self) -> list[Problem]:
        """What could not be registered or started."""
        return self._run(self._manager.problems)

    # instances ----------------------------------------------------------------------------------------------------

    def create_instance(
        self,
        plugin: str,
        config: Mapping[str, Any] | None = None,
        *,
        label: str | None = None,
        grants: Iterable[str] = (),
    ) -> str:
        """Remember an instance with its own config and grants; returns its id."""
        return self._wait(self._manager.create_instance(plugin, config, label=label, grants=grants))

    def start_instance(self, instance: str) -> None:
        """Load and start an instance."""
        self._wait(self._manager.start_instance(instance))

    def stop_instance(self, instance: str) -> None:
        """Take an instance to INACTIVE."""
        self._wait(self._manager.stop_instance(instance))

    def unload_instance(self, instance: str) -> None:
        """End an instance's process."""
        self._wait(self._manager.unload_instance(instance))

    def remove_instance(self, instance: str) -> None:
        """Unload an instance and forget its config."""
        self._wait(self._manager.remove_instance(instance))

    def get_instance_health(self, instance: str) -> dict[str, Any]:
        """What the host sees of an instance and what the plugin says of itself."""
        return self._wait(self._manager.get_instance_health(instance))

    def logs(self, instance: str) -> list[LogLine]:
        """The last lines of an instance."""
        return self._run(lambda: self._manager.logs(instance))

    def judge(self, instance: str) -> PolicyDecision:
        """What the policy says of an instance, as it would be started now."""
        return self._run(lambda: self._manager.judge(instance))

    def plan(self, instance: str) -> SandboxPlan:
        """The walls of an instance."""
        return self._run(lambda: self._manager.plan(instance))

    def report(self, instance: str) -> EnforcementReport | None:
        """Which walls really stand."""
        return self._run(lambda: self._manager.report(instance))

    def egress(self, instance: str) -> Sequence[EgressCount]:
        """Connections and bytes of the running process, for each endpoint that was granted to it."""
        return self._run(lambda: self._manager.egress(instance))

    def usage(self, instance: str) -> InstanceUsage:
        """What a running instance uses and has run into."""
        return self._run(lambda: self._manager.usage(instance))

    def usage_all(self) -> dict[str, InstanceUsage]:
        """The same of every instance that runs."""
        return self._run(self._manager.usage_all)

    # calls, hooks, events -----------------------------------------------------------------------------------------

    def providers(self, point: type[T]) -> list[T]:
        """Proxies of all active providers, by priority: called without await, and streams are plain iterators."""
        described = extension_point_of(point)
        proxies = self._run(lambda: self._manager.providers(point))
        return [self._blocking(described, proxy) for proxy in proxies]

    def provider(self, point: type[T], name: str) -> T:
        """The proxy of one plugin or instance."""
        return self._blocking(extension_point_of(point), self._run(lambda: self._manager.provider(point, name)))

    def call(self, instance: str, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Call a public method of a plugin by name."""
        return self._wait(self._manager.call(instance, method, *args, timeout_s=timeout_s))

    def call_all(self, point: type, method: str, *args: Any, **kwargs: Any) -> list[Outcome]:
        """Call one method of all active providers."""
        return self._wait(self._manager.call_all(point, method, *args, **kwargs))

    def run_hook(self, name: str, context: Any, *, timeout_s: float | None = None) -> HookOutcome:
        """Run the ordered chain of a hook."""
        return self._wait(self._manager.run_hook(name, context, timeout_s=timeout_s))

    def broadcast_event(self, event_type: str, data: Mapping[str, Any]) -> None:
        """Hand an event to every active plugin."""
        self._wait(self._manager.broadcast_event(event_type, data))

    def publish(self, event_type: str, data: Any) -> int:
        """Publish an event to those who subscribed."""
        return self._run(lambda: self._manager.publish(event_type, data))

    def subscribe(self, pattern: str, callback: Callable[[Event], None]) -> Callable[[], None]:
        """See matching events; `callback` runs in the loop's thread and must not call this manager."""
        end = self._run(lambda: self._manager.subscribe(pattern, callback))
        return lambda: self._run(end)

    # inside -------------------------------------------------------------------------------------------------------

    def _need_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise Misuse(
                "the plugin manager is not open",
                code="not_open",
                hint="use it as `with PluginManager(...) as manager:`",
            )
        if threading.current_thread() is self._thread:
            raise Misuse("the blocking manager was called from its own loop's thread, and would wait for itself")
        return self._loop

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            loop = self._need_loop()
        except Misuse:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result()
        except BaseException:  # a KeyboardInterrupt in the caller's thread ends the work too
            future.cancel()
            raise

    def _run(self, function: Callable[[], T]) -> T:
        async def work() -> T:
            return function()

        return self._wait(work())

    def _blocking(self, point: ExtensionPoint, proxy: T) -> T:
        def invoke(method: MethodSpec, args: list[Any]) -> Any:
            def begin() -> Any:
                return getattr(proxy, method.name)(*args)

            return self._iterate(begin) if method.stream else self._wait(self._awaited(begin))

        return cast(T, make_proxy(point, invoke, plugin=cast(Any, proxy).plugin, blocking=True))

    @staticmethod
    async def _awaited(begin: Callable[[], Any]) -> Any:
        return await begin()

    def _iterate(self, begin: Callable[[], AsyncIterator[Any]]) -> Iterator[Any]:
        items = self._run(begin)

        async def step() -> Any:
            return await anext(items, _END)

        async def close() -> None:
            closing = getattr(items, "aclose", None)
            if closing is not None:
                await closing()

        try:
            while (item := self._wait(step())) is not _END:
                yield item
        finally:
            self._wait(close())

    def _end_loop(self) -> None:
        loop, thread = self._loop, self._thread
        self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
