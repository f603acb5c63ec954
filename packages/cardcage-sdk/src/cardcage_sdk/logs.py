"""Python's logging, sent to the host. Imported when a plugin first logs, since `logging` is not small."""

from __future__ import annotations

import logging
from typing import Any, Final

import msgspec

from cardcage_sdk.context import HostLink

_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

FIELD_CHARS_MAX: Final = 2000
"""A field that has no plain form is sent as its repr, up to this length."""


class HostHandler(logging.Handler):
    """Sends each record as one log message: level, text, and as fields what came by `extra` and the traceback."""

    def __init__(self, link: HostLink, own_name: str) -> None:
        super().__init__()
        self._link = link
        self._own_name = own_name

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record. A record that cannot be formatted is reported on stderr, as logging does everywhere."""
        try:
            fields = {name: plain(value) for name, value in vars(record).items() if name not in _STANDARD}
            if record.name != self._own_name:
                fields["logger"] = record.name
            if record.exc_info:
                fields["traceback"] = _formatter.formatException(record.exc_info)
            self._link.log(_level_word(record.levelno), record.getMessage(), fields or None)
        except Exception:
            self.handleError(record)


_formatter = logging.Formatter()


def plugin_logger(link: HostLink, plugin: str, level: str) -> logging.Logger:
    """The plugin's logger. All loggers of the process reach the host through the same handler, on the root."""
    root = logging.getLogger()
    own_name = f"plugin.{plugin}"
    for handler in [handler for handler in root.handlers if isinstance(handler, HostHandler)]:
        root.removeHandler(handler)
    root.addHandler(HostHandler(link, own_name))
    root.setLevel(level.upper() if level.upper() in logging.getLevelNamesMapping() else logging.INFO)
    return logging.getLogger(own_name)


def plain(value: Any) -> Any:
    """`value` as data that any encoding can carry; what has no such form becomes its repr."""
    try:
        return msgspec.to_builtins(value, str_keys=True, enc_hook=_shortened)
    except Exception:
        return _shortened(value)


def _shortened(value: Any) -> str:
    return repr(value)[:FIELD_CHARS_MAX]


def _level_word(number: int) -> str:
    if number >= logging.CRITICAL:
        return "critical"
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"
