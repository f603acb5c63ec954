"""Limits put together: what a manifest asks for, what is given where it asks for nothing, and what is the most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from cardcage.manifest import Limits
from cardcage.manifest.limits import LIMIT_KEYS
from cardcage.policy.model import limit_values

NAMES: Final = {key.attribute: name for name, key in LIMIT_KEYS.items()}
"""What manifests call each attribute."""


def least(first: Limits, second: Limits) -> Limits:
    """The smaller of each two; a number is smaller than no bound."""
    return Limits(**{name: _least(value, getattr(second, name)) for name, value in limit_values(first).items()})


def filled(asked: Limits, defaults: Limits) -> Limits:
    """What is asked for, and the default for what is not."""
    absent: dict[str, Any] = {
        name: getattr(defaults, name) for name, value in limit_values(asked).items() if value is None
    }
    return replace(asked, **absent)


def given(limits: Limits) -> dict[str, float]:
    """Those that have a bound, by the names of manifests."""
    return {NAMES[name]: value for name, value in limit_values(limits).items() if value is not None}


def lowered(asked: Limits, result: Limits) -> list[str]:
    """The names of those that are less than what was asked for, or bounded where nothing was asked."""
    before, after = limit_values(asked), limit_values(result)
    return [NAMES[name] for name in before if before[name] != after[name]]


def unbounded(limits: Limits, names: tuple[str, ...]) -> list[str]:
    """Those of `names` that have no bound."""
    return [name for name in names if getattr(limits, LIMIT_KEYS[name].attribute) is None]


def _least(first: Any, second: Any) -> Any:
    known = [value for value in (first, second) if value is not None]
    return min(known) if known else None
