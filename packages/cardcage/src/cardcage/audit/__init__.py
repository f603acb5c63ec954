"""Who did what, whether it was allowed and why: typed events, and a log of them that shows tampering.

Whoever decides or acts is handed a `Trail` (or an `Auditor`) and calls `trail.note(Action..., reason, ...)`. That never
waits and never fails. Secrets are never recorded: fields have a closed list of names (`AuditFields`).
"""

from cardcage.audit.actions import Action, Actor
from cardcage.audit.auditor import NO_AUDIT, NO_TRAIL, Auditor, MemoryAuditor, NullAuditor, Trail
from cardcage.audit.event import AuditEvent
from cardcage.audit.fields import AuditFields
from cardcage.audit.wording import failure_of, fields_of, reason_of, refusal_of

__all__ = [
    "NO_AUDIT",
    "NO_TRAIL",
    "Action",
    "Actor",
    "AuditEvent",
    "AuditFields",
    "Auditor",
    "MemoryAuditor",
    "NullAuditor",
    "Trail",
    "failure_of",
    "fields_of",
    "reason_of",
    "refusal_of",
]
