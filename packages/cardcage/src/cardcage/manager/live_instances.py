"""The instances that are loaded now: brought up one at a time each, found by id, and put away."""

from __future__ import annotations

import asyncio
import contextlib
import random
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from cardcage.audit import Action, Actor, Trail
from cardcage.broker import Broker
from cardcage.egress import Gateway
from cardcage.foundation.clock import Clock
from cardcage.foundation.errors import Misuse
from cardcage.launch.container import ContainerRunner
from cardcage.launch.runner import Runner
from cardcage.launch.unconfined import UnconfinedRunner
from cardcage.launch.vm.runner import VmRunner
from cardcage.launch.zygote import ZygoteRunner
from cardcage.manager.judging import note_applied
from cardcage.manager.notes import noting_certificates
from cardcage.manager.packs import library_dirs
from cardcage.manager.planning import CONTAINER, UNCONFINED, VM
from cardcage.manager.roster import Roster
from cardcage.registry import InstanceRecord
from cardcage.runtime import Blueprint, Instance
from cardcage.runtime.host import InstanceHost
from cardcage.runtime.limited import LimitedRunner
from cardcage.runtime.warden import Warden
from cardcage.sandbox.group_search import GroupsFound, find_groups
from cardcage.supervise import PluginState

if TYPE_CHECKING:
    from cardcage.launch.link import Links


class UnconfinedWarning(UserWarning):
    """A plugin runs without walls because the operator asked for it."""


class PolicyWarning(UserWarning):
    """The policy lets a plugin start, and warns of it."""


class LiveInstances:
    """Every loaded instance of one manager, and the runners that start their processes."""

    def __init__(self, roster: Roster, broker: Broker, host: InstanceHost, clock: Clock, gateway: Gateway) -> None:
        self._roster = roster
        self._broker = broker
        self._host = host
        self._clock = clock
        self._by_id: dict[str, Instance] = {}
        self._runners: dict[str, Runner] = {}
        self._gateway = gateway
        self._busy: dict[str, asyncio.Lock] = {}
        self._groups: GroupsFound | None = None
        self._warden = Warden()
        self._own_links: Links | None = None

    def __iter__(self) -> Iterator[Instance]:
        return iter(tuple(self._by_id.values()))

    def find(self, instance: str) -> Instance | None:
        """The loaded instance with that id."""
        return self._by_id.get(instance)

    def get(self, instance: str) -> Instance:
        """The loaded instance with that id. Raises `Misuse` where it is not loaded."""
        live = self._by_id.get(instance)
        if live is None:
            known = ", ".join(sorted(self._by_id)) or "none"
            raise Misuse(f"instance {instance!r} is not loaded (loaded: {known})", code="not_loaded")
        return live

    def of(self, plugin: str) -> list[Instance]:
        """All loaded instances of one plugin."""
        return [each for each in self if each.blueprint.plugin == plugin]

    async def load(self, record: InstanceRecord) -> Instance:
        """The instance, loaded: as it is where it lives already, else planned and brought up anew."""
        async with self._busy.setdefault(str(record.id), asyncio.Lock()):
            old = self.find(str(record.id))
            if old is not None and old.state not in (PluginState.UNLOADED, PluginState.ERROR):
                return old
            blueprint = await self._plan(record)
            if old is not None:
                await self.forget(old)
            return await self._bring_up(blueprint)

    async def forget(self, instance: Instance) -> None:
        """End an instance's process and let go of it."""
        await instance.aclose()
        self._broker.remove(instance.id)
        if self._by_id.get(instance.id) is instance:
            del self._by_id[instance.id]

    async def aclose(self) -> None:
        """Stop everything, dependents before what they depend on, and end the runners.

        Cancelling it kills what is left: nothing outlives it in any case.
        """
        try:
            for group in self._roster.stop_groups({each.blueprint.plugin for each in self}):
                leaving = (each.aclose() for each in self if each.blueprint.plugin in group)
                await asyncio.gather(*leaving, return_exceptions=True)
        except BaseException:
            for each in self:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0):  # an unloading that is cut short kills
                        await each.aclose()
            raise
        finally:
            self._by_id.clear()
            for runner in self._runners.values():
                await runner.aclose()
            self._runners.clear()
            await self._warden.aclose()
            if self._groups is not None and self._groups.driver is not None:
                self._groups.driver.close()
            self._groups = None
            self._gateway.close()

    async def _plan(self, record: InstanceRecord) -> Blueprint:
        blueprint = await asyncio.to_thread(self._roster.blueprint, record, audited=True)
        if record.uid is not None:
            return blueprint
        # It was never remembered. The store gives it its user id, but only once it is known that it can be planned.
        record = await asyncio.to_thread(self._roster.remember, record)
        return await asyncio.to_thread(self._roster.blueprint, record)

    async def _bring_up(self, blueprint: Blueprint) -> Instance:
        isolation = blueprint.spec.plan.isolation
        if isolation == UNCONFINED and self._roster.isolation != UNCONFINED:
            warn_unconfined(blueprint.label)
        trail = Trail(
            auditor=self._roster.auditor,
            plugin=blueprint.plugin,
            version=blueprint.version,
            instance=str(blueprint.instance),
        )
        if isolation == UNCONFINED:
            trail.note(
                Action.INSTANCE_UNCONFINED,
                "the operator took every wall away",
                allowed=True,
                actor=Actor.OPERATOR,
                isolation=isolation,
            )
        _heed_policy(blueprint, trail)
        instance = Instance(
            blueprint,
            runner=self._runner(isolation),
            gateway=self._gateway,
            secrets=self._roster.settings.secrets,
            host=self._host,
            clock=self._clock,
            jitter=random.random,
            trail=trail,
        )
        self._by_id[instance.id] = instance
        plugin = self._roster.installed(blueprint.plugin)
        self._broker.add(instance, isolation=isolation, provides=self._roster.provides(plugin))
        await instance.load()
        return instance

    def _runner(self, isolation: str) -> Runner:
        runner = self._runners.get(isolation)
        if runner is None:
            if self._groups is None:
                self._groups = find_groups()  # not before something is started: other commands need none
            runner = self._runners[isolation] = self._make_runner(isolation, self._groups)
        return runner

    def _make_runner(self, isolation: str, groups: GroupsFound) -> Runner:
        planner = self._roster.planner
        if isolation == VM:
            # Its limits are the machine's own: what the host would measure is the machine with all that is in it.
            return VmRunner(
                links=self._links,
                cache_dir=planner.home.machines,
                libraries=library_dirs(planner.packs),
                groups=groups,
            )
        runner: Runner
        if isolation == UNCONFINED:
            runner = UnconfinedRunner(groups=groups)
        elif isolation == CONTAINER:
            runner = ContainerRunner(links=self._links, runtime=planner.container_runtime, groups=groups)
        else:
            runner = ZygoteRunner(links=self._links, groups=groups)
        return LimitedRunner(runner, self._warden, on_hit=self._on_limit_hit)

    def _links(self) -> Links:
        """What makes enciphered links; the manager's authority is made when the first is needed."""
        from cardcage.launch.link import Links  # what it stands on is not loaded before it is needed

        if self._own_links is None:
            issued = noting_certificates(self._roster.auditor)
            self._own_links = Links(self._roster.planner.home.authority(), issued=issued)
        return self._own_links

    def wrap_runner(self, isolation: str, wrap: Callable[[Runner], Runner]) -> None:
        """Put something around the runner of an isolation, before anything is started by it."""
        self._runners[isolation] = wrap(self._runner(isolation))

    def _on_limit_hit(self, instance: str, limit: str) -> None:
        live = self.find(instance)
        if live is not None:
            live.ran_into(limit)


def _heed_policy(blueprint: Blueprint, trail: Trail) -> None:
    """Record what the policy made of a start, and say what it warns of."""
    if (verdict := blueprint.verdict) is None:
        return
    note_applied(trail, verdict, blueprint.spec.plan.floor)
    for warning in verdict.warnings:
        warnings.warn(f"{blueprint.label}: {warning}", PolicyWarning, stacklevel=2)


def warn_unconfined(whom: str) -> None:
    """The warning that cannot be missed."""
    warnings.warn(
        f"{whom} runs UNCONFINED: without walls, with all rights of this user over files, network and processes",
        UnconfinedWarning,
        stacklevel=2,
    )
