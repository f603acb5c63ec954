"""Tests of a plugin without a host: `PluginTestCase` makes the plugin as a host would, and notes what it says.

    class TestPolite(PluginTestCase):
        async def test_it_greets(self) -> None:
            plugin = self.create_plugin(Polite, {"word": "Ahoy"})
            assert await plugin.initialize()

Runs under pytest and under unittest; `async def` tests need no plugin and no configuration in either.
"""

from __future__ import annotations

import logging
import tempfile
import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from cardcage_sdk.context import HostError, LinkedContext, PluginContext, set_current_context
from cardcage_sdk.driver import Driver, construct
from cardcage_sdk.entrypoint import style_of
from cardcage_sdk.logs import HostHandler
from cardcage_sdk.testing_store import LocalDataStore

P = TypeVar("P")

CallFault = HostError
"""Raise it in a service of `LocalHost` to make the plugin's call fail: `CallFault("refused", "not granted")`."""


class Measured(NamedTuple):
    """One measurement that a plugin made."""

    name: str
    kind: str
    value: float
    tags: Mapping[str, str]


class Line(NamedTuple):
    """One line that a plugin logged."""

    level: str
    message: str
    fields: Mapping[str, Any]


class LocalHost:
    """Stands in for the host: keeps what the plugin sends, and answers its calls from `services`.

    A data store is there from the start; `del host.services["data_store.put"]` takes a part of it away.
    """

    def __init__(self) -> None:
        self.data = LocalDataStore()
        """What `context.data_store` keeps: `host.data.values`."""
        self.services: dict[str, Callable[..., Any]] = self.data.services()
        """By full name, such as `alerts.trigger`. A call of any other fails with `method_not_found`."""
        self.calls: list[tuple[str, Sequence[Any] | Mapping[str, Any]]] = []
        self.events: list[tuple[str, Any]] = []
        self.subscriptions: list[str] = []
        self.logs: list[Line] = []
        self.metrics: list[Measured] = []

    def call(self, name: str, args: Sequence[Any] | Mapping[str, Any], timeout_s: float | None) -> Any:
        """Answer a call of the plugin's, with values as plain as the wire would have made them."""
        plain = msgspec.to_builtins(args)
        self.calls.append((name, plain))
        service = self.services.get(name)
        if service is None:
            raise HostError("method_not_found", f'the test has put no service "{name}" into `services`')
        return service(**plain) if isinstance(plain, dict) else service(*plain)

    async def acall(self, name: str, args: Sequence[Any] | Mapping[str, Any], timeout_s: float | None) -> Any:
        """The same, awaited."""
        return self.call(name, args, timeout_s)

    def publish(self, event_type: str, data: Any) -> None:
        """Keep an event."""
        self.events.append((event_type, msgspec.to_builtins(data)))

    def subscribe(self, pattern: str) -> None:
        """Keep a subscription."""
        self.subscriptions.append(pattern)

    def log(self, level: str, message: str, fields: Mapping[str, Any] | None) -> None:
        """Keep a line."""
        self.logs.append(Line(level, message, fields or {}))

    def metric(self, name: str, kind: str, value: float, tags: Mapping[str, str] | None) -> None:
        """Keep a measurement."""
        self.metrics.append(Measured(name, kind, value, tags or {}))


class PluginTestCase(unittest.IsolatedAsyncioTestCase):
    """A test case that makes plugins. What they say to their host is in `self.host`."""

    def __init__(self, methodName: str = "runTest") -> None:  # noqa: N803 - unittest's own name
        super().__init__(methodName)
        self.host = LocalHost()

    def create_plugin(self, plugin_class: type[P], config: Mapping[str, Any] | None = None) -> P:
        """A plugin of this class with a context of its own: folders that vanish after the test, and `self.host`."""
        context = self.create_context(plugin_class.__name__.lower(), config)
        return construct(plugin_class, style_of(plugin_class), context)

    def create_context(self, name: str = "plugin", config: Mapping[str, Any] | None = None) -> PluginContext:
        """A context as a host gives it. It is also the current one until the test ends."""
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="plugin-test-")))
        for part in ("data", "temp"):
            (folder / part).mkdir()
        context = LinkedContext(
            self.host,
            {
                "config": config,
                "data_dir": str(folder / "data"),
                "temp_dir": str(folder / "temp"),
                "plugin": name,
                "version": "0.0.0",
            },
        )
        context.logger = self._logger(name)
        self.addCleanup(set_current_context, set_current_context(context))
        return context

    async def send_event(self, plugin: Any, event_type: str, data: Any = None) -> None:
        """Deliver an event to the plugin: to `handle_event`, marked methods and subscribers."""
        await self._driver(plugin).handle_event(event_type, data)

    async def run_hook(self, plugin: Any, name: str, context: Any) -> Any:
        """Run all functions that the plugin has for a hook, in order; the context as the last one left it."""
        driver = self._driver(plugin)
        for mark, endpoint in sorted(driver.endpoints.hooks, key=lambda entry: entry[0].priority):
            if mark.name == name:
                changed = await driver.run_hook(name, endpoint.name, context)
                context = context if changed is None else changed
        return context

    def _driver(self, plugin: Any) -> Driver:
        context = getattr(plugin, "context", None)
        if not isinstance(context, PluginContext):
            context = self.create_context()
        return Driver(plugin, style_of(plugin), context)

    def _logger(self, name: str) -> logging.Logger:
        logger = logging.getLogger(f"plugin.{name}")
        handler = HostHandler(self.host, logger.name)
        logger.addHandler(handler)
        level = logger.level
        logger.setLevel(logging.DEBUG)
        self.addCleanup(logger.setLevel, level)
        self.addCleanup(logger.removeHandler, handler)
        return logger
