"""How a file of the log ends: its last line, and what a host that ended in the middle of one left behind."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from cardcage.audit.chain import LINE_BYTES_MAX, Head, Line, parse

_BLOCK_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Tail:
    """`head` is None where no line of a log stands in the file. `whole_bytes` is its length without what is torn."""

    head: Head | None
    whole_bytes: int
    torn: bytes = b""
    """The beginning of a line without its end."""
    unended: bool = False
    """The last line is whole but for its line break."""
    strange_lines: int = 0
    """Lines after `head` that are none of a log."""


def read_tail(descriptor: int) -> Tail:
    """The end of the file behind `descriptor`."""
    size = os.fstat(descriptor).st_size
    start, data = size, b""
    while True:
        step = min(_BLOCK_BYTES, start)
        start -= step
        data = os.pread(descriptor, step, start) + data
        tail = _tail_of(data, size)
        if start == 0 or (tail.head is not None and data.count(b"\n") > tail.strange_lines + 1):
            return tail


def read_first(descriptor: int) -> Line | None:
    """The first line of the file."""
    line, found, _ = os.pread(descriptor, LINE_BYTES_MAX + 1, 0).partition(b"\n")
    return parse(line) if found else None


def _tail_of(data: bytes, size: int) -> Tail:
    *lines, rest = data.split(b"\n")
    unended = parse(rest)
    if unended is not None and unended.intact:
        return Tail(head=unended.head, whole_bytes=size, unended=True)
    strange = 0
    for line in reversed(lines):
        parsed = parse(line)
        if parsed is not None:
            return Tail(head=parsed.head, whole_bytes=size - len(rest), torn=rest, strange_lines=strange)
        strange += 1
    return Tail(head=None, whole_bytes=size - len(rest), torn=rest, strange_lines=strange)
