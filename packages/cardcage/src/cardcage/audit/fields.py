"""What an event may carry besides its reason: a closed list of names, and values that are small, plain and printable.

The list is what keeps secrets out: there is no name under which a configuration, an argument, a header or a body could
be recorded. A name that is not on it is dropped, and that it was dropped is recorded.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any, Final, TypedDict, cast

FieldValue = str | int | float | bool | list[str] | None

TEXT_CHARS_MAX: Final = 400
"""The longest text of a field: a path, an endpoint or a sentence; what is longer is cut."""
REASON_CHARS_MAX: Final = 600
LIST_ITEMS_MAX: Final = 64
"""There are some twenty layers of walls, and a manifest seldom asks for ten permissions."""
INTEGER_MAX: Final = 2**53 - 1
"""The largest that every reader of JSON takes exactly."""


class AuditFields(TypedDict, total=False):
    """The names that fields may have. Add one here when an act needs it; never one that would hold a secret."""

    # decisions
    permission: str
    optional: bool
    grant: str
    grants: list[str]
    policy: str
    rule: str
    level: str
    source: str
    code: str
    """The stable code of the error that the caller got."""
    paths: list[str]
    """Where in a document the faults are; never what stands there."""

    # packages
    digest: str
    digest_before: str
    version_before: str
    path: str
    publisher: str
    key_id: str

    # processes
    isolation: str
    runner: str
    pid: int
    uid: int
    layer: str
    layers: list[str]
    """Each layer with its status, `landlock_files=enforced`."""
    floor: list[str]
    exit_reason: str
    exit_code: int
    signal: int
    restarts: int
    delay_s: float
    duration_s: float
    limit: str
    limit_value: int | float
    measured_value: int | float
    unit: str
    system_call: str

    # calls, events, hooks
    capability: str
    service: str
    method: str
    event: str
    pattern: str
    hook: str
    tool: str

    # network and secrets, by their names only
    endpoint: str
    host: str
    port: int
    address: str
    bytes_in: int
    bytes_out: int
    secret: str
    """The name of a secret or credential."""
    scheme: str
    subject: str
    serial: str

    # the log itself
    repeated: str
    """The action that came so many more times."""
    count: int
    counts: list[str]
    bytes: int
    text: str
    log: str
    segment: int
    first_seq: int
    last_seq: int
    last_hash: str
    public_key: str
    signature: str
    dropped_fields: int


FIELD_NAMES: Final = frozenset(AuditFields.__annotations__)

# C0, DEL, C1, what joins or turns text, line and paragraph separators, and halves of surrogate pairs: what could drive
# a terminal, make a line look like another, or is no text at all.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_HIDDEN: Final = "[hidden]"
_LOOKS_SECRET: Final = (
    (re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]{0,20}://)[^/\s@]{1,4096}@"), rf"\1{_HIDDEN}@"),  # user:password@host
    (re.compile(r"([?&][A-Za-z0-9_.~%-]{1,64}=)[^&#\s'\"]+"), rf"\1{_HIDDEN}"),  # ?token=...
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/=._~-]{8,}"), rf"\1 {_HIDDEN}"),  # an Authorization header
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL), _HIDDEN),
)

_SUSPECT: Final = re.compile(r"(?i)://|[?&]|bearer|basic|-----BEGIN")
"""What one of those patterns needs to be there: most texts are looked through once."""


def clean_text(text: object, chars_max: int = TEXT_CHARS_MAX) -> str:
    """`text` on one line, with control characters written out and what looks like a credential hidden, cut to size."""
    shown = str(text)[: 8 * chars_max]  # what is cut off anyway is not searched
    if _SUSPECT.search(shown):
        for pattern, replacement in _LOOKS_SECRET:
            shown = pattern.sub(replacement, shown)
    if not shown.isprintable():
        shown = _CONTROL.sub(_escape, shown)
    return shown if len(shown) <= chars_max else shown[: chars_max - 1] + "\N{HORIZONTAL ELLIPSIS}"


def clean_fields(fields: Mapping[str, object]) -> dict[str, FieldValue]:
    """The fields as they may be kept: known names in their order, values bounded. Never raises."""
    kept: dict[str, FieldValue] = {
        name: _clean_value(fields[name]) for name in sorted(fields) if name in FIELD_NAMES and fields[name] is not None
    }
    if dropped := sum(name not in FIELD_NAMES for name in fields):
        kept["dropped_fields"] = dropped
        kept = dict(sorted(kept.items()))
    return kept


def _clean_value(value: object) -> FieldValue:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        # A very long one has no decimal text: Python refuses to make it.
        return value if -INTEGER_MAX <= value <= INTEGER_MAX else hex(value)[:TEXT_CHARS_MAX]
    if isinstance(value, float):
        return round(value, 6) if isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return _clean_list(cast("Sequence[Any]", value))
    return clean_text(value)


def _clean_list(values: Sequence[Any]) -> list[str]:
    members = [clean_text(value) for value in values[:LIST_ITEMS_MAX]]
    rest = len(values) - LIST_ITEMS_MAX
    return members if rest <= 0 else [*members, f"and {rest} more"]


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")
