"""The calls that wait for the plugin's answers, and the one timer that watches all their deadlines.

A timer for each call would cost more than the call's own frame. So there is one alarm, set to the earliest deadline
that was known when it was set; calls that are answered leave it alone, and when it rings it looks who is really late.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from msgspec import Raw, Struct


class Waiting(Struct, frozen=True):
    """One call: the future of its raw answer, what it is called, and when it is late by the loop's clock."""

    answer: asyncio.Future[Raw]
    method: str
    timeout_s: float
    due_s: float


class WaitingCalls:
    """The table of waiting calls. `expire` is told of each that is late, and is to settle it."""

    __slots__ = ("_alarm", "_alarm_s", "_expire", "_loop", "by_id")

    def __init__(self, loop: asyncio.AbstractEventLoop, expire: Callable[[int, Waiting], None]) -> None:
        self._loop = loop
        self._expire = expire
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_s = math.inf
        self.by_id: dict[int, Waiting] = {}

    def add(self, call_id: int, method: str, timeout_s: float) -> asyncio.Future[Raw]:
        """Wait for the answer to `call_id`, for at most `timeout_s`."""
        answer: asyncio.Future[Raw] = self._loop.create_future()
        due_s = self._loop.time() + timeout_s
        self.by_id[call_id] = Waiting(answer, method, timeout_s, due_s)
        if due_s < self._alarm_s:
            self._set_alarm(due_s)
        return answer

    def fail(self, error: Callable[[Waiting], Exception]) -> None:
        """Fail every waiting call, each with an error of its own, and stop the alarm."""
        waiting = list(self.by_id.values())
        self.by_id.clear()
        for call in waiting:
            if not call.answer.done():
                call.answer.set_exception(error(call))
        self._set_alarm(math.inf)

    def _set_alarm(self, at_s: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_s = at_s
        self._alarm = self._loop.call_at(at_s, self._ring) if at_s < math.inf else None

    def _ring(self) -> None:
        # The loop may ring early by the resolution of its clock; whoever is not late yet is then rung for again.
        now_s = self._loop.time()
        for call_id, call in [each for each in self.by_id.items() if each[1].due_s <= now_s]:
            del self.by_id[call_id]
            self._expire(call_id, call)
        self._set_alarm(min((call.due_s for call in self.by_id.values()), default=math.inf))
