"""One lifecycle for all spellings: makes the plugin's object, and runs its steps, hooks, tools and event handlers.

The methods are coroutines so that one driver serves both loops. In a blocking plugin none of them ever waits (there is
no `async def` of the plugin's in it), and `run_now` finishes them on the spot.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from fnmatch import fnmatchcase
from time import monotonic
from typing import Any, Final, TypeVar

import msgspec

from cardcage_sdk.context import LinkedContext, PluginContext, current_call
from cardcage_sdk.describe import endpoint_facts
from cardcage_sdk.endpoints import Endpoints, endpoints_of
from cardcage_sdk.entrypoint import EntryPoint, Style, own_functions, style_of
from cardcage_sdk.faults import LoadFault, summary
from cardcage_sdk.memory import resident_bytes
from cardcage_sdk.signature import Decode, InvalidArguments, is_async_function, is_generator, signature_of
from cardcage_sdk.status import PluginStatus

T = TypeVar("T")

_AFTER: Final = {
    "initialize": PluginStatus.LOADED,
    "start": PluginStatus.ACTIVE,
    "stop": PluginStatus.INACTIVE,
    "cleanup": PluginStatus.UNLOADED,
}


class Driver:
    """A loaded plugin."""

    def __init__(self, plugin: Any, style: Style, context: PluginContext) -> None:
        self.plugin = plugin
        self.style = style
        self.context = context
        self.endpoints: Endpoints = endpoints_of(plugin, style)
        self._status = PluginStatus.LOADING
        self._started_s: float | None = None
        self._error_count = 0

    # Lifecycle

    async def initialize(self) -> bool:
        """Hand over the config where the spelling has a method for that, validate, initialize. False refuses."""
        if self.style is Style.CLOUDMIND:
            await self._run("load", self.context.config)
            if await self._run("validate") is False:
                self._status = PluginStatus.ERROR
                return False
        return await self._step("initialize")

    async def start(self) -> bool:
        """Start the plugin."""
        return await self._step("start")

    async def stop(self) -> bool:
        """Stop the plugin; it may be started again."""
        return await self._step("stop")

    async def cleanup(self) -> bool:
        """Let the plugin go of everything."""
        done = await self._step("cleanup")
        if self.style is Style.CLOUDMIND:
            await self._run("shutdown")
        return done

    async def _step(self, name: str) -> bool:
        try:
            succeeded = await self._run(name) is not False
        except BaseException:
            self._status = PluginStatus.ERROR
            raise
        self._status = _AFTER[name] if succeeded else PluginStatus.ERROR
        self._started_s = monotonic() if self._status is PluginStatus.ACTIVE else None
        return succeeded

    async def health_check(self) -> dict[str, Any]:
        """What the plugin says of its health, over what is known without asking it."""
        known: dict[str, Any] = {
            "status": self._status.value,
            "uptime": None if self._started_s is None else monotonic() - self._started_s,
            "memory_usage": resident_bytes(),
            "error_count": self._error_count,
        }
        told = await self._run("health_check")
        match told:
            case None | True:
                return known
            case False:
                return known | {"status": PluginStatus.ERROR.value}
            case _:
                return known | msgspec.to_builtins(told)

    # Events, hooks, tools

    async def handle_event(self, event_type: str, data: Any) -> None:
        """Deliver an event to `handle_event`, to the marked methods and to the subscribers that it is for.

        Each of them gets it, whatever another one does; the first error is raised when all have had it.
        """
        takers: list[Callable[..., Any]] = []
        own = self._lifecycle_method("handle_event")
        if own is not None:
            takers.append(own)
        takers += [each.function for mark, each in self.endpoints.events if fnmatchcase(event_type, mark.pattern)]
        takers += self.context.event_bus.callbacks(event_type)
        first: Exception | None = None
        for taker in takers:
            try:
                await finished(taker(event_type, data))
            except Exception as fault:
                self.count_error()
                first = first or fault
        if first is not None:
            raise first

    async def run_hook(self, name: str, method: str, context: Any) -> Any:
        """Run one function of a hook; None means that the context stays as it is."""
        for mark, endpoint in self.endpoints.hooks:
            if mark.name == name and endpoint.name == method:
                _note_running(f'hook "{name}" in {endpoint.label}')
                return await finished(endpoint.call_with_context(context))
        offered = [f"{mark.name}:{each.name}" for mark, each in self.endpoints.hooks]
        raise InvalidArguments(
            f'hook "{name}": the plugin has no function "{method}" for it (it has: {", ".join(offered) or "none"})',
            method="cardcage.hook",
            path="method",
            expected=", ".join(offered),
            found=f"{name}:{method}",
        )

    async def run_tool(self, name: str, arguments: msgspec.Raw, decode: Decode) -> Any:
        """Run a tool with arguments by name (or by position)."""
        entry = self.endpoints.tools.get(name)
        if entry is None:
            offered = ", ".join(self.endpoints.tools) or "none"
            raise InvalidArguments(
                f'the plugin has no tool "{name}" (it has: {offered})',
                method="cardcage.tool",
                path="name",
                expected=offered,
                found=name,
            )
        endpoint = entry[1]
        _note_running(endpoint.label)
        args, named = endpoint.signature.bind(arguments, decode)
        value = endpoint.function(*args, **named)
        if hasattr(value, "__anext__"):
            return [item async for item in value]
        if is_generator(value):
            return list(value)
        return await finished(value)

    # Description

    async def describe(self) -> dict[str, Any]:
        """What the host is told at load. What only works after `initialize` is left out with a warning."""
        await self._collect_tools()
        return {
            "style": self.style.value,
            **endpoint_facts(self.endpoints),
            "metadata": await self._metadata(),
            "config_schema": await self._told("get_config_schema") or None,
            "capabilities": await self._told("capabilities") if self.style is Style.CLOUDMIND else None,
        }

    async def _collect_tools(self) -> None:
        if self.style is Style.PLUGIN_BASE:
            for function in await self._told("get_tools") or ():
                self.endpoints.add_tool(function)

    async def _metadata(self) -> Any:
        match self.style:
            case Style.BASE_PLUGIN:
                return plain_metadata(getattr(self.plugin, "metadata", None) or await self._told("get_metadata"))
            case Style.PLUGIN_BASE:
                # PLUGIN_NAME is a title for people ("Amazon EKS"), not the name by which the plugin is known.
                told = {"type": "TYPE", "title": "NAME", "description": "DESCRIPTION", "icon": "ICON"}
                return {key: getattr(self.plugin, f"PLUGIN_{name}", "") for key, name in told.items()}
            case _:
                return None

    async def _told(self, name: str) -> Any:
        try:
            return await self._run(name)
        except Exception as fault:
            self.context.logger.warning("%s() was left out of the description: it raised %s", name, summary(fault))
            return None

    # Shared

    @property
    def has_asynchronous_tools(self) -> bool:
        """Whether a tool that came to light with the description is an `async def`."""
        return any(is_async_function(endpoint.function) for _, endpoint in self.endpoints.tools.values())

    def count_error(self) -> None:
        """Note that the plugin's code raised."""
        self._error_count += 1
        if self.style is Style.BASE_PLUGIN:
            from cardcage_sdk.base_plugin import life_of

            life_of(self.plugin).errors += 1

    def _lifecycle_method(self, name: str) -> Callable[..., Any] | None:
        if self.style is Style.MODULE:
            # Only what the file defines: it may import a function that happens to be called `start`.
            return own_functions(self.plugin).get(name)
        found = getattr(self.plugin, name, None)
        return found if callable(found) else None

    async def _run(self, name: str, *args: Any) -> Any:
        method = self._lifecycle_method(name)
        _note_running(f'method "{name}"')
        return None if method is None else await finished(method(*args))


def make_driver(found: Any, entry: EntryPoint, context: LinkedContext) -> Driver:
    """Make the plugin's object and the driver for it. Raises `LoadFault`, and whatever the constructor raises."""
    style = style_of(found)
    if isinstance(found, type):
        return Driver(construct(found, style, context, who=entry.who), style, context)
    _attach(found, style, context)
    return Driver(found, style, context)


def construct(cls: type, style: Style, context: PluginContext, *, who: str = "the plugin") -> Any:
    """An object of the plugin's class, with its context in place before `__init__` runs."""
    make: Any = cls.__new__
    plugin: Any = make(cls)
    _attach(plugin, style, context)
    args, named = _constructor_arguments(cls, style, context, who)
    cls.__init__(plugin, *args, **named)
    return plugin


def _attach(plugin: Any, style: Style, context: PluginContext) -> None:
    """Give the plugin's object its context, where its base class has a place for it."""
    if style not in (Style.CLASS, Style.MODULE):
        try:
            plugin.context = context
        except AttributeError:
            pass  # a class of its own, without our base, whose __slots__ have no place for it
    if style is Style.PLUGIN:
        plugin.config = context.config


def _constructor_arguments(
    cls: type, style: Style, context: PluginContext, who: str
) -> tuple[list[Any], dict[str, Any]]:
    if style is Style.BASE_PLUGIN:
        return [context], {}
    initializer: Any = cls.__init__
    if initializer is object.__init__:
        return [], {}
    bases = [base.__dict__["__init__"] for base in cls.__mro__[1:] if "__init__" in base.__dict__]
    parameters = signature_of("__init__", initializer, bases=bases).parameters[1:]
    named: dict[str, Any] = {}
    for parameter in parameters:
        if parameter.name == "context":
            named["context"] = context
        elif style is Style.PLUGIN_BASE and not named and parameter.type is not dict and not _is_map(parameter.type):
            named[parameter.name] = cluster_config(context)
        elif parameter.name in ("config", "cluster_config", "settings"):
            named[parameter.name] = context.config
        elif parameter.required:
            raise LoadFault(
                "entrypoint_not_found",
                f"{who}: expected a class that is made with nothing, `context` or `config`, "
                f'found {cls.__name__}, which needs "{parameter.name}"',
                expected="a constructor that takes nothing, context or config",
                found=parameter.name,
            )
    return [], named


def _is_map(hint: Any) -> bool:
    origin = getattr(hint, "__origin__", hint)
    return isinstance(origin, type) and issubclass(origin, dict)


def cluster_config(context: PluginContext) -> Any:
    """The instance's config under the names of a cluster."""
    from cardcage_sdk.plugin_base import ClusterConfig

    config = context.config
    inner = config.get("config")
    return ClusterConfig(
        cluster_id=str(config.get("cluster_id") or context.instance),
        name=str(config.get("name") or context.instance),
        region=str(config.get("region") or ""),
        plugin_type=str(config.get("plugin_type") or context.plugin),
        config=inner if isinstance(inner, dict) else config,  # pyright: ignore[reportUnknownArgumentType]
    )


def plain_metadata(metadata: Any) -> dict[str, Any] | None:
    """A plugin's metadata as plain data, whatever class it made it of."""
    if metadata is None:
        return None
    plain: dict[str, Any] = msgspec.to_builtins(metadata)
    return {key: value for key, value in plain.items() if value is not None}


def _note_running(label: str) -> None:
    """Let an error of the current call name the plugin's function rather than the reserved method."""
    call = current_call()
    if call is not None:
        call.label = label


async def finished(value: Any) -> Any:
    """The value, awaited where it has to be."""
    if hasattr(value, "__await__"):
        return await value
    return value


def run_now(work: Coroutine[Any, Any, T]) -> T:
    """Finish a coroutine that does not wait. Raises RuntimeError for one that does: there is no event loop here."""
    try:
        work.send(None)
    except StopIteration as stop:
        return stop.value
    work.close()
    raise RuntimeError(
        "the plugin awaited something, but it has no `async def` of its own and so is served without an event loop"
    )
