"""`PluginManager`: what an embedder imports. It composes the parts, and tells the story of each command.

Use it as an asynchronous context manager, from one event loop; several may live in one program, and several programs
may share one state folder.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self, TypeVar, cast

from cardcage.audit import NO_AUDIT, Action, Actor, Auditor
from cardcage.audit.writer import AuditWriter
from cardcage.broker import Broker, HookOutcome, Outcome, PluginInfo, ServiceTable, Tool
from cardcage.broker.events import Callback
from cardcage.contracts import extension_point_of
from cardcage.contracts.pack import Pack
from cardcage.egress import EgressCount, EgressEvent, Gateway, Verdict
from cardcage.foundation.errors import CardcageError, Misuse, Refused
from cardcage.launch.runner import Runner
from cardcage.manager.given import Given
from cardcage.manager.health_checks import check_health
from cardcage.manager.home import Home, default_state_dir
from cardcage.manager.live_instances import LiveInstances, warn_unconfined
from cardcage.manager.notes import note_grants, note_rejected, noting_calls, noting_excess
from cardcage.manager.planning import PROCESS, UNCONFINED, Asked, parse_grants, path_of
from cardcage.manager.policy_source import ENVIRONMENT_VARIABLE, PolicySource
from cardcage.manager.roster import Roster
from cardcage.manager.settings import HostSettings, read_settings
from cardcage.manager.startup import start_enabled
from cardcage.manager.views import PluginView, Problem, view_of
from cardcage.policy import Level, Policy, PolicyDecision
from cardcage.registry import InstanceRecord, Store, instance_id
from cardcage.registry.discovery import MemoryCache, discover
from cardcage.registry.resolve import dependents
from cardcage.runtime import Instance, InstanceHealth, LogLine, RuntimePolicy, SystemClock
from cardcage.runtime.warden import InstanceUsage
from cardcage.sandbox.plan import SandboxPlan
from cardcage.sandbox.report import EnforcementReport, MachineReport
from cardcage.services import DataQuota, PluginDataStore, Shelf, offer_own
from cardcage.storage import SqlShelf
from cardcage.supervise import PluginState

T = TypeVar("T")


class PluginManager:
    """Discovers, verifies, registers, starts, calls and stops plugins."""

    def __init__(
        self,
        config: Mapping[str, Any] | None = None,
        *,
        plugin_paths: Iterable[str | os.PathLike[str]] = (),
        state_dir: str | os.PathLike[str] | None = None,
        grants: Mapping[str, Iterable[str]] | None = None,
        extension_points: Iterable[type] = (),
        packs: Iterable[Pack] | None = None,
        isolation: str = PROCESS,
        auto_start: bool = True,
        policy: Policy | Level | str | os.PathLike[str] | RuntimePolicy | None = None,
        deadlines: RuntimePolicy | None = None,
        environment: str | None = None,
        store: Store | None = None,
        audit: Auditor | bool | None = None,
        data_quota: DataQuota | None = None,
    ) -> None:
        """Nothing is read or started before the manager is entered.

        `config` is the host configuration, whose keys docs/reference/host-configuration.md lists. `grants` gives each
        plugin, by name, permissions in their text form, such as `"read:/srv/bill.csv"`. `isolation="unconfined"` takes
        the walls away from every plugin, and warns; `"container"` and `"vm"` are stronger walls. With `auto_start` all
        enabled plugins found in `plugin_paths` are started on entry.

        `policy` is a level (`"strict"`, `"standard"`, `"permissive"`), the path of a policy file, which is read again
        at each start, or a `Policy`; `environment` is what rules of it may ask for, such as `"production"`.
        `deadlines` are those of every instance, with how it is restarted (`policy` takes them, too, for programs that
        know them by that name).

        Every decision is recorded in the audit log of the state folder, or by the `audit` that is given; False, or
        `audit: false` in the configuration, records nothing. `data_quota` bounds what one plugin may keep in the data
        store.
        """
        self._settings: HostSettings = read_settings(config)
        self._paths = [*self._settings.plugin_paths, *map(path_of, plugin_paths)]
        self._state_dir = path_of(state_dir) if state_dir is not None else None
        self._auto_start = auto_start and self._settings.auto_load
        if isinstance(policy, RuntimePolicy):
            deadlines, policy = policy, None
        self._given = Given(
            settings=self._settings,
            granted={
                plugin: parse_grants(texts, subject=f'the list of grants of plugin "{plugin}"')
                for plugin, texts in (grants or {}).items()
            },
            extension_points=tuple(extension_points),
            packs=tuple(packs) if packs is not None else None,
            isolation=isolation,
            deadlines=deadlines or RuntimePolicy(),
            policy=policy,
            environment=environment or self._settings.environment or os.environ.get(ENVIRONMENT_VARIABLE) or "",
            store=store,
            audit=self._settings.audit if audit is None else audit,
        )
        self._clock = SystemClock()
        self._open: _Open | None = None
        self._cache = MemoryCache()
        self._health_checks: asyncio.Task[None] | None = None
        self._problems: dict[str, Problem] = {}
        self._found: set[str] = set()
        self._auditor: Auditor = NO_AUDIT
        self._services = ServiceTable(
            on_decision=noting_calls(lambda: self._auditor), on_excess=noting_excess(lambda: self._auditor)
        )
        self._broker = Broker(services=self._services, clock=self._clock)
        self._services.register("cardcage.subscribe", self._subscribe_plugin, capability=None)
        self._data_quota = data_quota or DataQuota()
        self._data_store = PluginDataStore(self._open_shelf, quota_of=self._quota_of)
        offer_own(self._services, self._broker, self._data_store, lambda instance: self._live.get(instance))

    # opening and closing ------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        try:
            self._open = await self._begin()
            if self._paths:
                await self.discover_plugins()
            if self._auto_start:
                await start_enabled(self._found, self._roster, start=self.start_instance, tell=self._problem)
            interval_s = self._settings.health_check_interval_s
            if interval_s is not None:
                self._health_checks = asyncio.create_task(check_health(self._live, self._broker, interval_s))
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop every plugin, dependents before what they depend on, and let go of everything. Harmless twice."""
        if self._health_checks is not None:
            self._health_checks.cancel()
            await asyncio.gather(self._health_checks, return_exceptions=True)
            self._health_checks = None
        open_, self._open = self._open, None
        try:
            if open_ is not None:
                await open_.live.aclose()
        finally:
            await self._broker.bus.aclose()
            await self._data_store.aclose()
            if open_ is not None and self._given.store is None:
                open_.roster.store.close()
            auditor, self._auditor = self._auditor, NO_AUDIT
            if isinstance(auditor, AuditWriter) and auditor is not self._given.audit:
                await asyncio.to_thread(auditor.close)

    async def _begin(self) -> _Open:
        home = Home.open(self._state_dir or default_state_dir())
        self._auditor = await self._given.choose_auditor(home, self._clock)
        roster = await self._given.open_roster(
            home, auditor=self._auditor, clock=self._clock, capabilities=lambda: self._services.capabilities
        )
        if self._given.isolation == UNCONFINED:
            warn_unconfined("every plugin")
        gateway = Gateway(secrets=self._settings.secrets, authority=home.authority, ca_file=self._settings.ca_file)
        return _Open(roster=roster, live=LiveInstances(roster, self._broker, self, self._clock, gateway))

    @property
    def audit(self) -> Auditor:
        """Where decisions are recorded while the manager is open; also for what the embedding program decides."""
        return self._auditor

    # plugins ------------------------------------------------------------------------------------------------------

    async def discover_plugins(self) -> list[PluginView]:
        """Look through the plugin paths, register what is new or changed, and list every plugin that is there.

        A broken package never stops the others: `problems()` tells what is wrong with it.
        """
        found = await asyncio.to_thread(discover, self._paths, cache=self._cache)
        self._problems = {}
        for each in found.rejected:
            assert each.fault is not None
            self._problem(each.package_dir, each.fault)
            note_rejected(self._auditor, each.package_dir, each.fault)
        for each in found.shadowed:
            self._problem(
                each.package_dir,
                Misuse(f'plugin "{each.name}" was found in {each.shadowed_by} first, so this one is passed over'),
            )
        for release, refusal in await asyncio.to_thread(self._roster.register, found.releases):
            self._problem(release.package_dir, refusal)
        self._found = {release.manifest.name for release in found.releases}
        return [self.plugin_info(name) for name in sorted(self._found)]

    async def register_plugin(self, path: str | os.PathLike[str], *, allow_older: bool = False) -> PluginView:
        """Verify one package and register it, or leave everything as it was and say why.

        A release that is older than the registered one is refused (code `older_release`) without `allow_older`.
        """
        return self.plugin_info(await self._roster.register_path(path, allow_older=allow_older))

    async def load_plugin(self, plugin_name: str) -> bool:
        """Bring a plugin's default instance up to LOADED: process, walls, import, config, initialize.

        `plugin_name` is a registered plugin or the path of a package, which is registered first. True when it is
        loaded; every failure is an error that says what was expected and found.
        """
        name = await self._roster.known(plugin_name)
        await self._live.load(self._roster.default_record(name))
        return True

    async def start_plugin(self, plugin_name: str) -> bool:
        """Start a plugin's default instance, what it depends on first; loads what is not loaded."""
        name = await self._roster.known(plugin_name)
        resolution = self._roster.resolution()
        if name in resolution.problems:
            raise Refused(
                f'plugin "{name}" cannot start: it {"; it ".join(resolution.problems[name])}',
                code="dependencies_unmet",
                plugin=name,
            )
        for each in self._roster.needed_first(name, resolution):
            await self.start_instance(each)
        return True

    async def stop_plugin(self, plugin_name: str) -> bool:
        """Take all instances of a plugin to INACTIVE, and first those of the plugins that depend on it."""
        name = self._roster.installed(plugin_name).name
        for each in dependents(name, self._roster.nodes()) or (name,):
            for instance in self._live.of(each):
                if instance.state is PluginState.ACTIVE:
                    await self.stop_instance(instance.id)
        return True

    async def unload_plugin(self, plugin_name: str) -> bool:
        """End every process of a plugin, after those of the plugins that depend on it."""
        name = self._roster.installed(plugin_name).name
        for each in dependents(name, self._roster.nodes()) or (name,):
            for instance in self._live.of(each):
                await self._live.forget(instance)
        return True

    async def remove_plugin(self, plugin_name: str) -> None:
        """Unload a plugin and take it out of the registry. Its data folder stays."""
        await self.unload_plugin(plugin_name)
        self._roster.remove(self._roster.installed(plugin_name).name)

    def get_plugin_status(self, plugin_name: str) -> PluginState:
        """The state of a plugin's default instance."""
        name = self._roster.installed(plugin_name).name
        instance = self._live.find(name)
        return instance.state if instance else PluginState.UNLOADED

    def list_plugins(self) -> list[str]:
        """The names of all registered plugins."""
        return self._roster.names()

    def plugin_info(self, plugin_name: str) -> PluginView:
        """Everything known about one plugin: manifest, digest, state, instances, permissions and problem."""
        plugin = self._roster.installed(plugin_name)
        return view_of(
            plugin,
            priority=self._roster.priority(plugin),
            enabled=self._roster.enabled(plugin),
            provides=self._roster.provides(plugin),
            instances=self._live.of(plugin.name),
        )

    def problems(self) -> list[Problem]:
        """Packages that could not be registered and plugins that could not be started, each with its error."""
        return list(self._problems.values())

    # instances ----------------------------------------------------------------------------------------------------

    async def create_instance(
        self,
        plugin: str,
        config: Mapping[str, Any] | None = None,
        *,
        label: str | None = None,
        grants: Iterable[str] = (),
    ) -> str:
        """Remember an instance of a plugin with its own config and grants; returns its id. Nothing is started.

        Raises `InvalidDocument` for a wrong config, `Refused` for a permission that it needs and was not granted, and
        `Misuse` where the id is taken.
        """
        name = await self._roster.known(plugin)
        record = InstanceRecord(
            id=instance_id(name, label), plugin=name, label=label, config=dict(config or {}), grants=tuple(grants)
        )
        # Decided once before it is remembered, so that a wrong config or a missing grant is told here.
        await asyncio.to_thread(self._roster.blueprint, record, audited=True)
        self._roster.remember(record, only_new=label is not None)
        trail = self._roster.trail(self._roster.installed(name), record)
        trail.note(Action.INSTANCE_CREATED, "its config and grants were remembered", actor=Actor.OPERATOR)
        note_grants(trail, record.grants, source="operator")
        return str(record.id)

    async def start_instance(self, instance: str) -> None:
        """Load an instance where it is not loaded, and start it."""
        live = self._live.find(instance)
        if live is None or live.state in (PluginState.UNLOADED, PluginState.ERROR):
            live = await self._live.load(self._roster.record(instance))
        if live.state is not PluginState.ACTIVE:
            await live.start()
        self._broker.listen(live)

    async def stop_instance(self, instance: str) -> None:
        """Take an active instance to INACTIVE; its process stays."""
        await self._live.get(instance).stop()

    async def unload_instance(self, instance: str) -> None:
        """End an instance's process."""
        live = self._live.find(instance)
        if live is not None:
            await self._live.forget(live)

    async def remove_instance(self, instance: str) -> None:
        """Unload an instance and forget its config. Its data folder stays."""
        record = self._roster.record(instance)
        await self.unload_instance(instance)
        self._roster.forget(record)

    async def get_instance_health(self, instance: str) -> dict[str, Any]:
        """What the host sees of an instance and what the plugin says of itself."""
        return (await self.health(instance)).to_json()

    async def health(self, instance: str) -> InstanceHealth:
        """The same as data."""
        return await self._live.get(instance).health()

    def list_instances(self) -> list[InstanceRecord]:
        """Every instance that is remembered."""
        return list(self._roster.store.instances())

    def logs(self, instance: str) -> list[LogLine]:
        """The last lines that an instance logged or printed, and the host's own notes about it."""
        return self._live.get(instance).logbook.lines()

    def plan(self, instance: str) -> SandboxPlan:
        """The walls that an instance has, or would have if it were started now."""
        live = self._live.find(instance)
        blueprint = live.blueprint if live else self._roster.blueprint(self._roster.record(instance))
        return blueprint.spec.plan

    def report(self, instance: str) -> EnforcementReport | None:
        """Which walls really stand around the running process; None while none runs."""
        return self._live.get(instance).report

    def wrap_runner(self, isolation: str, wrap: Callable[[Runner], Runner]) -> None:
        """Put something around the runner of an isolation: before anything of that isolation is started."""
        self._live.wrap_runner(isolation, wrap)

    def capability_of(self, service: str) -> str | None:
        """The capability that a registered service stands behind."""
        return self._services.capability_of(service)

    def policy(self) -> PolicySource:
        """Where the policy comes from, and what it says now."""
        return self._roster.planner.judge.source

    def judge(self, instance: str) -> PolicyDecision:
        """What the policy says of an instance, as it would be started now."""
        return self._roster.judge(self._roster.record(instance))

    def egress(self, instance: str) -> Sequence[EgressCount]:
        """Connections and bytes of the running process, for each endpoint that was granted to it."""
        return self._live.get(instance).egress

    def usage(self, instance: str) -> InstanceUsage:
        """What a running instance uses and has run into. Raises `Misuse` where it does not run now."""
        used = self._live.get(instance).usage()
        if used is None:
            raise Misuse(f"instance {instance!r} has no process now, so it uses nothing", code="not_running")
        return used

    def usage_all(self) -> dict[str, InstanceUsage]:
        """The same of every instance that runs. Some ten microseconds each where control groups count it."""
        found = {each.id: each.usage() for each in self._live}
        return {instance: used for instance, used in found.items() if used is not None}

    def permissions(self, instance: str) -> Asked:
        """What an instance asks for, and what of it is granted."""
        return self._roster.asked(self._roster.record(instance))

    def machine(self) -> MachineReport:
        """What this machine can enforce, found by trying each layer; takes some tens of milliseconds."""
        from cardcage.sandbox.doctor import examine  # only the doctor's own commands need it

        return examine()

    # calls, hooks, events -----------------------------------------------------------------------------------------

    def providers(self, point: type[T]) -> list[T]:
        """Typed proxies of all active providers of an extension point, by priority; each has `.plugin`.

        A plugin that claims to provide it and lacks a method is left out, and told of in `problems()`.
        """
        described = extension_point_of(point)
        for info, missing in self._broker.broken_providers(described):
            error = Misuse(f'plugin "{info.name}" {info.version} cannot be called as {described.ref}: {missing}')
            self._problem(info.instance, error)
        return cast(list[T], self._broker.providers(described))

    def provider(self, point: type[T], name: str) -> T:
        """The proxy of one plugin or instance. Raises `Misuse` where it does not provide the extension point."""
        found = self.providers(point)
        for proxy in found:
            info: PluginInfo = cast(Any, proxy).plugin
            if name in (info.instance, info.name):
                return proxy
        known = ", ".join(cast(Any, proxy).plugin.instance for proxy in found) or "none"
        raise Misuse(
            f"{name!r} is not an active provider of {extension_point_of(point).ref} (active: {known})",
            code="unknown_provider",
        )

    def provide(self, point: type, implementation: Any, *, name: str = "host", priority: int = 50) -> None:
        """Let the host's own trusted code provide an extension point, in process, under the same broker."""
        self._broker.provide(extension_point_of(point), implementation, name=name, priority=priority)

    async def call(self, instance: str, method: str, *args: Any, timeout_s: float | None = None) -> Any:
        """Call a public method of a plugin by name; arguments and result are plain data."""
        if method.startswith("cardcage."):
            raise Misuse(f"{method} is the platform's own, and is not called by name", code="reserved_method")
        return await self._broker.call(instance, method, list(args), timeout_s=timeout_s)

    async def call_all(self, point: type, method: str, *args: Any, **kwargs: Any) -> list[Outcome]:
        """Call one method of all active providers of an extension point; one outcome each."""
        return await self._broker.call_all(extension_point_of(point), method, args, kwargs)

    async def run_hook(self, name: str, context: Any, *, timeout_s: float | None = None) -> HookOutcome:
        """Run the ordered chain of a hook over all active plugins."""
        return await self._broker.run_hook(name, context, timeout_s=timeout_s)

    async def tools(self) -> list[Tool]:
        """The tools that active plugins offer to agents."""
        return self._broker.tools()

    async def call_tool(
        self, name: str, arguments: Mapping[str, Any], *, plugin: str | None = None, timeout_s: float | None = None
    ) -> Any:
        """Run a tool by name with its arguments; `plugin` names the instance where several offer it."""
        return await self._broker.call_tool(name, arguments, instance_id=plugin, timeout_s=timeout_s)

    async def broadcast_event(self, event_type: str, data: Mapping[str, Any]) -> None:
        """Hand an event to every active plugin's `handle_event`, and to the host's subscribers."""
        await self._broker.broadcast(event_type, dict(data))

    def publish(self, event_type: str, data: Any) -> int:
        """Publish an event to those who subscribed, and return at once; returns how many they are."""
        return self._broker.publish(event_type, data)

    def subscribe(self, pattern: str, callback: Callback) -> Callable[[], None]:
        """See every event whose name matches `pattern` (`plugin.*`); returns the way to end it."""
        return self._broker.subscribe(pattern, callback)

    def register_service(self, name: str, handler: Callable[..., Any], *, capability: str | None) -> None:
        """Offer a method to plugins under `api_client`, behind a capability that must be granted (None: to all)."""
        self._services.register(name, handler, capability=capability)

    def offer_service(self, declared: type, implementation: object) -> None:
        """Offer a typed service to plugins: a Protocol declared with `@service`, and what answers its methods.

        Each method of the implementation is given the caller's `PluginInfo` before its arguments, which have been held
        against their declared types.
        """
        self._services.offer(declared, implementation)

    # what instances need (InstanceHost) ---------------------------------------------------------------------------

    async def call_from(self, instance: Instance, method: str, args: Any) -> Any:
        return await self._services.call(self._broker.info(instance.id), instance.blueprint.grants, method, args)

    def event_from(self, instance: Instance, name: str, data: Any) -> None:
        self._broker.publish_from(instance, name, data)

    def metric_from(self, instance: Instance, name: str, kind: str, value: float, tags: Mapping[str, str]) -> None:
        self._broker.measure_from(instance, {"name": name, "kind": kind, "value": value, "tags": dict(tags)})

    def lifecycle_event(self, instance: Instance, name: str, data: Mapping[str, Any]) -> None:
        self._broker.publish(name, dict(data))

    def egress_event(self, instance: Instance, event: EgressEvent) -> None:
        if event.verdict is Verdict.REFUSED:
            data = {"plugin": event.plugin, "instance": event.instance, "endpoint": event.endpoint}
            self._broker.publish("plugin.egress_refused", {**data, "reason": event.reason})

    # inside -------------------------------------------------------------------------------------------------------

    def _quota_of(self, plugin: str) -> DataQuota:
        return replace(self._data_quota, **self._settings.of(plugin).data_quota)

    def _open_shelf(self) -> Shelf:
        return SqlShelf(self._roster.planner.home.registry)

    def _subscribe_plugin(self, caller: PluginInfo, pattern: str) -> None:
        self._broker.subscribe_instance(self._live.get(caller.instance), pattern)

    def _opened(self) -> _Open:
        if self._open is None:
            raise Misuse(
                "the plugin manager is not open",
                code="not_open",
                hint="use it as `async with PluginManager(...) as manager:`",
            )
        return self._open

    @property
    def _roster(self) -> Roster:
        return self._opened().roster

    @property
    def _live(self) -> LiveInstances:
        return self._opened().live

    def _problem(self, path: object, error: CardcageError) -> None:
        problem = Problem.of(path, error)
        self._problems[problem.path] = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """What a manager has while it is open."""

    roster: Roster
    live: LiveInstances
