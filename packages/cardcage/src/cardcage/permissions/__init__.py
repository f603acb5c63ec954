"""What a plugin may do: the vocabulary of permissions, what an operator granted, and the decision. Pure."""

from cardcage.permissions.decision import Decision, Grants, decide, missing
from cardcage.permissions.requests import PermissionRequest, expand
from cardcage.permissions.vocabulary import Permission, PermissionKind

__all__ = [
    "Decision",
    "Grants",
    "Permission",
    "PermissionKind",
    "PermissionRequest",
    "decide",
    "expand",
    "missing",
]
