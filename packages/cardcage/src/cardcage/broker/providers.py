"""Whoever provides an extension point: a plugin behind its walls, or the host's own trusted code in process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from cardcage.contracts import ExtensionPoint, MethodSpec, make_proxy
from cardcage.foundation.errors import Misuse, PluginFault
from cardcage.runtime import Instance


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginInfo:
    """Whose proxy this is: the plugin's name and version, the wall around it, and which instance answers."""

    name: str
    version: str
    isolation: str
    instance: str


class Provider(Protocol):
    """One implementation of an extension point, wherever it runs."""

    info: PluginInfo
    priority: int

    def invoke(self, method: MethodSpec, args: list[Any]) -> Any:
        """Carry one call out: an awaitable of its result, or an async iterator for a stream."""
        ...


class InstanceProvider:
    """A plugin's instance as a provider."""

    def __init__(self, instance: Instance, isolation: str) -> None:
        self.instance = instance
        self.priority = instance.blueprint.priority
        self.info = PluginInfo(
            name=instance.blueprint.plugin,
            version=instance.blueprint.version,
            isolation=isolation,
            instance=instance.id,
        )

    def invoke(self, method: MethodSpec, args: list[Any]) -> Any:
        if method.stream:
            return self.instance.stream(method.name, args, item_type=method.item_type)
        return self.instance.call(method.name, args, result_type=method.result_type)


class LocalProvider:
    """The host's own code as a provider: trusted, in process, under the same contract."""

    def __init__(self, implementation: Any, *, name: str, version: str, priority: int) -> None:
        self._implementation = implementation
        self.priority = priority
        self.info = PluginInfo(name=name, version=version, isolation="none", instance=name)

    def check(self, point: ExtensionPoint) -> None:
        """Raises `Misuse` naming the methods that are missing."""
        missing = [name for name in point.methods if not callable(getattr(self._implementation, name, None))]
        if missing:
            raise Misuse(
                f"{self.info.name} cannot provide {point.ref}: it has no method {', '.join(missing)}",
                code="contract_broken",
            )

    def invoke(self, method: MethodSpec, args: list[Any]) -> Any:
        answer = getattr(self._implementation, method.name)(*args)
        return self._iterate(answer) if method.stream else self._await(answer)

    async def _await(self, answer: Any) -> Any:
        try:
            return await answer if inspect.isawaitable(answer) else answer
        except (asyncio.CancelledError, PluginFault):
            raise
        except Exception as error:
            raise self._fault(error) from error

    async def _iterate(self, answer: Any) -> AsyncIterator[Any]:
        try:
            if hasattr(answer, "__aiter__"):
                async for item in answer:
                    yield item
            else:
                for item in answer:
                    yield item
        except (asyncio.CancelledError, PluginFault):
            raise
        except Exception as error:
            raise self._fault(error) from error

    def _fault(self, error: Exception) -> PluginFault:
        return PluginFault(
            f'"{self.info.name}" {self.info.version} (in process) raised {type(error).__name__}: {error}',
            code="plugin_error",
            plugin=self.info.name,
            version=self.info.version,
        )


def proxy_of(point: ExtensionPoint, provider: Provider) -> Any:
    """The typed proxy through which the host calls this provider."""
    return make_proxy(point, provider.invoke, plugin=provider.info)
