"""The numbers that bound what a peer can make this side hold, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ID_MAX: Final = 2**53 - 1
"""Ids, nonces and milliseconds stay exact in every language, JavaScript's doubles included."""

NAME_CHARS_MAX: Final = 256
"""Methods, events and metrics are names that people read; a longer one is data in the wrong place."""

CODE_CHARS_MAX: Final = 64
"""An error code is a word such as `invalid_params`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WireLimits:
    """What one connection may use. Both sides of version 1 of the protocol assume at least these defaults."""

    frame_bytes: int = 16 * 1024 * 1024
    """The longest frame or line: large enough for a page of a bill, small enough to hold for each of 1000 plugins."""

    depth: int = 64
    """How deep lists and maps of a value may nest where no declared type bounds them. People's data seldom passes 12,
    and Python, JavaScript and Go all walk 64 levels without a thought for the stack."""

    containers: int = 262_144
    """Lists and maps in one message. An empty map is a byte on the wire and 64 in memory, one of an entry 4 and 184: a
    frame full of them would take a gigabyte. A frame full of rows of 64 bytes has no more than this."""

    parts: int = 2_097_152
    """Texts, byte strings and long numbers in one message, some 60 bytes each in memory. A frame full of texts of seven
    characters has no more."""

    in_flight_calls: int = 1024
    """Calls of one side that wait for their answers. The peer holds some state for each of them."""

    credit: int = 65_536
    """Items that a stream may have on the way. A consumer that wants more ahead of itself wants a list."""
