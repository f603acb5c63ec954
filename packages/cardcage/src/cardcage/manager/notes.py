"""What the manager records in the audit log about packages, grants and services."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from cardcage.audit import Action, Actor, AuditEvent, AuditFields, Auditor, Trail, fields_of, reason_of
from cardcage.broker import PluginInfo
from cardcage.foundation.errors import CardcageError
from cardcage.foundation.names import InstanceId
from cardcage.permissions import Decision
from cardcage.registry import InstalledPlugin

if TYPE_CHECKING:
    from cardcage.trust.authority import Certificate  # what it stands on is not loaded before it is needed


def note_registered(auditor: Auditor, plugin: InstalledPlugin, before: InstalledPlugin | None) -> None:
    """A package was verified and written into the registry; one whose bytes are the same is nothing new."""
    if before is not None and before.digest == plugin.digest:
        return
    fields = AuditFields(digest=plugin.digest, path=str(plugin.package_dir))
    reason = "its package was verified and is new"
    if before is not None:
        fields.update(digest_before=before.digest, version_before=before.version)
        reason = f"its package was verified and replaces {before.version}"
    if plugin.problem:
        reason += f"; it cannot start: it {plugin.problem}"
    Trail(auditor=auditor, plugin=plugin.name, version=plugin.version).note(
        Action.RELEASE_REGISTERED, reason, allowed=True, actor=Actor.OPERATOR, **fields
    )


def note_rejected(auditor: Auditor, path: str | os.PathLike[str], error: CardcageError) -> None:
    """A package was not registered."""
    fields = fields_of(error)
    fields["path"] = os.fspath(path)
    auditor.record(AuditEvent(action=Action.RELEASE_REFUSED, reason=reason_of(error), allowed=False, fields=fields))


def note_grants(trail: Trail, grants: Iterable[object], *, source: str) -> None:
    """An operator gave grants to a plugin or an instance; none is nothing to tell."""
    texts = [str(grant) for grant in grants]
    if texts:
        reason = f"the {source} gave it {len(texts)} grant{'' if len(texts) == 1 else 's'}"
        trail.note(Action.GRANT_GIVEN, reason, actor=Actor.OPERATOR, grants=texts, source=source)


def noting_calls(auditor: Callable[[], Auditor]) -> Callable[[PluginInfo, str, Decision], None]:
    """What a table of services is to call with each decision about a plugin that asks for a capability."""

    def note(caller: PluginInfo, service: str, decision: Decision) -> None:
        Trail(auditor=auditor(), plugin=caller.name, version=caller.version, instance=caller.instance).note(
            Action.CAPABILITY_CALLED if decision.allowed else Action.CAPABILITY_REFUSED,
            decision.reason,
            allowed=decision.allowed,
            actor=Actor.PLUGIN,
            service=service,
        )

    return note


def noting_excess(auditor: Callable[[], Auditor]) -> Callable[[PluginInfo, str], None]:
    """What a table of services is to call with each call that came too soon after those before it."""

    def note(caller: PluginInfo, service: str) -> None:
        Trail(auditor=auditor(), plugin=caller.name, version=caller.version, instance=caller.instance).note(
            Action.LIMIT_HIT,
            "it calls the host more often than any plugin may",
            allowed=False,
            actor=Actor.PLUGIN,
            limit="service_calls",
            service=service,
        )

    return note


def noting_certificates(auditor: Auditor) -> Callable[[InstanceId, Certificate], None]:
    """What is to be called with each certificate that was issued for one start of an instance."""

    def note(instance: InstanceId, certificate: Certificate) -> None:
        Trail(auditor=auditor, plugin=instance.partition("/")[0], instance=instance).note(
            Action.CERTIFICATE_ISSUED,
            f"for one start, until {certificate.not_after:%Y-%m-%d %H:%M:%S} UTC",
            subject=certificate.name,
        )

    return note
