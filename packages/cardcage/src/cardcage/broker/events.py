"""Events: facts in the past tense, published once and handed to everyone whose pattern matches.

Publishing never waits and never fails because of a subscriber: each has a queue of its own with a bound, in which the
order of publication is kept. A subscriber that does not keep up loses its oldest events, and the loss is counted.
What waits is bounded in number and in memory: events may come from plugins, and are as large as those make them.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from fnmatch import translate
from typing import Any, Final, cast

from cardcage.foundation.limits import MIB

LOGGER: Final = logging.getLogger("cardcage.events")

QUEUE_EVENTS_MAX: Final = 1000
"""Events that wait for one subscriber: at 100 events a second, ten seconds of patience with a slow one."""

QUEUE_BYTES_MAX: Final = 8 * MIB
"""Memory of the events that wait for one subscriber: at the full number, 8 KiB for each, and facts are smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """`name` such as `cost.spike`; `source` is the plugin instance that published it, or None for the host."""

    name: str
    data: Any
    source: str | None
    at_s: float


def weigh(data: Any, limit_bytes: int = QUEUE_BYTES_MAX) -> int:
    """About how much memory plain data takes; not looked at any further once it is above `limit_bytes`.

    A message of empty maps takes ninety times its length, so that lengths on the wire say little.
    """
    total, pending = 0, [data]
    while pending and total <= limit_bytes:
        value: Any = pending.pop()
        if isinstance(value, str | bytes):
            total += 64 + len(value)
        elif isinstance(value, dict):
            mapping = cast("dict[Any, Any]", value)
            total += 64 + 100 * len(mapping)
            pending += mapping.keys()
            pending += mapping.values()
        elif isinstance(value, list | tuple):
            members = cast("list[Any]", value)
            total += 64 + 8 * len(members)
            pending += members
        else:
            total += 32
    return total


Callback = Callable[[Event], Awaitable[None] | None]


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscriber: a pattern (`cost.*`, as in file names), a callback, and what waits for it."""

    pattern: str
    callback: Callback
    owner: str
    waiting: deque[tuple[Event, int]] = field(default_factory=deque[tuple[Event, int]])
    """Each event with its weight."""
    waiting_bytes: int = 0
    lost: int = 0
    pump: asyncio.Task[None] | None = None
    _matches: Callable[[str], object] = field(init=False)

    def __post_init__(self) -> None:
        # Compiled once: the cache of `fnmatch` holds 256 patterns for the whole program, and plugins bring their own.
        self._matches = re.compile(translate(self.pattern)).match

    def matches(self, name: str) -> bool:
        return self._matches(name) is not None

    def put(self, event: Event, weight: int) -> None:
        """Hold an event until it is handed over; the oldest make room for it. A large one may wait alone."""
        self.waiting.append((event, weight))
        self.waiting_bytes += weight
        while len(self.waiting) > QUEUE_EVENTS_MAX or (self.waiting_bytes > QUEUE_BYTES_MAX and len(self.waiting) > 1):
            self.take()
            self.lost += 1
            if self.lost in (1, 10, 100) or self.lost % 1000 == 0:
                LOGGER.warning("%s is too slow for %s: %d events lost", self.owner, self.pattern, self.lost)

    def take(self) -> Event:
        """The oldest event that waits."""
        event, weight = self.waiting.popleft()
        self.waiting_bytes -= weight
        return event

    def clear(self) -> None:
        """Drop all that waits."""
        self.waiting.clear()
        self.waiting_bytes = 0


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
            subscription.clear()

        return unsubscribe

    def unsubscribe_owner(self, owner: str) -> None:
        """End all subscriptions of one owner."""
        for subscription in [one for one in self._subscriptions if one.owner == owner]:
            self._subscriptions.remove(subscription)
            subscription.clear()

    def publish(self, event: Event, *, besides: frozenset[str] = frozenset()) -> int:
        """Queue the event for all who want it, but for the owners `besides`; returns how many do."""
        wanted = [one for one in self._subscriptions if one.matches(event.name) and one.owner not in besides]
        weight = weigh(event.data) if wanted else 0
        for subscription in wanted:
            subscription.put(event, weight)
            if subscription.pump is None:
                subscription.pump = asyncio.create_task(self._pump(subscription), name=f"events {subscription.owner}")
        return len(wanted)

    def patterns(self, owner: str) -> frozenset[str]:
        """What one owner has subscribed to."""
        return frozenset(one.pattern for one in self._subscriptions if one.owner == owner)

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
                event = subscription.take()
                try:
                    answer = subscription.callback(event)
                    if inspect.isawaitable(answer):
                        await answer
                except Exception:  # one subscriber's failure is its own
                    LOGGER.exception("%s failed on the event %s", subscription.owner, event.name)
        finally:
            # No await stands between the last look at the queue and here, so no event can be left without a pump.
            subscription.pump = None
