"""Semantic versions and the ranges that dependencies and hosts are given as.

A range is one or more alternatives joined by `||`; an alternative is comparators that must all hold, joined by commas
or spaces. A comparator is `>=1.2`, `>`, `<=`, `<`, `=` or `==`, `!=`; `^1.2.3` (up to the next breaking version),
`~1.2.3` (up to the next minor one); `1.2.x`, `1.*` or `1.2` (anything that begins so); `1.2.3` (exactly that); `*`, or
nothing (anything).

A pre-release such as `2.0.0-rc.1` satisfies a range only where a comparator names a pre-release of the same version:
`<2.0.0` means to keep 2.0 out, its candidates included.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from semver import Version

_COMPARATOR: Final = re.compile(r"(?P<operator>\^|~=|~|>=|<=|==|!=|=|>|<)?\s*v?(?P<version>[0-9A-Za-z.*+-]+)")
_PARTIAL: Final = re.compile(
    r"(?P<major>[0-9]+|[xX*])(?:\.(?P<minor>[0-9]+|[xX*]))?(?:\.(?P<patch>[0-9]+|[xX*]))?"
    r"(?P<rest>-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
)


@dataclass(frozen=True, slots=True)
class _Bound:
    """One side of a comparator: `operator` and the version it is about."""

    operator: str
    version: Version


_HOLDS: Final[Mapping[str, Callable[[Version, Version], bool]]] = {
    ">=": lambda found, bound: found >= bound,
    ">": lambda found, bound: found > bound,
    "<=": lambda found, bound: found <= bound,
    "<": lambda found, bound: found < bound,
    "=": lambda found, bound: found == bound,
    "!=": lambda found, bound: found != bound,
}


def parse_version(text: str) -> Version | None:
    """The semantic version that `text` spells (`1.2` is 1.2.0), or None where it spells none."""
    try:
        return Version.parse(text.removeprefix("v"), optional_minor_and_patch=True)
    except (ValueError, TypeError):
        return None


def range_fault(text: str) -> str | None:
    """What is wrong with a range, if something is."""
    try:
        _alternatives(text)
    except ValueError as error:
        return str(error)
    return None


def satisfies(version: str, text: str) -> bool:
    """Whether `version` lies in the range `text`. Neither does where one of them cannot be read."""
    found = parse_version(version)
    try:
        alternatives = _alternatives(text)
    except ValueError:
        return False
    return found is not None and any(_lies_in(found, bounds) for bounds in alternatives)


def _lies_in(found: Version, bounds: tuple[_Bound, ...]) -> bool:
    if found.prerelease and not any(_names_candidate_of(found, bound) for bound in bounds):
        return False
    return all(_HOLDS[bound.operator](found, bound.version) for bound in bounds)


def _names_candidate_of(found: Version, bound: _Bound) -> bool:
    return bool(bound.version.prerelease) and bound.version.finalize_version() == found.finalize_version()


@lru_cache(maxsize=1024)
def _alternatives(text: str) -> tuple[tuple[_Bound, ...], ...]:
    return tuple(_bounds(part) for part in text.split("||"))


def _bounds(text: str) -> tuple[_Bound, ...]:
    bounds: list[_Bound] = []
    position = 0
    text = text.strip()
    while position < len(text):
        match = _COMPARATOR.match(text, position)
        partial = _PARTIAL.fullmatch(match["version"]) if match else None
        if match is None or partial is None:
            raise ValueError(f'"{text[position:]}" is not a version range, such as ">=1.2, <2", "^1.2" or "1.2.3"')
        bounds += _comparator(match["operator"] or "", partial)
        position = match.end()
        while position < len(text) and text[position] in ", \t":
            position += 1
    return tuple(bounds)


def _comparator(operator: str, partial: re.Match[str]) -> list[_Bound]:
    numbers = [int(part) for part in _leading_numbers(partial)]
    if not numbers:
        return []  # `*`
    given = len(numbers)
    major, minor, patch = (*numbers, 0, 0)[:3]
    low = Version(major, minor, patch, prerelease=(partial["rest"] or "")[1:] or None)
    match operator:
        case ">=" | "<":
            return [_Bound(operator, low)]
        case ">":
            return [_Bound(">", low) if given == 3 else _Bound(">=", _after(numbers, given))]
        case "<=":
            return [_Bound("<=", low) if given == 3 else _Bound("<", _after(numbers, given))]
        case "!=":
            return [_Bound("!=", low)]
        case "^":
            # The first number that is not zero is the one whose change breaks.
            fixed = next((index + 1 for index, number in enumerate(numbers) if number), given)
            return [_Bound(">=", low), _Bound("<", _after(numbers, fixed))]
        case "~" | "~=":
            fixed = max(1, given - 1) if operator == "~=" else min(given, 2)
            return [_Bound(">=", low), _Bound("<", _after(numbers, fixed))]
        case _:
            return [_Bound("=", low)] if given == 3 else [_Bound(">=", low), _Bound("<", _after(numbers, given))]


def _leading_numbers(partial: re.Match[str]) -> list[str]:
    numbers: list[str] = []
    for name in ("major", "minor", "patch"):
        part = partial[name]
        if part is None or part in "xX*":
            break
        numbers.append(part)
    return numbers


def _after(numbers: list[int], fixed: int) -> Version:
    """The first version in which one of the first `fixed` numbers is higher."""
    parts = [*numbers[: fixed - 1], numbers[fixed - 1] + 1, 0, 0]
    return Version(*parts[:3])
