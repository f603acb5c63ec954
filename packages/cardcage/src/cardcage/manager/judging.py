"""One instance before its policy: the facts put together, the judgement, and the refusal that names rule and place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

from cardcage.audit import Action, Trail
from cardcage.contracts.pack import Pack
from cardcage.foundation.errors import Refused
from cardcage.manager.policy_source import PolicySource
from cardcage.manager.settings import DEFAULT_LIMITS
from cardcage.manifest import Limits
from cardcage.manifest.gather import did_you_mean
from cardcage.permissions import Decision, Grants, Permission, PermissionKind, PermissionRequest, decide
from cardcage.policy import Denial, PolicyDecision, Subject, judge, subject_of
from cardcage.registry import InstalledPlugin, InstanceRecord
from cardcage.sandbox.mode import why_no_namespaces
from cardcage.sandbox.plan import FALLBACK_FLOOR
from cardcage.sandbox.report import LayerName, LayerStatus, MachineReport, Mode

UNCONFINED: Final = "unconfined"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What was chosen for an instance: its isolation, and whether the operator named this plugin when choosing it."""

    isolation: str
    named: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Holds instances against the policy that stands when they are started."""

    source: PolicySource
    environment: str = ""
    declared: Callable[[], Collection[str]] = frozenset
    """The capabilities that some pack or some service of the host stands behind, now."""
    default_limits: Limits = DEFAULT_LIMITS
    """What plugins get that ask for none, where no rule says otherwise."""
    examine: Callable[[], MachineReport] | None = None

    def subject(
        self, plugin: InstalledPlugin, record: InstanceRecord, requests: Sequence[PermissionRequest], wish: Wish
    ) -> Subject:
        """The facts about one instance."""
        return subject_of(
            plugin.manifest,
            tuple(requests),
            source=str(plugin.package_dir),
            digest=plugin.digest,
            isolation=wish.isolation,
            unconfined_named=wish.named,
            environment=self.environment,
            label=record.label or "",
            default_limits=self.default_limits,
        )

    def judge(self, subject: Subject) -> PolicyDecision:
        """What the policy says of it. Raises `Refused` where the policy's file cannot be used."""
        return judge(self.source.for_start(subject.words), subject)

    def floor(self, decision: PolicyDecision, machine: MachineReport, *, of_guest: bool = False) -> tuple[str, ...]:
        """The layers without which this machine starts nothing.

        What is wanted where it is possible is not asked of a virtual machine, whose kernel is another (`of_guest`).
        An ordinary user has no other uid to give away; root's own is the one that must not be kept. Where there are no
        namespaces and the policy allows to go on without, it is the fallback's floor and what the operator's own rules
        ask for.
        """
        falls_back = machine.mode is Mode.FALLBACK and decision.fallback
        wanted = [*FALLBACK_FLOOR, *decision.own_floor] if falls_back else list(decision.floor)
        if decision.floor_where_possible and not of_guest:
            seen = self._examined()
            wanted += [name for name in decision.floor_where_possible if seen.status(name) is LayerStatus.ENFORCED]
        return tuple(name for name in dict.fromkeys(wanted) if machine.uid == 0 or name != LayerName.OWN_UID)

    def undenied(self, subject: Subject, grants: Grants) -> Grants:
        """The grants that no denial of the policy speaks of: what is granted may open more than was asked for."""
        asked = tuple(PermissionRequest(permission=grant, optional=True) for grant in grants)
        refused = self.judge(replace(subject, requests=asked)).refused
        return Grants(grants.permissions - refused.keys())

    def _examined(self) -> MachineReport:
        return (self.examine or _examine_once)()


@cache
def _examine_once() -> MachineReport:
    """What this machine was seen to enforce; it takes some tens of milliseconds and does not change."""
    from cardcage.sandbox.doctor import examine

    return examine()


def decisions(
    requests: Sequence[PermissionRequest], grants: Grants, *, policy: PolicyDecision | None, declared: Collection[str]
) -> list[tuple[PermissionRequest, Decision]]:
    """Each request with the answer: what no one declares and what the policy takes away is not had by any grant."""
    return [(request, _decide(request.permission, grants, policy, declared)) for request in requests]


def _decide(
    permission: Permission, grants: Grants, policy: PolicyDecision | None, declared: Collection[str]
) -> Decision:
    if permission.kind is PermissionKind.CAPABILITY and permission.value not in declared:
        near = did_you_mean(permission.value, declared)
        words = "no installed pack and no service of this host declares it"
        return Decision(False, f"{permission.describe()} is unknown: {words}{near}")
    if policy is not None and permission in policy.refused:
        return Decision(False, policy.refused[permission])
    return decide(permission, grants | policy.grants if policy is not None else grants)


def declared_capabilities(packs: Sequence[Pack], of_services: Collection[str]) -> frozenset[str]:
    """The capabilities that a manifest may ask for on this host."""
    return frozenset(of_services).union(*(pack.capabilities for pack in packs))


def refuse_denied(subject: Subject, decision: PolicyDecision, trail: Trail) -> None:
    """Raise `Refused` where the policy is against a start, with the first rule, its place and every reason."""
    if decision.allowed:
        return
    first = decision.denials[0]
    for denial in decision.denials:
        _note(trail, decision, denial)
    raise Refused(
        f"{subject.words} was not started: {decision.reason}",
        reason=decision.reason,
        code=first.code,
        hint=first.hint or None,
        plugin=subject.plugin,
        version=subject.version,
        rule=first.rule or None,
        position=first.position or None,
        permissions=[denial.permission for denial in decision.denials if denial.permission] or None,
    )


def refuse_fallback(subject: Subject, decision: PolicyDecision, machine: MachineReport) -> None:
    """Raise `Refused` where this machine has the weaker wall alone and the policy does not accept it."""
    if machine.mode is not Mode.FALLBACK or decision.fallback:
        return
    raise Refused(
        f"{subject.words} was not started: this machine gives no namespaces ({why_no_namespaces()}), and the policy "
        f"({decision.source or f'level {decision.level}'}) does not accept the weaker wall that does without them",
        code="fallback_not_allowed",
        hint="allow user namespaces (`cardcage doctor` says how), or let a rule of the policy say `fallback: allow` "
        "after reading what that leaves open",
        plugin=subject.plugin,
        version=subject.version,
    )


_WHY_NAMESPACES: Final = {
    "container": "a container is made of namespaces",
    "vm": "QEMU is started behind the full walls, which are made of namespaces",
}


def refuse_without_namespaces(subject: Subject, isolation: str, machine: MachineReport) -> None:
    """Raise `Refused` where this machine gives no namespaces and `isolation` is one that cannot do without them.

    The weaker wall is no stand-in for it: whoever asks for a container or a machine asks for more than a process has.
    """
    if machine.mode is not Mode.FALLBACK or isolation not in _WHY_NAMESPACES:
        return
    raise Refused(
        f"{subject.words} was not started: isolation {isolation} cannot be had here, because "
        f"{_WHY_NAMESPACES[isolation]}, and this machine gives none ({why_no_namespaces()})",
        code="isolation_unavailable",
        hint="allow user namespaces: `cardcage doctor` says how",
        plugin=subject.plugin,
        version=subject.version,
        isolation=isolation,
    )


def _note(trail: Trail, decision: PolicyDecision, denial: Denial) -> None:
    trail.note(
        Action.POLICY_REFUSED,
        denial.reason,
        allowed=False,
        rule=denial.rule,
        source=denial.position,
        level=decision.level.value,
        permission=denial.permission,
        code=denial.code,
    )


def note_applied(trail: Trail, decision: PolicyDecision, floor: Sequence[str]) -> None:
    """Record what the policy made of a start."""
    rules = ", ".join(each.rule for each in decision.applied)
    trail.note(
        Action.POLICY_APPLIED,
        f"the policy lets it start; these rules applied: {rules}",
        allowed=True,
        policy=decision.source,
        level=decision.level.value,
        isolation=decision.isolation,
        floor=list(floor),
        grants=[str(grant) for grant in decision.grants],
    )
