"""What the catalogue is made of: a behaviour, the attempts that make it up, and what came of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .arena import Arena


class Control(StrEnum):
    """What the same code does where no wall stands: the proof that a refusal shows something."""

    SUCCEEDS = "succeeds"
    SUCCEEDS_AS_ROOT = "succeeds as root"
    """An ordinary user is refused on the bare host as well."""
    DIFFERS = "fails otherwise"
    """The bare host says no as well, but in other words than the wall."""
    DIFFERS_AS_ROOT = "fails otherwise as root"
    NONE = "not tried"
    """It would do harm, reach outside, or show nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One call of one hostile plugin's method. It is stopped where it ends in one of `stopped_by`.

    `stopped_by` maps what may be seen (an errno's name, an exception's, a signal's, an error code of the host's) to the
    layer that says so. Arguments that begin with `$` stand for what the arena planted.
    """

    plugin: str
    method: str
    arguments: tuple[Any, ...] = ()
    stopped_by: Mapping[str, str]
    control: Control = Control.SUCCEEDS
    timeout_s: float = 20.0
    native: bool = False
    """Needs a C compiler; left out, and said to be, where there is none."""
    needs: str | None = None
    """A layer without which this attempt is not stopped, and is not made where the machine cannot put it up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """What stopped one attempt: what was seen, and the layer that showed it."""

    seen: str
    layer: str
    enforced: bool | None = None
    """Whether the layer held around the instance that it was seen at; None where that has the neighbour's walls."""


class NotStopped(Exception):
    """A hostile plugin got what it wanted, or was stopped in another way than it should be."""


Scenario = Callable[["Arena"], Awaitable[list[Stop]]]
"""Several steps, some of the host's own. Raises `NotStopped`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """One line of the table. `number` up to 70 is the list that the project began from; its own follow."""

    number: int
    title: str
    attempts: tuple[Attempt, ...] = ()
    scenario: Scenario | None = None
    audit: tuple[str, ...] = ()
    """The kinds of audit event of which one must be written; none where the kernel refuses and the host cannot see."""
    audit_where: str = ""
    """The layer that must have been what stopped it for the host to see it at all; empty: it always does."""
    root_only: bool = False
    """An ordinary user's host cannot be attacked so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What came of one behaviour on this machine."""

    number: int
    behaviour: str
    stopped: bool
    layer: str
    enforced: bool
    seconds: float
    seen: str = ""
    fault: str = ""
    """Why it is not stopped, or what of the host or its neighbour suffered."""
    controls: tuple[str, ...] = field(default_factory=tuple[str, ...])
    audit: str = ""
    not_tried: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The row as `build/hostile.json` has it."""
        return {
            "id": self.number,
            "behaviour": self.behaviour,
            "stopped": self.stopped,
            "layer": self.layer,
            "enforced": self.enforced,
            "seconds": round(self.seconds, 3),
        }
