"""How much memory a value would take once it is read, told from its bytes before anything is made of them.

A byte on the wire can become an empty map of 64 bytes, so the length of a frame says little. What counts are the lists
and maps of a value, and its other parts that are objects of their own: texts, byte strings, floats, long integers. An
upper bound of both is found by counting the bytes that could begin one, at a gigabyte a second; only where that is
above the limit, as in pictures and text that is not Latin, are the parts themselves walked through.

Imported when the first frame comes that is long enough to matter: most processes never see one.
"""

from __future__ import annotations

import re
from typing import Final

_CONTAINERS: Final = frozenset({*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF})
_PARTS: Final = frozenset({*range(0xA1, 0xC0), *range(0xC4, 0xCC), *range(0xCD, 0xD0), *range(0xD1, 0xDC)})
"""Bytes that begin what is an object of its own: not nil, booleans and small integers, of which there is one each."""

_NOT_CONTAINERS: Final = bytes(set(range(256)) - _CONTAINERS)
_NOT_PARTS: Final = bytes(set(range(256)) - _PARTS)

_FREE: Final = re.compile(rb"[\x00-\x7f\xc0\xc2\xc3\xe0-\xff]+")
"""Parts that are one byte and no object of their own."""

_FIXED: Final = {
    **{first: first - 0xA0 for first in range(0xA0, 0xC0)},
    **dict.fromkeys((0xCC, 0xD0), 1),
    **dict.fromkeys((0xCD, 0xD1), 2),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 4),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 8),
    **{0xD4 + power: 1 + (1 << power) for power in range(5)},
}
"""Bytes that follow, in a part that begins so."""

_RUNS: Final = {
    first: re.compile(b"(?:" + re.escape(bytes([first])) + b".{%d})+" % size, re.DOTALL)
    for first, size in _FIXED.items()
}
"""Equal parts in a row are stepped over at once: columns of numbers are nothing else."""

_OPENING: Final = {**dict.fromkeys(range(0x80, 0xA0), 1), **dict.fromkeys((0xDC, 0xDE), 3), 0xDD: 5, 0xDF: 5}
"""How long the beginning of a list or a map is; what it holds are parts of their own."""

_PREFIXED: Final = {
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xC7: (1, 1),
    0xC8: (2, 1),
    0xC9: (4, 1),
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
}
"""Bytes of the length that follows, and of what stands between it and the contents."""

# One that is not closed is taken to the end, and nothing is tried twice: the time is that of one look at each byte.
_JSON_TEXT: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def overweight(data: bytes, *, json: bool, containers: int, parts: int) -> str:
    """What there is too much of in a message, in words, or nothing. Malformed bytes have no weight: see who reads them.

    >>> overweight(b"\\x93\\x80\\x80\\x80", json=False, containers=3, parts=10)
    'Expected at most 3 lists and maps, got more'
    """
    count = _count_json if json else _count_binary
    held, more = count(data, containers, parts)
    if held > containers:
        return f"Expected at most {containers} lists and maps, got more"
    if more > parts:
        return f"Expected at most {parts} texts, byte strings and numbers, got more"
    return ""


def _count_binary(data: bytes, containers: int, parts: int) -> tuple[int, int]:
    held = len(data.translate(None, _NOT_CONTAINERS))
    more = len(data.translate(None, _NOT_PARTS))
    if held <= containers and more <= parts:
        return held, more
    return _walk(data, containers, parts)


def _walk(data: bytes, containers: int, parts: int) -> tuple[int, int]:
    """Exact counts, or the first that is above its limit."""
    held = more = at = 0
    end = len(data)
    while at < end and held <= containers and more <= parts:
        first = data[at]
        if first in _OPENING:
            at += _OPENING[first]
            held += 1
        elif first in _PREFIXED:
            size, between = _PREFIXED[first]
            at += 1 + size + between + int.from_bytes(data[at + 1 : at + 1 + size], "big")
            more += 1
        elif run := _RUNS.get(first, _FREE).match(data, at):
            if first in _PARTS:
                more += (run.end() - at) // (1 + _FIXED[first])
            at = run.end()
        else:
            break  # cut short, or a byte that begins nothing: whoever reads it says so
    return held, more


def _count_json(data: bytes, containers: int, parts: int) -> tuple[int, int]:
    held, more = data.count(b"[") + data.count(b"{"), data.count(b",") + data.count(b":") + 1
    if held <= containers and more <= parts:
        return held, more
    bare = _JSON_TEXT.sub(b"", data)
    return bare.count(b"[") + bare.count(b"{"), bare.count(b",") + bare.count(b":") + 1
