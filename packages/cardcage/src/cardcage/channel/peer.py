"""Who is at the other end, and the errors that name it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cardcage.foundation.errors import CardcageError, Misuse, PluginFault, Refused, Unavailable
from cardcage_sdk.wire import ERROR_CODES

MESSAGE_CHARS_MAX: Final = 2000
"""How much of a plugin's own words an error carries: a screen of text; more belongs in the plugin's log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The plugin at the other end of a channel, as errors name it.

    What errors say may quote the plugin, so all of it is made plain.
    """

    plugin: str
    version: str
    instance: str

    def __str__(self) -> str:
        apart = "" if self.instance == self.plugin else f" (instance {self.instance})"
        return f'plugin "{self.plugin}" {self.version}{apart}'

    def fault(self, code: str, what: str, *, hint: str | None = None, **fields: Any) -> PluginFault:
        """The error that says of this plugin `what` it did."""
        return PluginFault(f"{self} {plain(what)}", code=code, hint=hint, **self._fields(), **fields)

    def unavailable(self, what: str, *, retry_after_s: float | None = None, **fields: Any) -> Unavailable:
        """The error that says `what` keeps this plugin from being called now."""
        return Unavailable(f"{self} {plain(what)}", retry_after_s=retry_after_s, **self._fields(), **fields)

    def misuse(self, code: str, what: str, **fields: Any) -> Misuse:
        """The error for a caller of this plugin, who did `what`."""
        return Misuse(f"{self} {plain(what)}", code=code, **self._fields(), **fields)

    def answered(self, method: str, code: str, message: str, data: Any) -> CardcageError:
        """The error for a call that the plugin answered with one."""
        if code not in ERROR_CODES:
            code = "plugin_error"
        words = plain(message)
        fields = {**self._fields(), "method": method, "data": data}
        match code:
            case "invalid_params":
                return Misuse(f"{self} does not take these arguments for {method}: {words}", code=code, **fields)
            case "refused":
                return Refused(f"{self} was refused in {method}: {words}", **fields)
            case "unavailable":
                return Unavailable(
                    f"{self} can't run {method} now: {words}", retry_after_s=_retry_after_s(data), **fields
                )
            case "method_not_found":
                return PluginFault(f"{self} has no method {method}: {words}", code=code, **fields)
            case "deadline_exceeded":
                return PluginFault(f"{self} ran out of time in {method}: {words}", code=code, **fields)
            case "cancelled":
                return PluginFault(f"{self} gave up {method}: {words}", code=code, **fields)
            case _:
                return PluginFault(f"{self} failed in {method}: {words}", code=code, **fields)

    def _fields(self) -> dict[str, str]:
        return {"plugin": self.plugin, "version": self.version, "instance": self.instance}


def plain(text: str) -> str:
    """A plugin's words, made safe for a terminal and a log: no control characters but line ends, and not too long."""
    shown = text if len(text) <= MESSAGE_CHARS_MAX else text[:MESSAGE_CHARS_MAX] + "..."
    if shown.isprintable():
        return shown
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in shown)


def _retry_after_s(data: Any) -> float | None:
    if isinstance(data, Mapping):
        value: Any = data.get("retry_after_s")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if isinstance(value, int | float) and value >= 0:
            return float(value)
    return None
