"""The decision: whether what is asked was granted, always with its reason, and no by default."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from cardcage.foundation.errors import Misuse
from cardcage.permissions.requests import PermissionRequest
from cardcage.permissions.vocabulary import Permission

_GRANTS_SHOWN_MAX: Final = 3


@dataclass(frozen=True, slots=True)
class Grants:
    """What an operator gave: a set of permissions, empty unless said otherwise."""

    permissions: frozenset[Permission] = frozenset()

    def __post_init__(self) -> None:
        for permission in self.permissions:
            if permission.has_placeholders:
                raise Misuse(
                    f"a grant names what it gives, found the placeholder in {permission}", code="bad_permission"
                )

    @classmethod
    def parse(cls, texts: Iterable[str]) -> Grants:
        """The grants that these texts, such as `capability:ReadCostData`, spell. Raises `Misuse` for a bad one."""
        return cls(frozenset(Permission.parse(text) for text in texts))

    def __or__(self, other: Grants) -> Grants:
        return Grants(self.permissions | other.permissions)

    def __iter__(self) -> Iterator[Permission]:
        return iter(sorted(self.permissions))

    def __len__(self) -> int:
        return len(self.permissions)


@dataclass(frozen=True, slots=True)
class Decision:
    """Yes or no, and why, as one sentence. `grant` is what allowed it."""

    allowed: bool
    reason: str
    grant: Permission | None = None


def decide(permission: Permission, grants: Grants) -> Decision:
    """Whether the grants cover the permission. Nothing is allowed that no single grant covers."""
    if permission.has_placeholders:
        return Decision(False, f"{permission.describe()} still awaits a value from the configuration")
    if permission in grants.permissions:
        return Decision(True, f"{permission.describe()} is granted", permission)
    for grant in grants:
        if grant.covers(permission):
            return Decision(True, f"{permission.describe()} is granted by {grant}", grant)
    return Decision(False, f"{permission.describe()} is not granted{_what_is(permission, grants)}")


def missing(requests: Iterable[PermissionRequest], grants: Grants) -> list[tuple[PermissionRequest, Decision]]:
    """The requests that are not granted, each with the decision against it, optional ones included."""
    decisions = ((request, decide(request.permission, grants)) for request in requests)
    return [(request, decision) for request, decision in decisions if not decision.allowed]


def _what_is(permission: Permission, grants: Grants) -> str:
    """What of the same kind is granted, so that a slip of spelling shows at once."""
    same_kind = [str(grant) for grant in grants if grant.kind is permission.kind]
    if not same_kind:
        return ""
    rest = len(same_kind) - _GRANTS_SHOWN_MAX
    shown = ", ".join(same_kind[:_GRANTS_SHOWN_MAX])
    return f" (granted: {shown}{f' and {rest} more' if rest > 0 else ''})"
