"""What an embedding program gave its manager, and what is made of it when the manager is opened."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from cardcage.audit import NO_AUDIT, Auditor, Trail
from cardcage.audit.writer import open_auditor
from cardcage.contracts import index_points
from cardcage.contracts.pack import Pack
from cardcage.foundation.clock import Clock
from cardcage.manager.home import Home
from cardcage.manager.judging import Judge
from cardcage.manager.notes import note_grants
from cardcage.manager.packs import installed_packs
from cardcage.manager.planning import UNCONFINED, Planner
from cardcage.manager.policy_source import find_policy
from cardcage.manager.roster import Roster
from cardcage.manager.settings import HostSettings
from cardcage.manager.this_machine import this_machine
from cardcage.manager.trust_bundle import write_bundle
from cardcage.permissions import Grants
from cardcage.policy import Level, Policy
from cardcage.registry import Store
from cardcage.runtime import RuntimePolicy
from cardcage.sandbox.python_layout import find_python_layout
from cardcage.storage import SqlStore

LOGGER: Final = logging.getLogger("cardcage.manager")


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The configuration and the arguments of one manager, checked."""

    settings: HostSettings
    granted: Mapping[str, Grants]
    extension_points: tuple[type, ...]
    packs: tuple[Pack, ...] | None
    isolation: str
    deadlines: RuntimePolicy
    policy: Policy | Level | str | os.PathLike[str] | None
    environment: str
    store: Store | None
    audit: Auditor | bool

    async def choose_auditor(self, home: Home, clock: Clock) -> Auditor:
        """Where decisions are recorded: what was given, or the log in the host's folder."""
        if not isinstance(self.audit, bool):
            return self.audit
        if not self.audit:
            LOGGER.warning("auditing is switched off: decisions about plugins leave no record")
            return NO_AUDIT
        return await asyncio.to_thread(open_auditor, home.audit, wall_s=clock.wall_s)

    async def open_roster(
        self, home: Home, *, auditor: Auditor, clock: Clock, capabilities: Callable[[], Collection[str]]
    ) -> Roster:
        """The registry with the planner of its instances; records which grants come from where."""
        packs = self.packs if self.packs is not None else installed_packs()
        points = index_points([*self.extension_points, *(point for pack in packs for point in pack.extension_points)])
        source = find_policy(self.policy, self.settings.policy, home.root, unconfined=self.isolation == UNCONFINED)
        await asyncio.to_thread(source.current)  # a file that cannot be used is told here, and not at the first start
        planner = Planner(
            home=home,
            packs=packs,
            points=points,
            machine=this_machine(),
            python=find_python_layout(),
            policy=self.deadlines,
            judge=Judge(
                source=source,
                environment=self.environment,
                declared=capabilities,
                default_limits=self.settings.default_limits,
            ),
            hosts=self.settings.hosts,
            trust_file=lambda: write_bundle(home.trust_bundle, home.authority().ca_pem),
            container_runtime=self.settings.container_runtime,
            encrypt=self.settings.encrypt,
        )
        roster = Roster(
            store=self.store or await asyncio.to_thread(SqlStore, home.registry),
            settings=self.settings,
            granted=self.granted,
            planner=planner,
            isolation=self.isolation,
            clock=clock,
            auditor=auditor,
        )
        for name, given in self.granted.items():
            note_grants(Trail(auditor=auditor, plugin=name), given, source="embedding program")
        for name, own in self.settings.plugins.items():
            note_grants(Trail(auditor=auditor, plugin=name), own.grants, source="configuration")
        return roster
