"""The event bus: ordered, bounded, and no subscriber harms another."""

from __future__ import annotations

import asyncio

from cardcage.broker.events import QUEUE_BYTES_MAX, QUEUE_EVENTS_MAX, Event, EventBus, weigh


def event(name: str, data: object = None) -> Event:
    return Event(name=name, data=data, source=None, at_s=0.0)


async def test_events_reach_matching_subscribers_in_the_order_of_publication() -> None:
    bus = EventBus()
    costs: list[object] = []
    everything: list[str] = []
    bus.subscribe("cost.*", lambda one: costs.append(one.data))
    bus.subscribe("*", lambda one: everything.append(one.name))
    assert bus.publish(event("cost.spike", 1)) == 2
    assert bus.publish(event("other")) == 1
    bus.publish(event("cost.drop", 2))
    await bus.drained()
    assert costs == [1, 2]
    assert everything == ["cost.spike", "other", "cost.drop"]


async def test_a_subscriber_that_fails_gets_the_next_event_all_the_same() -> None:
    bus = EventBus()
    seen: list[str] = []

    def failing(one: Event) -> None:
        seen.append(one.name)
        raise RuntimeError("no")

    bus.subscribe("*", failing)
    bus.publish(event("one"))
    bus.publish(event("two"))
    await bus.drained()
    assert seen == ["one", "two"]


async def test_a_slow_subscriber_loses_its_oldest_events_and_holds_up_nobody() -> None:
    bus = EventBus()
    gate = asyncio.Event()
    slow: list[object] = []
    fast: list[object] = []

    async def wait(one: Event) -> None:
        await gate.wait()
        slow.append(one.data)

    bus.subscribe("*", wait)
    bus.subscribe("*", lambda one: fast.append(one.data))
    bus.publish(event("n", -1))
    await asyncio.sleep(0)
    for number in range(QUEUE_EVENTS_MAX + 10):
        bus.publish(event("n", number))
        await asyncio.sleep(0)
    gate.set()
    await bus.drained()
    assert slow == [-1, *range(10, QUEUE_EVENTS_MAX + 10)]
    assert fast == [-1, *range(QUEUE_EVENTS_MAX + 10)]


async def test_an_ended_subscription_hears_nothing_more() -> None:
    bus = EventBus()
    seen: list[str] = []
    end = bus.subscribe("*", lambda one: seen.append(one.name))
    bus.publish(event("one"))
    await bus.drained()
    end()
    assert bus.publish(event("two")) == 0
    await bus.drained()
    assert seen == ["one"]
    end()


async def test_a_publication_from_within_a_callback_is_delivered_too() -> None:
    bus = EventBus()
    seen: list[str] = []

    def again(one: Event) -> None:
        seen.append(one.name)
        if one.name == "one":
            bus.publish(event("two"))

    bus.subscribe("*", again)
    bus.publish(event("one"))
    await bus.drained()
    assert seen == ["one", "two"]


async def test_large_events_that_wait_are_bounded_in_memory_and_the_newest_are_kept() -> None:
    bus = EventBus()
    gate = asyncio.Event()
    seen: list[int] = []

    async def wait(one: Event) -> None:
        await gate.wait()
        seen.append(one.data[0])

    bus.subscribe("*", wait)
    for number in range(100):
        bus.publish(event("large", [number, "x" * (QUEUE_BYTES_MAX // 10)]))
        await asyncio.sleep(0)
    gate.set()
    await bus.drained()
    assert seen == [0, *range(91, 100)], "the one that was being handed over, and as many of the last as fit"


async def test_an_event_larger_than_the_bound_still_reaches_a_subscriber_that_keeps_up() -> None:
    bus = EventBus()
    seen: list[int] = []
    bus.subscribe("*", lambda one: seen.append(len(one.data)))
    bus.publish(event("large", "x" * (2 * QUEUE_BYTES_MAX)))
    await bus.drained()
    assert seen == [2 * QUEUE_BYTES_MAX]


def test_many_empty_maps_weigh_what_they_take_in_memory_and_not_what_they_take_on_the_wire() -> None:
    assert weigh([{} for _ in range(10_000)]) > 10_000 * 64
    assert weigh("x" * 10_000) < 11_000
    assert weigh({"a": [1, 2.5, None, True]}) < 500


def test_weighing_stops_where_the_limit_is_passed() -> None:
    itself: list[object] = []
    itself += [itself, itself]
    assert weigh(itself, limit_bytes=1000) > 1000
