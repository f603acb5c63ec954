"""What one connection owes: the calls, streams and pings open on either side, and what arrives checked against them.

Messages that are the peer's fault raise. Otherwise each `on_` method tells whether the message is to be handed on, or
dropped because it crossed something on its way. See `session` for the rules.
"""

from __future__ import annotations

from typing import Final

from cardcage_sdk.wire.errors import RemoteProtocolError
from cardcage_sdk.wire.limits import WireLimits
from cardcage_sdk.wire.messages import Call, Cancel, Credit, Error, Item, Pong, Result

NO_STREAM: Final = -1
"""What stands in place of the credit of a call that asked for no stream."""


class Ledger:
    """The open calls of both sides. The session, which sends, writes its own entries."""

    __slots__ = (
        "_credit_max",
        "_in_flight_max",
        "calls",
        "cancelled",
        "last_call_id",
        "last_served_id",
        "pings",
        "serving",
    )

    def __init__(self, limits: WireLimits) -> None:
        self._credit_max = limits.credit
        self._in_flight_max = limits.in_flight_calls
        self.calls: dict[int, int] = {}
        """This side's unanswered calls, each with the items it will still take."""
        self.cancelled: set[int] = set()
        """Those it has cancelled: their answers are still to come."""
        self.serving: dict[int, int] = {}
        """The peer's calls that this side is to answer, each with the items it may still send."""
        self.pings: set[int] = set()
        self.last_call_id = 0
        self.last_served_id = 0

    def on_call(self, message: Call) -> bool:
        """Take note of a call that the peer has begun."""
        if message.id <= self.last_served_id:
            raise RemoteProtocolError(
                f"began call {message.id} after call {self.last_served_id}, but call ids ascend", code="call_id"
            )
        if len(self.serving) >= self._in_flight_max:
            raise RemoteProtocolError(
                f"began a call while {self._in_flight_max} others are unanswered, the most there may be",
                code="call_limit",
            )
        if message.credit:
            self._check_credit(message.id, message.credit)
        self.last_served_id = message.id
        self.serving[message.id] = message.credit or NO_STREAM
        return True

    def on_answer(self, message: Result | Error) -> bool:
        """Settle one of this side's calls; an answer to a cancelled one is dropped."""
        if self.calls.pop(message.id, None) is not None:
            return True
        if message.id in self.cancelled:
            self.cancelled.remove(message.id)
            return False
        raise self._not_open(message.id, "answered")

    def on_item(self, message: Item) -> bool:
        """Spend one credit of a stream; an item of a cancelled one is dropped."""
        left = self.calls.get(message.id)
        if left is None:
            if message.id in self.cancelled:
                return False
            raise self._not_open(message.id, "sent an item for")
        if left <= 0:
            why = "asked for no stream" if left == NO_STREAM else "had no credit left"
            raise RemoteProtocolError(f"sent an item for call {message.id}, which {why}", code="credit")
        self.calls[message.id] = left - 1
        return True

    def on_cancel(self, message: Cancel) -> bool:
        """A cancel for a call that is over is dropped."""
        return self._is_open_or_over(message.id, "cancelled")

    def on_credit(self, message: Credit) -> bool:
        """Add to what may be sent of a stream; credit for a call that is over is dropped."""
        if not self._is_open_or_over(message.id, "gave credit for"):
            return False
        left = self.serving[message.id]
        if left == NO_STREAM:
            raise RemoteProtocolError(f"gave credit for call {message.id}, which asked for no stream", code="credit")
        self._check_credit(message.id, left + message.n)
        self.serving[message.id] = left + message.n
        return True

    def on_pong(self, message: Pong) -> bool:
        """Settle a ping."""
        if message.nonce not in self.pings:
            raise RemoteProtocolError(f"answered ping {message.nonce}, which was not sent", code="unexpected_message")
        self.pings.remove(message.nonce)
        return True

    def _is_open_or_over(self, call_id: int, deed: str) -> bool:
        if call_id in self.serving:
            return True
        if call_id > self.last_served_id:
            raise RemoteProtocolError(f"{deed} call {call_id}, which it never made", code="call_id")
        return False

    def _check_credit(self, call_id: int, credit: int) -> None:
        if credit > self._credit_max:
            raise RemoteProtocolError(
                f"gave call {call_id} a credit of {credit}, but it is limited to {self._credit_max}", code="credit"
            )

    def _not_open(self, call_id: int, deed: str) -> RemoteProtocolError:
        why = "was answered before" if call_id <= self.last_call_id else "was never made"
        return RemoteProtocolError(f"{deed} call {call_id}, which {why}", code="call_id")
