"""Small charts out of characters: bars and sparklines. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from itertools import pairwise
from typing import Final

_EIGHTHS: Final = " ▏▎▍▌▋▊▉█"
_LEVELS: Final = "▁▂▃▄▅▆▇█"
_ASCII_LEVELS: Final = "_.:-=+*#"


def bar(share: float, width: int, *, ascii_only: bool = False) -> str:
    """A bar of `share` (0 to 1) of `width` characters, to an eighth of a character; never empty above 0."""
    share = min(max(share, 0.0), 1.0)
    if ascii_only:
        return "#" * max(round(share * width), 1 if share > 0 else 0)
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    full, rest = divmod(eighths, 8)
    return "█" * full + (_EIGHTHS[rest] if rest else "")


def sparkline(values: Sequence[Decimal], width: int, *, ascii_only: bool = False) -> str:
    """The values as one line of at most `width` characters, from the least to the greatest.

    More values than characters are averaged in even groups; a line without any change stays at its lowest level.
    """
    if not values or width < 1:
        return ""
    points = _averaged([float(value) for value in values], width)
    levels = _ASCII_LEVELS if ascii_only else _LEVELS
    low, high = min(points), max(points)
    if high <= low:
        return levels[0] * len(points)
    scale = (len(levels) - 1) / (high - low)
    return "".join(levels[round((point - low) * scale)] for point in points)


def _averaged(values: list[float], width: int) -> list[float]:
    count = len(values)
    if count <= width:
        return values
    edges = [round(at * count / width) for at in range(width + 1)]
    groups = [values[start:end] for start, end in pairwise(edges) if end > start]
    return [sum(group) / len(group) for group in groups]
