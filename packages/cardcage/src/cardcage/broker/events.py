"""Events: facts in the past tense, published once and handed to everyone whose pattern matches.

Publishing never waits and never fails because of a subscriber: each has a queue of its own with a bound, in which the
order of publication is kept. A subscriber that does not keep up loses its oldest events, and the loss is counted.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final

LOGGER: Final = logging.getLogger("cardcage.events")

QUEUE_EVENTS_MAX: Final = 1000
"""Events that wait for one subscriber: at 100 events a second, ten seconds of patience with a slow one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`name` such as `cost.spike`; `source` is the plugin instance that published it, or None for the host."""

    name: str
    data: Any
    source: str | None
    at_s: float


Callback = Callable[[Event], Awaitable[None] | None]


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscriber: a pattern (`cost.*`, as in file names), a callback, and what waits for it."""

    pattern: str
    callback: Callback
    owner: str
    waiting: deque[Event] = field(default_factory=deque[Event])
    lost: int = 0
    pump: asyncio.Task[None] | None = None

    def matches(self, name: str) -> bool:
        return fnmatchcase(name, self.pattern)


class EventBus:
    """Publish and subscribe within one manager. Use it from one event loop."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription] = []

    def subscribe(self, pattern: str, callback: Callback, *, owner: str = "host") -> Callable[[], None]:
        """Hand every event whose name matches `pattern` to `callback`, in order; returns the way to end it."""
        subscription = Subscription(pattern=pattern, callback=callback, owner=owner)
        self._subscriptions.append(subscription)

        def unsubscribe() -> None:
            if subscription in self._subscriptions:
                self._subscriptions.remove(subscription)
            subscription.waiting.clear()

        return unsubscribe

    def unsubscribe_owner(self, owner: str) -> None:
        """End all subscriptions of one owner."""
        for subscription in [one for one in self._subscriptions if one.owner == owner]:
            self._subscriptions.remove(subscription)
            subscription.waiting.clear()

    def publish(self, event: Event, *, besides: frozenset[str] = frozenset()) -> int:
        """Queue the event for all who want it, but for the owners `besides`; returns how many do."""
        wanted = [one for one in self._subscriptions if one.matches(event.name) and one.owner not in besides]
        for subscription in wanted:
            if len(subscription.waiting) >= QUEUE_EVENTS_MAX:
                subscription.waiting.popleft()
                subscription.lost += 1
                if subscription.lost in (1, 10, 100) or subscription.lost % 1000 == 0:
                    LOGGER.warning("%s is too slow for %s: %d events lost", subscription.owner, subscription.pattern,
                                   subscription.lost)  # fmt: skip
            subscription.waiting.append(event)
            if subscription.pump is None:
                subscription.pump = asyncio.create_task(self._pump(subscription), name=f"events {subscription.owner}")
        return len(wanted)

    async def drained(self) -> None:
        """Wait until everything published so far has been handed over."""
        while pumps := [one.pump for one in self._subscriptions if one.pump is not None]:
            await asyncio.wait(pumps)

    async def aclose(self) -> None:
        """End all subscriptions; what still waits is dropped."""
        pumps = [one.pump for one in self._subscriptions if one.pump is not None]
        self._subscriptions.clear()
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, subscription: Subscription) -> None:
        try:
            while subscription.waiting:
                event = subscription.waiting.popleft()
                try:
                    answer = subscription.callback(event)
                    if inspect.isawaitable(answer):
                        await answer
                except Exception:  # one subscriber's failure is its own
                    LOGGER.exception("%s failed on the event %s", subscription.owner, event.name)
        finally:
            # No await stands between the last look at the queue and here, so no event can be left without a pump.
            subscription.pump = None
