"""A policy as data: a level, and rules that each have conditions and effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final, Literal

from cardcage.manifest import Limits, Runtime
from cardcage.permissions import Permission, PermissionKind

Isolation = Literal["process", "container", "vm"]
Unconfined = Literal["never", "named", "any"]
Fallback = Literal["never", "allow"]

ISOLATIONS: Final[tuple[str, ...]] = ("unconfined", "process", "container", "vm")
"""The walls, each at least as strong as those before it."""


class Level(StrEnum):
    """How much is asked of a machine and of plugins before any rule of the operator's own."""

    STRICT = "strict"
    """Every layer this machine has is required, nothing broad is granted, every limit has a bound."""
    STANDARD = "standard"
    """The layers that every kernel with user namespaces has are required."""
    PERMISSIVE = "permissive"
    """The weaker walls of machines that forbid user namespaces will do, with a warning."""


NO_LIMITS: Final = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCondition:
    """A comparison with a limit that a manifest asks for. One that it does not ask for counts as without bound."""

    limit: str
    """The key as manifests spell it, such as `memory`."""
    sign: Literal[">", ">=", "<", "<=", "==", "none"]
    """`none` holds where the manifest does not ask for it at all."""
    number: float = 0
    text: str = ""
    """As it was written."""

    def holds(self, asked: float | None) -> bool:
        """Whether it holds of the limit that is asked for."""
        if self.sign == "none":
            return asked is None
        value = float("inf") if asked is None else asked
        match self.sign:
            case ">":
                return value > self.number
            case ">=":
                return value >= self.number
            case "<":
                return value < self.number
            case "<=":
                return value <= self.number
            case "==":
                return value == self.number


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """All that is given must hold; of several values of one kind, any will do. Empty, it holds always."""

    plugin: tuple[str, ...] = ()
    publisher: tuple[str, ...] = ()
    verified: bool | None = None
    """Whether a signature proves the publisher. Nothing does yet, so `True` matches no plugin."""
    source: tuple[str, ...] = ()
    """Folders, each with all beneath it."""
    type: tuple[str, ...] = ()
    provides: tuple[str, ...] = ()
    runtime: tuple[Runtime, ...] = ()
    isolation: tuple[str, ...] = ()
    environment: tuple[str, ...] = ()
    label: tuple[str, ...] = ()
    permission: tuple[Permission, ...] = ()
    broad: tuple[PermissionKind, ...] = ()
    limits: tuple[LimitCondition, ...] = ()

    @property
    def about_permissions(self) -> bool:
        """Whether the rule speaks of single permissions rather than of the plugin."""
        return bool(self.permission or self.broad)


@dataclass(frozen=True, slots=True, kw_only=True)
class Effects:
    """What follows where a rule applies."""

    deny: bool = False
    allow: bool = False
    grant: tuple[Permission, ...] = ()
    isolation: Isolation | None = None
    floor: tuple[str, ...] = ()
    floor_where_possible: tuple[str, ...] = ()
    caps: Limits = NO_LIMITS
    defaults: Limits = NO_LIMITS
    bounded: tuple[str, ...] = ()
    encrypt: bool = False
    fallback: Fallback | None = None
    unconfined: Unconfined | None = None
    approval: bool = False
    warn: str = ""

    @property
    def loosens(self) -> bool:
        """Whether it gives something that would not be had without it."""
        return self.allow or bool(self.grant) or self.fallback == "allow" or self.unconfined in ("named", "any")

    @property
    def tightens(self) -> bool:
        """Whether it takes something away or asks for more."""
        return any(
            (
                self.deny,
                self.isolation,
                self.floor,
                self.floor_where_possible,
                self.caps != NO_LIMITS,
                self.defaults != NO_LIMITS,
                self.bounded,
                self.encrypt,
                self.approval,
                self.fallback == "never",
                self.unconfined == "never",
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Where `when` holds and `unless` does not, `then` follows."""

    name: str
    position: str
    """Where it stands: `policy.yaml, line 12`, or `level strict`."""
    then: Effects
    when: Conditions = Conditions()
    unless: Conditions | None = None
    reason: str = ""
    """The operator's own sentence, shown with a refusal."""

    @property
    def label(self) -> str:
        """How sentences name it: `rule "no wildcards" (policy.yaml, line 12)`."""
        return f'rule "{self.name}" ({self.position})'


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """An operator's word for the exact bytes of one release."""

    plugin: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an operator laid down. `rules` are those of the file; `all_rules` has the level's before them."""

    level: Level = Level.STANDARD
    default: Literal["allow", "deny"] = "allow"
    """What becomes of a plugin that no rule allows: `deny` makes the rules a list of those that may start."""
    rules: tuple[Rule, ...] = ()
    approvals: tuple[Approval, ...] = ()
    source: str = ""
    """The file that it was read from; empty for a level alone."""

    @property
    def all_rules(self) -> tuple[Rule, ...]:
        """Every rule, in the order in which they are looked at."""
        from cardcage.policy.levels import LEVELS  # the levels are made of the rules above

        return (*LEVELS[self.level], *self.rules)


def limit_values(limits: Limits) -> Mapping[str, float | None]:
    """The limits by the names of their attributes."""
    return {field.name: getattr(limits, field.name) for field in fields(limits)}
