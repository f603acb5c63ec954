"""An error as the log may have it: in the host's own words, and never in a plugin's or a configuration's."""

from __future__ import annotations

from typing import Final

from cardcage.audit.actions import Action
from cardcage.audit.fields import AuditFields
from cardcage.foundation.errors import CardcageError, InvalidDocument, Misuse, PluginFault, Refused

_ACTIONS: Final = {
    "below_floor": Action.FLOOR_REFUSED,
    "no_walls": Action.FLOOR_REFUSED,
    "isolation_unavailable": Action.ISOLATION_REFUSED,
    "isolation_refused": Action.ISOLATION_REFUSED,
    "isolation_unknown": Action.ISOLATION_REFUSED,
    "digest_mismatch": Action.RELEASE_CHANGED,
    "link_failed": Action.LINK_REFUSED,
}


def reason_of(error: CardcageError) -> str:
    """Why it was refused or failed. What a plugin said may hold anything, and a faulty value may be a secret."""
    match error:
        case Refused():
            return error.reason
        case InvalidDocument():
            count = len(error.faults)
            return (
                f"{error.fields.get('subject', 'a document')} is not valid ({count} fault{'' if count == 1 else 's'})"
            )
        case PluginFault():
            return f"the plugin failed ({error.code})"
        case _:
            return error.message


def fields_of(error: CardcageError) -> AuditFields:
    """What the log keeps of an error besides: its code, and where in a document the faults are."""
    if isinstance(error, InvalidDocument):
        return AuditFields(code=error.code, paths=[fault.path for fault in error.faults])
    return AuditFields(code=error.code)


def refusal_of(error: CardcageError) -> Action:
    """Which act of refusal an error at a start stands for."""
    return _ACTIONS.get(error.code, Action.INSTANCE_REFUSED)


def failure_of(error: CardcageError) -> tuple[Action, bool | None]:
    """What an error of a start stands for, and whether it was a decision: False for a refusal, None for a failure."""
    if error.code in _ACTIONS or isinstance(error, Refused | Misuse):
        return refusal_of(error), False
    return Action.INSTANCE_FAILED, None
