"""Some lines of a log, and how they look as a row of a table. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Final

from cardcage.audit.actions import Action
from cardcage.audit.chain import Entry
from cardcage.foundation.errors import Misuse

COLUMNS: Final = (
    "seq",
    "at",
    "actor",
    "action",
    "allowed",
    "plugin",
    "version",
    "instance",
    "reason",
    "fields",
    "hash",
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which lines are wanted. `plugin` is a plugin or an instance of one; `action` may have `*`; times are UTC."""

    plugin: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    denied: bool = False

    def __post_init__(self) -> None:
        if self.action is not None and not any(fnmatchcase(str(known), self.action) for known in Action):
            raise Misuse(
                f"no action is called {self.action!r}",
                code="unknown_action",
                hint="such as egress.refused, or egress.* for all of a kind; docs/reference/audit.md lists them",
            )

    @property
    def everything(self) -> bool:
        """Whether no line is left out."""
        return self == Selection()

    def wants(self, entry: Entry) -> bool:
        """Whether a line is wanted."""
        return (
            (self.plugin is None or self.plugin in (entry.plugin, entry.instance))
            and (self.action is None or fnmatchcase(entry.action, self.action))
            and (not self.denied or entry.allowed is False)
            and (self.since is None or entry.at >= _text(self.since))
            and (self.until is None or entry.at < _text(self.until))
        )


def parse_time(text: str, *, option: str) -> datetime:
    """A date or a time in ISO 8601; without an offset it is UTC. Raises `Misuse` for anything else."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Misuse(
            f"{option} is {text[:40]!r}, expected a date or a time such as 2026-05-01 or 2026-05-01T12:00:00Z",
            code="bad_time",
        ) from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def row(entry: Entry, hash_: str) -> list[str]:
    """The line as cells of a table, in the order of `COLUMNS`. No cell begins what a spreadsheet would run."""
    allowed = {True: "yes", False: "no", None: ""}[entry.allowed]
    cells = [
        str(entry.seq),
        entry.at,
        entry.actor,
        entry.action,
        allowed,
        entry.plugin,
        entry.version,
        entry.instance,
        entry.reason,
        fields_text(entry.fields),
        hash_,
    ]
    return [f"'{cell}" if cell.startswith(_FORMULA) else cell for cell in cells]


def fields_text(fields: Mapping[str, object]) -> str:
    """The fields on one line, as JSON."""
    return json.dumps(dict(fields), ensure_ascii=False) if fields else ""


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
