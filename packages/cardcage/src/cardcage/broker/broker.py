"""The broker: it knows every live instance and every in-process provider, and routes what goes between them.

Four kinds of traffic: typed calls to one provider or to all of an extension point, calls by bare name, ordered hooks,
and events. Whatever a plugin does wrong comes back as an outcome of that plugin alone; the others go on.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from cardcage.audit import Action, Actor
from cardcage.broker.events import Callback, Event, EventBus
from cardcage.broker.providers import InstanceProvider, LocalProvider, PluginInfo, Provider, proxy_of
from cardcage.broker.rates import CallRate, CallRates
from cardcage.broker.services import OBSERVE_PLUGINS, ServiceTable
from cardcage.contracts import ExtensionPoint, bind_arguments, check_provider
from cardcage.foundation.clock import Clock
from cardcage.foundation.errors import CardcageError, Misuse, PluginFault
from cardcage.foundation.limits import EVENTS_BURST, EVENTS_PER_S
from cardcage.foundation.names import EVENT_NAME_PATTERN, InterfaceRef
from cardcage.permissions import Decision, Permission, PermissionKind, decide
from cardcage.runtime import HookMark, Instance, InstanceHealth
from cardcage.supervise import PluginState

_EVENT_NAME: Final = re.compile(EVENT_NAME_PATTERN)
_HOST_EVENTS: Final = ("plugin.", "cardcage.", "host.")

_OBSERVE_PLUGINS: Final = Permission(PermissionKind.CAPABILITY, OBSERVE_PLUGINS)
_OPEN_TO_ALL: Final = Decision(True, "it is for everyone")
_PATTERN: Final = re.compile(r"[A-Za-z0-9_.:/*?!\[\]-]{1,256}")

PATTERNS_MAX: Final = 64
"""Event patterns of one instance: every event is held against all of them, and each keeps a queue. `*` is one."""

WITHHELD_NAMES_MAX: Final = 100
"""Names of events that a subscription was not shown: the log tells each once, and of so many."""

__all__ = ["Broker", "HookOutcome", "HookStep", "InstanceHealth", "Outcome", "Tool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of one of several calls: `value`, or the `error` of that plugin alone."""

    plugin: PluginInfo
    value: Any = None
    error: CardcageError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HookStep:
    """One link of a hook's chain: who it was, and the error where it failed."""

    plugin: PluginInfo
    method: str
    error: CardcageError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HookOutcome:
    """The context as the chain left it, and every link in the order in which it ran."""

    context: Any
    steps: Sequence[HookStep]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A function that a plugin offers to agents; `parameters` is a JSON Schema."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    plugin: PluginInfo


class Broker:
    """Routes calls, hooks and events between the host and its plugins."""

    def __init__(self, *, services: ServiceTable, clock: Clock) -> None:
        self.bus = EventBus()
        self.services = services
        self._clock = clock
        self._instances: dict[str, tuple[InstanceProvider, frozenset[InterfaceRef]]] = {}
        self._local: dict[InterfaceRef, list[LocalProvider]] = {}
        self._event_rates = CallRates(CallRate(per_s=EVENTS_PER_S, burst=EVENTS_BURST))

    # who is there -------------------------------------------------------------------------------------------------

    def add(self, instance: Instance, *, isolation: str, provides: Sequence[InterfaceRef]) -> PluginInfo:
        """Make an instance known. `provides` is what its manifest says."""
        provider = InstanceProvider(instance, isolation)
        self._instances[instance.id] = (provider, frozenset(provides))
        return provider.info

    def remove(self, instance_id: str) -> None:
        """Forget an instance and end its subscriptions."""
        self._instances.pop(instance_id, None)
        self.bus.unsubscribe_owner(instance_id)
        self.services.forget(instance_id)
        self._event_rates.forget(instance_id)

    def provide(
        self, point: ExtensionPoint, implementation: Any, *, name: str, version: str = "0", priority: int = 50
    ) -> None:
        """Let the host's own code provide an extension point, in process and trusted."""
        provider = LocalProvider(implementation, name=name, version=version, priority=priority)
        provider.check(point)
        self._local.setdefault(point.ref, []).append(provider)

    def info(self, instance_id: str) -> PluginInfo:
        """Who an instance is. Raises `Misuse` where it is not known."""
        return self._provider(instance_id).info

    def providers(self, point: ExtensionPoint) -> list[Any]:
        """Typed proxies of all active providers, by priority (lower first) and then by name.

        An instance that is being restarted counts as active: calls to it wait.
        """
        return [proxy_of(point, provider) for provider in self._providing(point)]

    def broken_providers(self, point: ExtensionPoint) -> list[tuple[PluginInfo, str]]:
        """Active plugins that claim to provide `point` and lack its methods, with what is missing."""
        broken: list[tuple[PluginInfo, str]] = []
        for provider, provides in self._instances.values():
            description = provider.instance.description
            if point.ref in provides and description is not None:
                faults = check_provider(point, description.method_names())
                if faults:
                    broken.append((provider.info, "; ".join(map(str, faults))))
        return broken

    # calls --------------------------------------------------------------------------------------------------------

    async def call(self, instance_id: str, method: str, args: Any, *, timeout_s: float | None = None) -> Any:
        """Call any public method of a plugin by its bare name; the result is plain data.

        Raises `Misuse` for a name that the plugin has no method of: nothing but the caller says that it should have.
        """
        try:
            return await self._provider(instance_id).instance.call(method, args, timeout_s=timeout_s)
        except PluginFault as fault:
            if fault.code != "method_not_found":
                raise
            raise Misuse(fault.message, code=fault.code, hint=fault.hint, **fault.fields) from fault

    async def call_all(
        self, point: ExtensionPoint, method: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> list[Outcome]:
        """Call one method of every active provider at the same time; one outcome each, in the providers' order."""
        spec = point.methods.get(method)
        if spec is None:
            raise Misuse(f"extension point {point.ref} has no method {method!r} (it has: {', '.join(point.methods)})")
        bound = bind_arguments(spec, args, kwargs or {})

        async def one(provider: Provider) -> Outcome:
            try:
                return Outcome(plugin=provider.info, value=await provider.invoke(spec, bound))
            except CardcageError as error:
                return Outcome(plugin=provider.info, error=error)

        return list(await asyncio.gather(*map(one, self._providing(point))))

    # hooks --------------------------------------------------------------------------------------------------------

    def hooked(self, name: str) -> list[tuple[InstanceProvider, HookMark]]:
        """The chain of a hook in order: hook priority, then plugin priority, then name; lower runs earlier."""
        chain = [
            (provider, mark)
            for provider, _ in self._instances.values()
            if provider.instance.state is PluginState.ACTIVE and provider.instance.description is not None
            for mark in provider.instance.description.hooks
            if mark.name == name
        ]
        return sorted(chain, key=lambda link: (link[1].priority, link[0].priority, link[0].info.instance))

    async def run_hook(self, name: str, context: Any, *, timeout_s: float | None = None) -> HookOutcome:
        """Run the chain: each link gets the context that the one before left; None leaves it as it is.

        A link that fails is recorded and skipped; the chain goes on with the context from before it.
        """
        steps: list[HookStep] = []
        for provider, mark in self.hooked(name):
            error: CardcageError | None = None
            try:
                answer = await provider.instance.call(
                    "cardcage.hook", [name, mark.method, context], timeout_s=timeout_s
                )
                context = context if answer is None else answer
            except CardcageError as fault:
                error = fault
                provider.instance.logbook.note("error", f"the hook {name} failed: {fault.message}")
            steps.append(HookStep(plugin=provider.info, method=mark.method, error=error))
        return HookOutcome(context=context, steps=steps)

    # tools --------------------------------------------------------------------------------------------------------

    def tools(self) -> list[Tool]:
        """The tools of all active plugins in one list, by name and then by plugin."""
        offered = [
            Tool(name=mark.name, description=mark.description, parameters=mark.parameters, plugin=provider.info)
            for provider, _ in self._instances.values()
            if provider.instance.state is PluginState.ACTIVE and provider.instance.description is not None
            for mark in provider.instance.description.tools
        ]
        return sorted(offered, key=lambda tool: (tool.name, tool.plugin.instance))

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any], *, instance_id: str | None = None, timeout_s: float | None = None
    ) -> Any:
        """Run a tool by name. Raises `Misuse` where no plugin has it, or several have and none is named."""
        offering = [tool for tool in self.tools() if tool.name == name and instance_id in (None, tool.plugin.instance)]
        if len(offering) != 1:
            found = ", ".join(tool.plugin.instance for tool in offering) or "none"
            raise Misuse(f"expected one active plugin with the tool {name!r}, found: {found}", code="unknown_tool")
        provider = self._provider(offering[0].plugin.instance)
        return await provider.instance.call("cardcage.tool", [name, dict(arguments)], timeout_s=timeout_s)

    # events -------------------------------------------------------------------------------------------------------

    def publish(self, name: str, data: Any, *, source: str | None = None) -> int:
        """Publish a fact; returns how many subscribers it was queued for."""
        return self.bus.publish(Event(name=name, data=data, source=source, at_s=self._clock.wall_s()))

    async def broadcast(self, name: str, data: Any, *, timeout_s: float | None = None) -> list[Outcome]:
        """Hand an event to `handle_event` of every active plugin and to the host's subscribers; waits for those."""

        async def one(provider: InstanceProvider) -> Outcome:
            try:
                await provider.instance.call("cardcage.handle_event", [name, data], timeout_s=timeout_s)
                return Outcome(plugin=provider.info)
            except CardcageError as error:
                provider.instance.logbook.note("error", f"handle_event({name!r}) failed: {error.message}")
                return Outcome(plugin=provider.info, error=error)

        active = [provider for provider, _ in self._instances.values() if provider.instance.state is PluginState.ACTIVE]
        event = Event(name=name, data=data, source=None, at_s=self._clock.wall_s())
        self.bus.publish(event, besides=frozenset(provider.info.instance for provider in active))
        return list(await asyncio.gather(*map(one, active)))

    def subscribe(self, pattern: str, callback: Callback) -> Callable[[], None]:
        """Let the host's own code see every event whose name matches."""
        return self.bus.subscribe(pattern, callback)

    def listen(self, instance: Instance) -> None:
        """Subscribe an instance to the patterns that its code declares, besides those that it has asked for itself."""
        for pattern in instance.description.events if instance.description else ():
            try:
                self.subscribe_instance(instance, pattern)
            except Misuse as error:
                instance.logbook.note("error", error.message)
                return

    def subscribe_instance(self, instance: Instance, pattern: str) -> None:
        """Deliver matching events to a plugin through its `handle_event`, in order, one at a time.

        Raises `Misuse` for what is no pattern, and for one too many. A pattern that it has already is not added again:
        a plugin that was restarted asks for its events anew.
        """
        patterns = self.bus.patterns(instance.id)
        if isinstance(pattern, str) and pattern in patterns:  # pyright: ignore[reportUnnecessaryIsInstance]
            return
        try:
            _check_pattern(instance, pattern, len(patterns))
        except Misuse as error:
            instance.trail.note(
                Action.SUBSCRIPTION_REFUSED, error.message, allowed=False, actor=Actor.PLUGIN, pattern=str(pattern)
            )
            raise
        withheld: set[str] = set()

        async def deliver(event: Event) -> None:
            if event.source == instance.id or instance.state is not PluginState.ACTIVE:
                return
            decision = _may_hear(instance, event)
            if not decision.allowed:
                if event.name not in withheld and len(withheld) < WITHHELD_NAMES_MAX:
                    withheld.add(event.name)
                    instance.trail.note(
                        Action.EVENT_REFUSED, decision.reason, allowed=False, event=event.name, pattern=pattern
                    )
                return
            try:
                await instance.call("cardcage.handle_event", [event.name, event.data])
            except CardcageError as error:
                instance.logbook.write("error", "host", f"handle_event({event.name!r}) failed: {error.message}")

        self.bus.subscribe(pattern, deliver, owner=instance.id)

    def publish_from(self, instance: Instance, name: str, data: Any) -> bool:
        """An event that a plugin publishes: its name must be well formed, and never one of the host's own.

        False where it was refused.
        """
        if not _EVENT_NAME.fullmatch(name) or name.startswith(_HOST_EVENTS):
            # At the rate of the plugin's own lines: it may send names without end.
            instance.logbook.write("warning", "host", f"event {name!r} refused: not a name that a plugin may publish")
            instance.trail.note(
                Action.EVENT_REFUSED,
                "not a name that a plugin may publish",
                allowed=False,
                actor=Actor.PLUGIN,
                event=name,
            )
            return False
        if not self._in_time(instance):
            return False
        self.publish(name, data, source=instance.id)
        return True

    def measure_from(self, instance: Instance, measured: Mapping[str, Any]) -> None:
        """A measurement that a plugin reports, told as an event of the host's."""
        if self._in_time(instance):
            self.publish("plugin.metric", {"instance": instance.id, **measured}, source=instance.id)

    # inside -------------------------------------------------------------------------------------------------------

    def _in_time(self, instance: Instance) -> bool:
        """Whether an instance's event comes no faster than any may; what does is dropped, and that is told."""
        if not self._event_rates.wait_s(instance.id, self._clock.monotonic_s()):
            return True
        words = f"it publishes more than {EVENTS_PER_S} events a second"
        instance.logbook.write("warning", "host", f"an event was dropped: {words}")
        instance.trail.note(Action.LIMIT_HIT, words, allowed=False, actor=Actor.PLUGIN, limit="events")
        return False

    def _provider(self, instance_id: str) -> InstanceProvider:
        entry = self._instances.get(instance_id)
        if entry is None:
            known = ", ".join(sorted(self._instances)) or "none"
            raise Misuse(f"no instance {instance_id!r} is loaded (loaded: {known})", code="unknown_instance")
        return entry[0]

    def _providing(self, point: ExtensionPoint) -> list[Provider]:
        walled: list[Provider] = [
            provider
            for provider, provides in self._instances.values()
            if point.ref in provides and _callable_now(provider.instance) and _complete(provider.instance, point)
        ]
        local: list[Provider] = list(self._local.get(point.ref, ()))
        ranked = sorted([*walled, *local], key=lambda provider: (provider.priority, provider.info.instance))
        return ranked[:1] if point.exclusive else ranked


def _check_pattern(instance: Instance, pattern: object, held: int) -> None:
    label = instance.blueprint.label
    if not isinstance(pattern, str) or not _PATTERN.fullmatch(pattern):
        raise Misuse(
            f"{label} cannot subscribe to {str(pattern)[:100]!r}: expected a pattern of event names such as cost.*",
            code="invalid_params",
            plugin=instance.blueprint.plugin,
        )
    if held >= PATTERNS_MAX:
        raise Misuse(
            f"{label} cannot subscribe to {pattern!r}: it has {held} patterns already, the most for one instance",
            code="invalid_params",
            hint="a pattern may match many events: cost.*",
            plugin=instance.blueprint.plugin,
        )


def _may_hear(instance: Instance, event: Event) -> Decision:
    """The host's own events tell of other plugins, their errors and figures: those need a capability."""
    if not event.name.startswith(_HOST_EVENTS):
        return _OPEN_TO_ALL
    data: Any = event.data
    own = isinstance(data, Mapping) and cast(Mapping[str, Any], data).get("instance") == instance.id
    return _OPEN_TO_ALL if own else decide(_OBSERVE_PLUGINS, instance.blueprint.grants)


def _callable_now(instance: Instance) -> bool:
    return instance.state is PluginState.ACTIVE or instance.recovering


def _complete(instance: Instance, point: ExtensionPoint) -> bool:
    description = instance.description
    return description is None or not check_provider(point, description.method_names())
