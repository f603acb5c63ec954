"""Whether a regular expression of a stranger may be used: it compiles, and cannot take for ever.

Python's matcher tries every way to divide a text among nested repetitions, so `(a+)+` needs twice the time for each
further character. Such a pattern is refused unless each round of the outer repetition holds a character that the inner
ones cannot match, as the comma of `(?:[a-z]+,)*`: then there is one way only. Repetitions side by side, as in `a*a*a*`,
cost a power of the length of the text, so that both their number and that length are bounded.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

PATTERN_CHARS_MAX: Final = 500

TEXT_CHARS_MAX: Final = 1000
REPETITIONS_IN_A_ROW_MAX: Final = 3
"""`.*a.*b.*` against 1000 characters is tried in some hundred million ways at the worst: seconds, not hours."""

_SAMPLE: Final = [*map(chr, range(128)), "\u00e9", "\u0416", "\u4e2d", "\u0661"]
"""Characters by which two sets are told apart: ASCII, and a letter or digit of some other scripts."""

_TOKEN: Final = re.compile(
    r"(?P<open>\((?:\?(?:P<\w+>|[:=!>]|<[=!]))?)|(?P<close>\))|(?P<bar>\|)"
    r"|(?P<atom>\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[^()|\\\[])",
    re.DOTALL,
)
_QUANTIFIER: Final = re.compile(r"(?:(?P<sign>[*+?])|\{(?P<low>\d*)(?P<comma>,?)(?P<high>\d*)\})[?+]?")


@dataclass(slots=True)
class _Item:
    """One atom or group with its repetitions; `chars` are those of the sample that it can match."""

    chars: frozenset[str]
    alternatives: list[list[_Item]] | None
    low: int
    high: float

    @property
    def varies(self) -> bool:
        """Whether it can match texts of different lengths."""
        inner = self.alternatives or []
        lengths = {len(sequence) for sequence in inner}
        return self.low != self.high or len(lengths) > 1 or any(item.varies for sequence in inner for item in sequence)


def pattern_problem(pattern: object) -> str | None:
    """Why a pattern cannot be accepted, or None."""
    if not isinstance(pattern, str):
        return "expected a regular expression"
    if len(pattern) > PATTERN_CHARS_MAX:
        return f"expected a pattern of at most {PATTERN_CHARS_MAX} characters, found {len(pattern)}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # constructs that may change their meaning in a later Python
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return f"expected a regular expression, found {pattern[:80]!r} ({error})"
    if re.search(r"\(\?[aiLmsux-]", pattern):
        return f"expected a pattern without flags, which JSON Schema does not know, found {pattern[:80]!r}"
    if _explodes(_parse(pattern)):
        return f"expected a pattern without ambiguous repetition, found {pattern[:80]!r}, which can take for ever"
    return None


def _explodes(alternatives: list[list[_Item]]) -> bool:
    if any(_longest_run(sequence) > REPETITIONS_IN_A_ROW_MAX for sequence in alternatives):
        return True
    for item in (item for sequence in alternatives for item in sequence):
        if item.alternatives is None:
            continue
        if (item.high > 1 and not _has_one_reading(item.alternatives)) or _explodes(item.alternatives):
            return True
    return False


def _longest_run(sequence: list[_Item]) -> int:
    """How many unbounded repetitions stand in a row with nothing between them that tells where one ends."""
    longest = run = 0
    repeated = frozenset[str]()
    for item in sequence:
        if item.high > 100:
            run = run + 1 if item.chars & repeated else 1
            repeated = item.chars
            longest = max(longest, run)
        elif _is_border(item, repeated):
            run, repeated = 0, frozenset[str]()
    return longest


def _has_one_reading(alternatives: list[list[_Item]]) -> bool:
    """Whether a text can be divided into rounds of this group in one way at most."""
    firsts = [sequence[0].chars if sequence else frozenset[str]() for sequence in alternatives]
    if len(alternatives) > 1 and sum(map(len, firsts)) != len(frozenset[str]().union(*firsts)):
        return False
    varying = [item for sequence in alternatives for item in sequence if item.varies]
    if not varying:
        return all(alternatives)
    inner = frozenset[str]().union(*(item.chars for item in varying))
    return all(any(_is_border(item, inner) for item in sequence) for sequence in alternatives)


def _is_border(item: _Item, inner: frozenset[str]) -> bool:
    return (
        item.alternatives is None and not item.varies and item.low > 0 and bool(item.chars) and not item.chars & inner
    )


def _parse(pattern: str) -> list[list[_Item]]:
    """The pattern as alternatives of sequences. It has been compiled, so that its brackets match."""
    stack: list[list[list[_Item]]] = [[[]]]
    position = 0
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            break
        position = token.end()
        if token["open"]:
            stack.append([[]])
        elif token["bar"]:
            stack[-1].append([])
        else:
            alternatives = stack.pop() if token["close"] and len(stack) > 1 else None
            low, high, position = _quantifier(pattern, position)
            stack[-1][-1].append(_item(token["atom"] or "", alternatives, low, high))
    return stack[0]


def _item(atom: str, alternatives: list[list[_Item]] | None, low: int, high: float) -> _Item:
    if alternatives is None:
        return _Item(_matched(atom), None, low, high)
    chars = frozenset[str]().union(*(item.chars for sequence in alternatives for item in sequence))
    return _Item(chars, alternatives, low, high)


def _quantifier(pattern: str, position: int) -> tuple[int, float, int]:
    match = _QUANTIFIER.match(pattern, position)
    if match is None or not (match["sign"] or match["low"] or match["high"]):
        return 1, 1, position
    if match["sign"]:
        low, high = {"*": (0, float("inf")), "+": (1, float("inf")), "?": (0, 1)}[match["sign"]]
        return low, high, match.end()
    low = int(match["low"] or 0)
    high = float(match["high"] or "inf") if match["comma"] else low
    return low, high, match.end()


@lru_cache(maxsize=512)
def _matched(atom: str) -> frozenset[str]:
    """The characters of the sample that an atom matches; all of them where it means something outside its place."""
    if atom in ("^", "$"):
        return frozenset()
    try:
        compiled = re.compile(atom, re.DOTALL)
    except re.error:  # a reference to a group, which may stand for any text
        return frozenset(_SAMPLE)
    return frozenset(char for char in _SAMPLE if compiled.fullmatch(char))
