"""What is registered and remembered, seen through the operator's settings and grants.

It answers questions and writes to the store; it starts nothing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from cardcage.audit import NO_AUDIT, NO_TRAIL, Action, Actor, Auditor, Trail, fields_of, reason_of, refusal_of
from cardcage.foundation.clock import Clock
from cardcage.foundation.errors import CardcageError, Misuse, Refused
from cardcage.foundation.names import InstanceId, InterfaceRef
from cardcage.manager.judging import Wish
from cardcage.manager.notes import note_registered, note_rejected
from cardcage.manager.planning import Asked, Planner, chosen_isolation, parse_grants, path_of, provided_points
from cardcage.manager.settings import HostSettings
from cardcage.permissions import Grants, expand
from cardcage.policy import PolicyDecision
from cardcage.registry import InstalledPlugin, InstanceRecord, PutInstance, RemoveInstance, Store
from cardcage.registry.registration import older_release, prepare, register, unregister
from cardcage.registry.resolve import Need, Node, Resolution, node_of, resolve
from cardcage.runtime import Blueprint
from cardcage.trust import VerifiedRelease, verify


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The plugins and instances of one manager. `granted` is what the embedder gave to each plugin by name."""

    store: Store
    settings: HostSettings
    granted: Mapping[str, Grants]
    planner: Planner
    isolation: str
    clock: Clock
    auditor: Auditor = NO_AUDIT

    # plugins ------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """The names of all registered plugins."""
        return [plugin.name for plugin in self.store.plugins()]

    def installed(self, name: str) -> InstalledPlugin:
        """The registered plugin of that name, or of the instance of that id. Raises `Misuse` where there is none."""
        plugin = self.store.plugin(name.split("/", 1)[0])
        if plugin is None:
            known = ", ".join(self.names()) or "none"
            raise Misuse(
                f"no plugin {name!r} is registered (registered: {known})",
                code="unknown_plugin",
                hint="register it: load_plugin(PATH), or put its folder under a plugin path",
            )
        return plugin

    async def known(self, name_or_path: str) -> str:
        """The name of a registered plugin; a path is registered first."""
        if os.sep in name_or_path:
            return await self.register_path(name_or_path)
        return self.installed(name_or_path).name

    def register(
        self, releases: Sequence[VerifiedRelease], *, allow_older: bool = False
    ) -> list[tuple[VerifiedRelease, Refused]]:
        """Write what is new or changed in one commit; answers those that were not taken, being older, and why."""
        before = {plugin.name: plugin for plugin in self.store.plugins()}
        now_s = self.clock.wall_s()
        refused = [
            (release, refusal)
            for release in releases
            if not allow_older and (refusal := older_release(release, before.get(release.manifest.name)))
        ]
        passed_over = {id(release) for release, _ in refused}
        written = register(
            self.store,
            [
                prepare(release, now_s=now_s, before=before.get(release.manifest.name))
                for release in releases
                if id(release) not in passed_over
            ],
        )
        for plugin in written:
            note_registered(self.auditor, plugin, before.get(plugin.name))
        for release, refusal in refused:
            note_rejected(self.auditor, release.package_dir, refusal)
        return refused

    async def register_path(self, path: str | os.PathLike[str], *, allow_older: bool = False) -> str:
        """Verify and register one package; returns its name. Raises `Refused` for a release older than the last."""
        try:
            release = await asyncio.to_thread(verify, path_of(path))
        except CardcageError as error:
            note_rejected(self.auditor, path, error)
            raise
        for _, refusal in await asyncio.to_thread(lambda: self.register([release], allow_older=allow_older)):
            raise refusal
        return release.manifest.name

    def remove(self, name: str) -> None:
        """Take a plugin and its instances out of the registry."""
        gone = self.installed(name)
        unregister(self.store, name)
        self.trail(gone).note(
            Action.RELEASE_REMOVED, "it was taken out of the registry", actor=Actor.OPERATOR, digest=gone.digest
        )

    def provides(self, plugin: InstalledPlugin) -> tuple[InterfaceRef, ...]:
        """The extension points that a plugin provides."""
        return provided_points(plugin.manifest, self.planner.packs)

    def priority(self, plugin: InstalledPlugin) -> int:
        """The operator's priority for a plugin, or else the registered one."""
        return self.settings.of(plugin.name).priority or plugin.priority

    def enabled(self, plugin: InstalledPlugin) -> bool:
        """Whether neither the registry nor the operator's settings disable a plugin."""
        return plugin.enabled and self.settings.of(plugin.name).enabled

    def note_disabled(self, names: Iterable[str]) -> None:
        """Record which of these plugins an operator keeps from being started."""
        for name in names:
            plugin = self.installed(name)
            if not self.enabled(plugin):
                whom = "the registry" if not plugin.enabled else "the configuration"
                self.trail(plugin).note(Action.RELEASE_DISABLED, f"{whom} disables it", actor=Actor.OPERATOR)

    # instances ----------------------------------------------------------------------------------------------------

    def default_record(self, name: str) -> InstanceRecord:
        """The record of a plugin's default instance; where none is remembered, the one that its settings make."""
        record = self.store.instance(InstanceId(name))
        if record is not None:
            return record
        return InstanceRecord(id=InstanceId(name), plugin=name, config=dict(self.settings.of(name).config))

    def record(self, instance: str) -> InstanceRecord:
        """The record of an instance. Raises `Misuse` where there is none."""
        record = self.store.instance(InstanceId(instance))
        if record is not None:
            return record
        if "/" not in instance:
            return self.default_record(self.installed(instance).name)
        known = ", ".join(str(each.id) for each in self.store.instances()) or "none"
        raise Misuse(f"there is no instance {instance!r} (there are: {known})", code="unknown_instance")

    def remember(self, record: InstanceRecord, *, only_new: bool = False) -> InstanceRecord:
        """Write an instance; returns it as it was written, with its user id."""
        self.store.commit(PutInstance(record=record, only_new=only_new))
        return self.store.instance(record.id) or record

    def forget(self, record: InstanceRecord) -> None:
        """Take an instance out of the registry, where it is remembered at all."""
        if self.store.instance(record.id) is not None:
            self.store.commit(RemoveInstance(id=record.id))
            self.trail(self.installed(record.plugin), record).note(
                Action.INSTANCE_REMOVED, "its config and grants were forgotten", actor=Actor.OPERATOR
            )

    def asked(self, record: InstanceRecord) -> Asked:
        """What an instance asks for, and what of it is granted."""
        plugin = self.installed(record.plugin)
        return self.planner.asked(plugin, record, grants=self._grants(record), wish=self.wish(plugin))

    def blueprint(self, record: InstanceRecord, *, audited: bool = False) -> Blueprint:
        """Decide everything about an instance; see `Planner.blueprint` for what it refuses.

        `audited` says that something will come of it, so that the decisions are recorded: a look at a plan is none.
        """
        plugin = self.installed(record.plugin)
        trail = self.trail(plugin, record) if audited else NO_TRAIL
        try:
            return self.planner.blueprint(
                plugin,
                record,
                grants=self._grants(record),
                wish=self.wish(plugin),
                priority=self.priority(plugin),
                credentials=self.settings.of(plugin.name).credentials,
                trail=trail,
            )
        except CardcageError as error:
            trail.note(refusal_of(error), reason_of(error), allowed=False, **fields_of(error))
            raise

    def trail(self, plugin: InstalledPlugin, record: InstanceRecord | None = None) -> Trail:
        """Where to record what concerns a plugin, or one of its instances."""
        return Trail(
            auditor=self.auditor,
            plugin=plugin.name,
            version=plugin.version,
            instance=str(record.id) if record is not None else "",
        )

    def wish(self, plugin: InstalledPlugin) -> Wish:
        """The isolation that was chosen for a plugin: by its name, or else for all of this manager."""
        own = self.settings.of(plugin.name).isolation
        return Wish(isolation=chosen_isolation(plugin.manifest, own, self.isolation), named=own is not None)

    def judge(self, record: InstanceRecord) -> PolicyDecision:
        """What the policy says of an instance; it is asked about even where it is refused."""
        plugin = self.installed(record.plugin)
        requests = expand(plugin.manifest.permissions, record.config)
        judge = self.planner.judge
        return judge.judge(judge.subject(plugin, record, requests, self.wish(plugin)))

    def _grants(self, record: InstanceRecord) -> Grants:
        texts = [*record.grants, *self.settings.of(record.plugin).grants]
        own = parse_grants(texts, subject=f'the list of grants of instance "{record.id}"')
        return own | self.granted.get(record.plugin, Grants())

    # orders -------------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """What resolving has to know of every registered plugin, the operator's settings applied."""
        nodes: list[Node] = []
        for plugin in self.store.plugins():
            node = node_of(plugin)
            more = (Need(name=name) for name in self.settings.of(plugin.name).dependencies)
            nodes.append(
                replace(
                    node,
                    priority=self.priority(plugin),
                    enabled=self.enabled(plugin),
                    needs=(*node.needs, *more),
                )
            )
        return nodes

    def resolution(self) -> Resolution:
        """The start order of everything registered, and what cannot start."""
        return resolve(self.nodes())

    def needed_first(self, name: str, resolution: Resolution) -> list[str]:
        """`name` after everything that it needs, directly or not, in start order."""
        needs = _needs(self.nodes())
        wanted, waiting = {name}, [name]
        while waiting:
            for needed in needs.get(waiting.pop(), ()):
                if needed not in wanted:
                    wanted.add(needed)
                    waiting.append(needed)
        return [each for each in resolution.order if each in wanted] or [name]

    def stop_groups(self, running: Collection[str]) -> list[set[str]]:
        """Plugins in groups: those of one group may stop together, and none is needed by a later group's."""
        needs = {name: set(needed).intersection(running) for name, needed in _needs(self.nodes()).items()}
        left, groups = set(running), list[set[str]]()
        while left:
            needed_still = {needed for name in left for needed in needs.get(name, ()) if needed != name}
            # Where all that is left waits for each other there is no order to keep.
            group = left - needed_still or left
            groups.append(set(group))
            left = left - group
        return groups


def _needs(nodes: Sequence[Node]) -> dict[str, list[str]]:
    return {node.name: [need.name for need in node.needs] for node in nodes}
