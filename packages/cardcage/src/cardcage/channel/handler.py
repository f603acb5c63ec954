"""What a channel hands on to its owner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


class ChannelHandler(Protocol):
    """Takes what the plugin begins: calls into the host, events, logs and metrics.

    Everything comes from a plugin and may be hostile: text is as it was sent and is to be escaped before it is shown.
    """

    async def on_call(self, method: str, args: Any, meta: Mapping[str, Any]) -> Any:
        """Run a call of the plugin's; `args` is a list or a dict. What it returns is the answer.

        `Refused`, `Misuse` and `Unavailable` are answered with their sentence; any other exception is logged, and the
        plugin is told only that the host failed. Cancelled when the plugin cancels, its deadline passes, or it goes.
        """
        ...

    def on_event(self, name: str, data: Any) -> None:
        """Take an event that the plugin published."""
        ...

    def on_log(self, level: str, message: str, fields: Mapping[str, Any] | None) -> None:
        """Take a line for the log."""
        ...

    def on_metric(self, name: str, kind: str, value: float, tags: Mapping[str, str] | None) -> None:
        """Take a measurement; `kind` is counter, gauge or histogram."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CloseReason:
    """Why a channel ended.

    `code` is `closed` (the host asked), `goodbye` (the plugin did), `connection_lost` (it hung up without a word),
    `protocol_error`, or `deadline_exceeded` (it did not say hello, stopped reading, or left a frame unfinished).
    `expected` is true for the first two.
    """

    code: str
    message: str

    @property
    def expected(self) -> bool:
        """Whether the ending was an orderly one."""
        return self.code in ("closed", "goodbye")
