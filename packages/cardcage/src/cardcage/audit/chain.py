"""The chain: each line of the log names the hash of the line before it, and its own.

A line is one JSON object without spaces: keys in the order of `Entry`, those of `fields` sorted, and `hash` last:

    {"v":1,"seq":2,"prev":"<hash of line 1>",...,"fields":{...},"hash":"<64 hexadecimal digits>"}

    hash = SHA-256 of the line's bytes without `,"hash":"..."`, which is to say of the object of all other keys.

The first line has seq 1 and a prev of 64 zeros. `docs/reference/audit.md` says the same for other programs.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import msgspec

from cardcage.audit.actions import Action
from cardcage.audit.event import AuditEvent
from cardcage.audit.fields import REASON_CHARS_MAX, FieldValue, clean_fields, clean_text

FORMAT: Final = 1
LINE_BYTES_MAX: Final = 16 * 1024
"""The longest line; of an event that would be longer the fields are dropped, and that they were is recorded."""
NO_HASH: Final = "0" * 64
_NAME_CHARS_MAX: Final = 200

_HASH_TAIL: Final = re.compile(rb',"hash":"([0-9a-f]{64})"\}$')
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line but for its hash."""

    v: int
    seq: int
    prev: str
    at: str
    actor: str
    action: str
    allowed: bool | None
    plugin: str
    version: str
    instance: str
    reason: str
    fields: dict[str, FieldValue]


_DECODER: Final = msgspec.json.Decoder(Entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where a chain ends: the number and the hash of its last line."""

    seq: int = 0
    hash: str = NO_HASH


@dataclass(frozen=True, slots=True, kw_only=True)
class RawLine:
    """A line as it stands in a file; `number` counts from 1 in each file."""

    file: str
    number: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line as it was read. `hash` is what it says, `computed` what its content amounts to."""

    entry: Entry
    hash: str
    computed: str
    canonical: bool

    @property
    def intact(self) -> bool:
        return self.hash == self.computed and self.canonical

    @property
    def head(self) -> Head:
        return Head(seq=self.entry.seq, hash=self.hash)


def entry_of(event: AuditEvent, head: Head, now_s: float) -> Entry:
    """The event as the line after `head`: cleaned, bounded and dated."""
    return Entry(
        v=FORMAT,
        seq=head.seq + 1,
        prev=head.hash,
        at=time_text(now_s if event.at_s is None else event.at_s),
        actor=str(event.actor),
        action=str(event.action),
        allowed=event.allowed,
        plugin=clean_text(event.plugin, _NAME_CHARS_MAX),
        version=clean_text(event.version, _NAME_CHARS_MAX),
        instance=clean_text(event.instance, _NAME_CHARS_MAX),
        reason=clean_text(event.reason, REASON_CHARS_MAX),
        fields=clean_fields(event.fields),
    )


def encode(entry: Entry) -> tuple[bytes, Head]:
    """The line, with its line break, and where the chain ends with it."""
    body = _ENCODER.encode(entry)
    if len(body) > LINE_BYTES_MAX - 80:
        body = _ENCODER.encode(msgspec.structs.replace(entry, fields={"dropped_fields": len(entry.fields)}))
    digest = hashlib.sha256(body).hexdigest()
    return body[:-1] + b',"hash":"' + digest.encode() + b'"}\n', Head(seq=entry.seq, hash=digest)


def parse(line: bytes) -> Line | None:
    """The line that these bytes (without a line break) spell; None where they spell none."""
    tail = _HASH_TAIL.search(line)
    if tail is None or len(line) > LINE_BYTES_MAX:
        return None
    body = line[: tail.start()] + b"}"
    try:
        entry = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    canonical = entry.v == FORMAT and entry.seq > 0 and bool(_TIME.fullmatch(entry.at)) and _same(entry, body)
    return Line(entry=entry, hash=tail[1].decode(), computed=hashlib.sha256(body).hexdigest(), canonical=canonical)


def time_text(at_s: float) -> str:
    """Seconds since 1970 as `2026-05-01T12:00:00.000000Z`; what is outside the calendar is its nearest end."""
    at_s = min(max(at_s, 0.0), 253402300799.0)
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def is_action(entry: Entry, action: Action) -> bool:
    """Whether a line tells of that act."""
    return entry.action == str(action)


def _same(entry: Entry, body: bytes) -> bool:
    try:
        return _ENCODER.encode(entry) == body
    except (UnicodeEncodeError, msgspec.EncodeError):
        return False
