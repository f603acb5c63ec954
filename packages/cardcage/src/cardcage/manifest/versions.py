"""Semantic versions (semver.org, 2.0) and ranges of them.

    range       = alternative { "||" alternative }              one of them must hold
    alternative = comparator { ( "," | " " ) comparator } | ""  all of them must hold; nothing means any version
    comparator  = [ ">=" | ">" | "<=" | "<" | "==" | "=" | "!=" | "^" | "~" ] partial
    partial     = "*" | number [ "." ( number | "x" | "*" ) [ "." ( number | "x" | "*" ) ] ] [ "-" pre-release ]

- `1.2.3` alone, or with `=` or `==`, is that version and no other; `1.2`, `1.x` and `1.2.*` are all that begin so.
- `^1.2` goes up to the next breaking version (`<2.0.0`; `^0.3` up to `<0.4.0`), `~1.2` up to the next minor one
  (`<1.3.0`).
- A pre-release such as `2.0.0-rc.1` is in a range only where a comparator names a pre-release of the same version:
  `<2` and `>=1` are meant to keep the candidates of 2.0 out.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from semver import Version

from cardcage.foundation.errors import Misuse

RANGE_CHARS_MAX: Final = 200
VERSION_CHARS_MAX: Final = 100

_COMPARATOR: Final = re.compile(
    r"(?P<operator>>=|<=|==|!=|[=<>^~])?[ ]*v?"
    r"(?P<major>[0-9]{1,9}|[xX*])(?:\.(?P<minor>[0-9]{1,9}|[xX*]))?(?:\.(?P<patch>[0-9]{1,9}|[xX*]))?"
    r"(?:-(?P<pre>[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+[0-9A-Za-z.-]+)?(?=[ ,|]|\Z)"
)
_SEPARATOR: Final = re.compile(r"[ ]*,?[ ]*")


@dataclass(frozen=True, slots=True)
class _Bound:
    """One comparison of a version with `version`."""

    operator: str
    version: Version


_HOLDS: Final[Mapping[str, Callable[[Version, Version], bool]]] = {
    ">=": operator.ge,
    ">": operator.gt,
    "<=": operator.le,
    "<": operator.lt,
    "=": operator.eq,
    "!=": operator.ne,
}


def parse_version(text: str) -> Version | None:
    """The semantic version that `text` spells in full (`1.2.3`, `1.2.3-rc.1+build`), or None where it spells none."""
    if len(text) > VERSION_CHARS_MAX or not text.isascii() or text != text.strip():
        return None
    try:
        return Version.parse(text)
    except (ValueError, TypeError):
        return None


def range_fault(text: str) -> str | None:
    """What is wrong with a range, naming its text, or None where nothing is."""
    try:
        _alternatives(text)
    except ValueError as error:
        return str(error)
    return None


def version_matches(range_text: str, version: str) -> bool:
    """Whether the version lies in the range. Raises `Misuse` naming the text that is no range or no version."""
    found = parse_version(version)
    if found is None:
        raise Misuse(f"expected a semantic version such as 1.2.3, found {version!r:.80}", code="bad_version")
    try:
        alternatives = _alternatives(range_text)
    except ValueError as error:
        raise Misuse(str(error), code="bad_version_range", range=range_text) from None
    return any(_lies_within(found, bounds) for bounds in alternatives)


def _lies_within(version: Version, bounds: tuple[_Bound, ...]) -> bool:
    if version.prerelease and not any(_names_candidate_of(version, bound) for bound in bounds):
        return False
    return all(_HOLDS[bound.operator](version, bound.version) for bound in bounds)


def _names_candidate_of(version: Version, bound: _Bound) -> bool:
    return bool(bound.version.prerelease) and bound.version.finalize_version() == version.finalize_version()


@lru_cache(maxsize=1024)
def _alternatives(text: str) -> tuple[tuple[_Bound, ...], ...]:
    if len(text) > RANGE_CHARS_MAX:
        raise ValueError(f"expected a version range of at most {RANGE_CHARS_MAX} characters, found {len(text)}")
    return tuple(_read_alternative(part.strip(" "), text) for part in text.split("||"))


def _read_alternative(part: str, text: str) -> tuple[_Bound, ...]:
    bounds: list[_Bound] = []
    position = 0
    while position < len(part):
        match = _COMPARATOR.match(part, position)
        if match is None:
            raise ValueError(f"expected a version range such as >=1.2,<2 or ^1.2 or 1.2.3, found {text!r}")
        bounds += _read_comparator(match, text)
        position = _SEPARATOR.match(part, match.end()).end()  # pyright: ignore[reportOptionalMemberAccess]
    return tuple(bounds)


def _read_comparator(match: re.Match[str], text: str) -> list[_Bound]:
    sign = match["operator"] or "="
    numbers = _leading_numbers(match)
    if match["pre"] and len(numbers) < 3:
        raise ValueError(f"expected a full version before a pre-release, as in 1.2.0-rc.1, found {text!r}")
    if not numbers:
        if sign in ("<", ">", "!="):
            raise ValueError(f"expected a version range that some version can meet, found {text!r}")
        return []
    low = _version(numbers, match["pre"], text)
    if len(numbers) == 3 and sign in ("=", "==", "!="):
        return [_Bound("!=" if sign == "!=" else "=", low)]
    match sign:
        case ">=" | "<":
            return [_Bound(sign, low)]
        case ">":
            return [_Bound(">", low)] if len(numbers) == 3 else [_Bound(">=", _after(numbers, len(numbers)))]
        case "<=":
            return [_Bound("<=", low)] if len(numbers) == 3 else [_Bound("<", _after(numbers, len(numbers)))]
        case "^":
            return [_Bound(">=", low), _Bound("<", _after(numbers, _breaking(numbers)))]
        case "~":
            return [_Bound(">=", low), _Bound("<", _after(numbers, min(len(numbers), 2)))]
        case "!=":
            raise ValueError(f"expected a full version after !=, as in !=1.2.0, found {text!r}")
        case _:
            return [_Bound(">=", low), _Bound("<", _after(numbers, len(numbers)))]


def _leading_numbers(match: re.Match[str]) -> list[int]:
    numbers: list[int] = []
    for name in ("major", "minor", "patch"):
        part = match[name]
        if part is None or not part.isdigit():
            break
        numbers.append(int(part))
    return numbers


def _version(numbers: list[int], prerelease: str | None, text: str) -> Version:
    major, minor, patch = (*numbers, 0, 0)[:3]
    try:
        return Version.parse(f"{major}.{minor}.{patch}{f'-{prerelease}' if prerelease else ''}")
    except ValueError:
        raise ValueError(f"expected a pre-release such as rc.1, found {prerelease!r} in {text!r}") from None


def _breaking(numbers: list[int]) -> int:
    """How many of the leading numbers stay: up to the first that is not zero, whose change breaks."""
    return next((index + 1 for index, number in enumerate(numbers) if number), len(numbers))


def _after(numbers: list[int], kept: int) -> Version:
    """The first version in which one of the first `kept` numbers is higher."""
    parts = [*numbers[: kept - 1], numbers[kept - 1] + 1, 0, 0]
    return Version(*parts[:3])
