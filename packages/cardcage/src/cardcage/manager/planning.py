"""From what is registered, configured and granted to an instance's blueprint: every decision before anything starts."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from cardcage.audit import NO_TRAIL, Action, AuditFields, Trail
from cardcage.contracts import ExtensionPoint
from cardcage.contracts.pack import Pack
from cardcage.egress import EgressRules
from cardcage.egress.rules import CONNECTIONS_MAX
from cardcage.foundation.errors import Fault, InvalidDocument, Misuse, Refused
from cardcage.foundation.limits import (
    EMULATED_CONNECT_TIMEOUT_S,
    EMULATED_HANG_GRACE_S,
    EMULATED_START_TIMEOUT_S,
)
from cardcage.foundation.names import InterfaceRef
from cardcage.launch.oci_runtimes import find_runtime
from cardcage.launch.runner import LaunchSpec
from cardcage.manager.home import Home
from cardcage.manager.judging import (
    Judge,
    Wish,
    decisions,
    declared_capabilities,
    refuse_denied,
    refuse_fallback,
    refuse_without_namespaces,
)
from cardcage.manager.packs import library_dirs
from cardcage.manifest import Limits, Manifest, validate_config
from cardcage.permissions import Decision, Grants, Permission, PermissionKind, PermissionRequest, expand
from cardcage.permissions.credentials import Credential
from cardcage.permissions.network import Endpoint, parse_endpoint
from cardcage.policy import PolicyDecision, Subject
from cardcage.registry import InstalledPlugin, InstanceRecord
from cardcage.runtime import Blueprint, RuntimePolicy
from cardcage.sandbox.hypervisor import find_hypervisor
from cardcage.sandbox.plan import PlanRequest, PythonLayout, ResourceLimits, make_plan
from cardcage.sandbox.report import MachineReport, Mode
from cardcage.trust import confirm_digest

UNCONFINED: Final = "unconfined"
PROCESS: Final = "process"
CONTAINER: Final = "container"
VM: Final = "vm"
ISOLATIONS: Final = (UNCONFINED, PROCESS, CONTAINER, VM)
"""From the weakest to the strongest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What an instance asks for with its config filled in, and what of it was granted."""

    decisions: tuple[tuple[PermissionRequest, Decision], ...]
    """Every request with its decision, in the manifest's order."""

    @property
    def granted(self) -> tuple[Permission, ...]:
        return tuple(request.permission for request, decision in self.decisions if decision.allowed)

    @property
    def refused(self) -> tuple[tuple[PermissionRequest, Decision], ...]:
        return tuple(pair for pair in self.decisions if not pair[1].allowed)

    def secrets(self, *, optional: bool) -> tuple[str, ...]:
        """The names of the secrets that are granted, of requests that are optional or of those that are not."""
        return tuple(
            request.permission.value
            for request, decision in self.decisions
            if decision.allowed and request.permission.kind is PermissionKind.SECRET and request.optional is optional
        )

    @property
    def required_refused(self) -> tuple[tuple[PermissionRequest, Decision], ...]:
        return tuple(pair for pair in self.refused if not pair[0].optional)


def parse_grants(texts: Iterable[str], *, subject: str) -> Grants:
    """Grants from their text forms (`read:/srv/bill.csv`). Raises `InvalidDocument` with every one that is none."""
    permissions: list[Permission] = []
    faults: list[Fault] = []
    for index, text in enumerate(texts):
        try:
            permissions.append(Permission.parse(text))
        except Misuse as error:
            faults.append(Fault(path=f"grants[{index}]", message=error.message))
    if faults:
        raise InvalidDocument(subject, faults, code="grants_invalid")
    return Grants(frozenset(permissions))


def ask(
    requests: Sequence[PermissionRequest],
    grants: Grants,
    *,
    policy: PolicyDecision | None,
    declared: Collection[str],
) -> Asked:
    """Hold what a plugin asks for against what was granted. An instance never gets what it did not ask for."""
    return Asked(decisions=tuple(decisions(requests, grants, policy=policy, declared=declared)))


def note_decisions(trail: Trail, asked: Asked) -> None:
    """Record every permission that was asked for, with the answer and its reason."""
    for request, decision in asked.decisions:
        fields = AuditFields(permission=str(request.permission), optional=request.optional)
        if decision.grant is not None:
            fields["grant"] = str(decision.grant)
        trail.note(Action.PERMISSION_DECIDED, decision.reason, allowed=decision.allowed, **fields)


def provided_points(manifest: Manifest, packs: Sequence[Pack]) -> tuple[InterfaceRef, ...]:
    """The extension points that a plugin provides: those it names, and the one that its type stands for."""
    refs = list(manifest.provides)
    for pack in packs:
        implied = InterfaceRef.parse(pack.plugin_types.get(manifest.type or "", ""))
        if implied is not None and implied not in refs:
            refs.append(implied)
    return tuple(refs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Makes blueprints. Holds what stays the same for every instance of one manager."""

    home: Home
    packs: Sequence[Pack]
    points: Mapping[InterfaceRef, ExtensionPoint]
    machine: MachineReport
    python: PythonLayout
    policy: RuntimePolicy
    judge: Judge
    hosts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names that the operator maps to addresses, for the connections of plugins."""
    trust_file: Callable[[], Path] | None = None
    """Makes the file of certificates that plugins trust whose requests get a credential."""
    container_runtime: str | None = None
    """The OCI runtime that the operator named; None takes the first that is installed."""
    encrypt: bool = False
    """Whether the wire of every plugin is to be enciphered."""

    def blueprint(
        self,
        plugin: InstalledPlugin,
        record: InstanceRecord,
        *,
        grants: Grants,
        wish: Wish,
        priority: int,
        credentials: Sequence[Credential] = (),
        trail: Trail = NO_TRAIL,
    ) -> Blueprint:
        """Decide everything about one instance, and leave each decision about a permission on `trail`.

        Raises `InvalidDocument` for a wrong config, and `Refused` where the package is not the one that was
        registered, where the policy is against it, where a required permission is not granted, or where the isolation
        asked for cannot be had.
        """
        manifest = plugin.manifest
        confirm_digest(plugin.package_dir, plugin.digest, plugin=plugin.name, version=plugin.version)
        config = self._config(manifest, record)
        requests = expand(manifest.permissions, config)
        subject = self.judge.subject(plugin, record, requests, wish)
        verdict = self.judge.judge(subject)
        refuse_denied(subject, verdict, trail)
        isolation = verdict.isolation
        if isolation == PROCESS:
            refuse_fallback(subject, verdict, self.machine)
        refuse_without_namespaces(subject, isolation, self.machine)
        check_isolation(manifest, isolation, runtime=self.container_runtime)
        asked = ask(requests, grants, policy=verdict, declared=self.declared())
        note_decisions(trail, asked)
        if asked.required_refused:
            raise _refused(manifest, asked, self.declared())
        uid = record.uid if isolation != UNCONFINED and os.geteuid() == 0 else None
        data_dir, temp_dir = self.home.folders(str(record.id), uid)
        if self.machine.mode is Mode.FALLBACK and verdict.fallback and uid is not None:
            self.home.let_pass()
        egress = self._egress(subject, record, asked, grants | verdict.grants, verdict, credentials)
        injected = tuple(credential.endpoint for credential in egress.credentials) if egress else ()
        plan = make_plan(
            PlanRequest(
                plugin=manifest.name,
                version=manifest.version,
                instance=str(record.id),
                isolation=isolation,
                package_dir=plugin.package_dir,
                data_dir=data_dir,
                temp_dir=temp_dir,
                library_dirs=tuple(library_dirs(self.packs)),
                permissions=asked.granted,
                limits=resource_limits(verdict.limits, manifest.limits),
                uid=uid,
                python=self.python,
                floor=self.judge.floor(verdict, self.machine, of_guest=isolation == VM)
                if isolation != UNCONFINED
                else None,
                allow_fallback=verdict.fallback and isolation == PROCESS,
                injected=injected,
                trust_file=self.trust_file() if injected and self.trust_file is not None else None,
            ),
            self.machine,
        )
        return Blueprint(
            instance=record.id,
            manifest=manifest,
            digest=plugin.digest,
            config=config,
            grants=Grants(frozenset(asked.granted)),
            spec=LaunchSpec(
                instance=record.id,
                plugin=manifest.name,
                version=manifest.version,
                plan=plan,
                package_dir=plugin.package_dir,
                data_dir=data_dir,
                temp_dir=temp_dir,
                encrypt=verdict.encrypt or self.encrypt or manifest.encrypt == "always",
            ),
            points=tuple(self.points[ref] for ref in manifest.provides if ref in self.points),
            policy=_patient(self.policy) if isolation == VM else self.policy,
            priority=priority,
            missing=tuple(str(request.permission) for request, _ in asked.refused),
            verdict=verdict,
            egress=egress,
            secrets=asked.secrets(optional=False),
            optional_secrets=asked.secrets(optional=True),
        )

    def _egress(
        self,
        subject: Subject,
        record: InstanceRecord,
        asked: Asked,
        grants: Grants,
        verdict: PolicyDecision,
        credentials: Sequence[Credential],
    ) -> EgressRules | None:
        endpoints = _endpoints(asked.granted)
        if credentials and verdict.isolation == UNCONFINED:
            raise _no_credentials(
                record.plugin,
                "unconfined it reaches its servers by itself, past the host",
                "run it in isolation process",
            )
        if credentials and self.machine.mode is Mode.FALLBACK:
            raise _no_credentials(
                record.plugin,
                "that is not to be had behind the wall without namespaces, the only one that this machine gives",
                "allow user namespaces (`cardcage doctor` says how)",
            )
        if not endpoints or verdict.isolation == UNCONFINED:
            return None
        rules = EgressRules(
            plugin=record.plugin,
            instance=str(record.id),
            endpoints=endpoints,
            granted=_endpoints(self.judge.undenied(subject, grants)),
            hosts=self.hosts,
            bytes_per_s=verdict.limits.network_bytes_per_s,
            connections_max=verdict.limits.connections or CONNECTIONS_MAX,
        )
        # One for an endpoint that this instance does not reach may be another instance's.
        return replace(rules, credentials=tuple(each for each in credentials if rules.listed_target(each.endpoint)))

    def asked(self, plugin: InstalledPlugin, record: InstanceRecord, *, grants: Grants, wish: Wish) -> Asked:
        """What an instance asks for with its config as it stands, and what of it the grants and the policy give."""
        requests = expand(plugin.manifest.permissions, record.config)
        verdict = self.judge.judge(self.judge.subject(plugin, record, requests, wish))
        return ask(requests, grants, policy=verdict, declared=self.declared())

    def declared(self) -> Collection[str]:
        """The capabilities that some pack or some service of this host stands behind."""
        return declared_capabilities(self.packs, self.judge.declared())

    def _config(self, manifest: Manifest, record: InstanceRecord) -> dict[str, Any]:
        config = dict(record.config)
        if manifest.config_schema is None:
            return config
        return validate_config(
            manifest.config_schema, config, subject=f'the config of plugin "{manifest.name}" {manifest.version}'
        )


def _no_credentials(plugin: str, why: str, remedy: str) -> Refused:
    return Refused(
        f'plugin "{plugin}" was not started: credentials are to be added to its requests, and {why}',
        code="credential_impossible",
        hint=f"take its credentials out of the host configuration, or {remedy}",
        plugin=plugin,
    )


def _endpoints(permissions: Iterable[Permission]) -> tuple[Endpoint, ...]:
    return tuple(parse_endpoint(each.value) for each in permissions if each.kind is PermissionKind.NETWORK)


def _patient(policy: RuntimePolicy) -> RuntimePolicy:
    """The deadlines of a start where every instruction may be emulated."""
    if find_hypervisor().kvm:
        return policy
    return replace(
        policy,
        connect_timeout_s=max(policy.connect_timeout_s, EMULATED_CONNECT_TIMEOUT_S),
        start_timeout_s=max(policy.start_timeout_s, EMULATED_START_TIMEOUT_S),
        hang_grace_s=max(policy.hang_grace_s, EMULATED_HANG_GRACE_S),
    )


def chosen_isolation(manifest: Manifest, of_plugin: str | None, of_manager: str) -> str:
    """The isolation that an operator's choice comes to: what was said of the plugin, or else of all.

    A manifest that asks for a stronger wall than the one for all gets it; that is what it asks for.
    """
    if of_plugin is not None:
        return of_plugin
    asked = manifest.isolation
    if asked is None or of_manager == UNCONFINED or _strength(asked) <= _strength(of_manager):
        return of_manager
    return asked


def _strength(isolation: str) -> int:
    return ISOLATIONS.index(isolation) if isolation in ISOLATIONS else 0


def check_isolation(manifest: Manifest, isolation: str, *, runtime: str | None = None) -> None:
    """Refuse a wall that cannot be put up here, and one weaker than the manifest asks for."""
    asked, whom = manifest.isolation, f'plugin "{manifest.name}" {manifest.version}'
    if isolation not in ISOLATIONS:
        raise Misuse(f"isolation is {isolation!r}, expected one of: {', '.join(ISOLATIONS)}", code="isolation_unknown")
    if asked == UNCONFINED and isolation != UNCONFINED:
        raise Refused(
            f"{whom} asks to run unconfined, and only the operator can allow that",
            code="isolation_refused",
            plugin=manifest.name,
            hint='allow it for this plugin alone: plugins: {NAME: {enabled: true, isolation: "unconfined"}}',
        )
    if asked is not None and asked != PROCESS and _strength(isolation) < _strength(asked):
        raise Refused(
            f"{whom} asks for {asked} isolation, but {isolation} was chosen for it",
            code="isolation_refused",
            plugin=manifest.name,
            hint=f"choose {asked} for it, or leave the choice to its manifest",
        )
    if isolation == CONTAINER:
        find_runtime(runtime)
    if isolation == VM:
        find_hypervisor()


def _refused(manifest: Manifest, asked: Asked, declared: Collection[str]) -> Refused:
    reasons = "; ".join(f"{request.permission}: {decision.reason}" for request, decision in asked.required_refused)
    wanted = [request.permission for request, _ in asked.required_refused]
    unknown = [each for each in wanted if each.kind is PermissionKind.CAPABILITY and each.value not in declared]
    hint = f"this host has: {', '.join(sorted(declared))}" if unknown else None
    return Refused(
        f'plugin "{manifest.name}" {manifest.version} needs what it was not granted: {reasons}',
        reason=reasons,
        code="capability_unknown" if unknown else "permission_missing",
        plugin=manifest.name,
        version=manifest.version,
        permissions=[str(permission) for permission in wanted],
        hint=hint or "grant it: " + " ".join(f"--grant {permission}" for permission in wanted),
    )


def resource_limits(limits: Limits, asked: Limits) -> ResourceLimits:
    """The limits that the policy came to, as the walls take them.

    A `disk` that the manifest asks for also bounds `/tmp`; the default does not, because that is memory.
    """
    return ResourceLimits(
        memory_bytes=limits.memory_bytes,
        cpu_cores=limits.cpu_cores,
        processes=limits.processes,
        open_files=limits.descriptors,
        disk_bytes=limits.disk_bytes,
        inodes=limits.inodes,
        temp_bytes=_least(asked.disk_bytes, limits.disk_bytes) if asked.disk_bytes else None,
    )


def _least(first: int, second: int | None) -> int:
    return first if second is None else min(first, second)


def path_of(text: str | os.PathLike[str]) -> Path:
    """A folder of plugins as the caller wrote it, `~` and relative parts resolved."""
    return Path(text).expanduser().absolute()
