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


def spelled(name: str, value: float) -> str:
    """The value as a manifest would write it: `256MiB`, `0.5`, `10MiB/s`."""
    if name not in ("memory", "disk", "network"):
        return f"{value:g}" if isinstance(value, float) else str(value)
    unit = next((unit for unit, size in _UNITS if value >= size and value % size == 0), "B")
    return f"{int(value) // dict(_UNITS)[unit]}{unit}{'/s' if name == 'network' else ''}"


_UNITS: Final = (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10), ("B", 1))


def unbounded(limits: Limits, names: tuple[str, ...]) -> list[str]:
    """Those of `names` that have no bound."""
    return [name for name in names if getattr(limits, LIMIT_KEYS[name].attribute) is None]


def _least(first: Any, second: Any) -> Any:
    known = [value for value in (first, second) if value is not None]
    return min(known) if known else None
