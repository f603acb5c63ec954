"""What a plugin says: its log messages and whatever it prints, bounded, escaped and labelled.

All of it is hostile text. Control characters are escaped, so that no line can forge another or drive the operator's
terminal; lines are cut; and a token bucket keeps a flood out of the host's own log while the number of lines dropped is
still told.
"""

from __future__ import annotations

import logging
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cardcage.foundation.clock import Clock
from cardcage.foundation.limits import (
    LOG_BURST_LINES,
    LOG_LINE_CHARS_MAX,
    LOG_LINES_PER_S,
    PLUGIN_LOG_HISTORY_LINES,
)

LOGGER: Final = logging.getLogger("cardcage.plugin")

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}

# C0, DEL, C1, the line and paragraph separators, and the marks that turn the direction of text.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape(text: str) -> str:
    """`text` with every control character written out, such as `\\x1b` or `\\n`; never longer than the line limit."""
    cut = text if len(text) <= LOG_LINE_CHARS_MAX else f"{text[:LOG_LINE_CHARS_MAX]}... ({len(text)} characters)"
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), cut)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line. `source` is `log`, `stdout`, `stderr` or `host`; `at_s` is wall time in seconds since 1970 UTC."""

    at_s: float
    level: str
    source: str
    text: str
    fields: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def to_json(self) -> dict[str, Any]:
        return {
            "at": self.at_s,
            "level": self.level,
            "source": self.source,
            "text": self.text,
            "fields": dict(self.fields),
        }


class LogBook:
    """The last lines of one instance, each also handed to the host's logger with the prefix `[plugin:<name>]`."""

    def __init__(self, plugin: str, clock: Clock, *, lines_per_s: int = LOG_LINES_PER_S) -> None:
        """`lines_per_s` may lower the host's own limit, never raise it."""
        self._lines_per_s = min(lines_per_s, LOG_LINES_PER_S)
        self._burst = float(LOG_BURST_LINES * self._lines_per_s // LOG_LINES_PER_S or 1)
        self._plugin = plugin
        self._prefix = f"[plugin:{plugin}]"
        self._clock = clock
        self._lines: deque[LogLine] = deque(maxlen=PLUGIN_LOG_HISTORY_LINES)
        self._tokens = self._burst
        self._filled_at_s = clock.monotonic_s()
        self._dropped = 0
        self.dropped_total = 0

    def lines(self) -> list[LogLine]:
        """All lines still kept, the oldest first."""
        return list(self._lines)

    def write(self, level: str, source: str, text: str, fields: Mapping[str, Any] | None = None) -> None:
        """Take one line from the plugin, or count it as dropped where the plugin floods."""
        if not self._take_token():
            self._dropped += 1
            self.dropped_total += 1
            return
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            self._keep("warning", "host", f"{dropped} lines dropped: more than {self._lines_per_s} a second", {})
        self._keep(level if level in _LEVELS else "info", source, escape(text), _plain(fields or {}))

    def note(self, level: str, text: str) -> None:
        """A line of the host's own about this instance; never dropped."""
        self._keep(level, "host", escape(text), {})

    def _keep(self, level: str, source: str, text: str, fields: Mapping[str, Any]) -> None:
        line = LogLine(at_s=self._clock.wall_s(), level=level, source=source, text=text, fields=fields)
        self._lines.append(line)
        facts = {"plugin": self._plugin, "plugin_line": line, "plugin_fields": fields}
        LOGGER.log(_LEVELS[level], "%s %s", self._prefix, text, extra=facts)

    def _take_token(self) -> bool:
        now_s = self._clock.monotonic_s()
        self._tokens = min(self._burst, self._tokens + (now_s - self._filled_at_s) * self._lines_per_s)
        self._filled_at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    """At most 32 fields, names and texts escaped."""
    kept = list(fields.items())[:32]
    return {
        escape(str(name)): escape(value)
        if isinstance(value, str)
        else escape(repr(value))
        if not isinstance(value, int | float | bool | type(None))
        else value
        for name, value in kept
    }
