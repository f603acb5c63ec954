"""Streams: credit, pace, early ends and faults."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from cardcage.channel import STREAM_WINDOW_ITEMS, ChannelLimits
from cardcage.foundation.errors import PluginFault
from cardcage_sdk.wire import Call, Cancel, Credit, Encoding

if TYPE_CHECKING:
    from conftest import Bench, ScriptedPlugin


async def send_rows(plugin: ScriptedPlugin, call: Call, rows: int) -> None:
    """Be a plugin that streams `rows` numbers as fast as credit lets it."""
    session = plugin.session
    for row in range(rows):
        while not session.items_allowed(call.id):
            await plugin.next(Credit)
        await plugin.send(session.item(call.id, row))
    await plugin.send(session.result(call.id, None))


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize("rows", [0, 1, STREAM_WINDOW_ITEMS, STREAM_WINDOW_ITEMS * 7 + 5])
async def test_every_item_arrives_in_order_and_then_the_end(bench: Bench, encoding: Encoding, rows: int) -> None:
    channel, plugin = await bench.connect(encoding=encoding)
    taken: list[int] = []

    async def consume() -> None:
        taken.extend([item async for item in channel.stream("rows", ["bill.csv"], int)])

    consumer = asyncio.create_task(consume())
    call = await plugin.next(Call)
    assert (call.credit, plugin.session.decode(call.args)) == (STREAM_WINDOW_ITEMS, ["bill.csv"])
    await send_rows(plugin, call, rows)
    await consumer
    assert taken == list(range(rows))


async def test_no_more_than_a_window_is_asked_for_ahead_of_the_consumer(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    stream = channel.stream("rows", [], int)
    first = asyncio.ensure_future(anext(stream))
    call = await plugin.next(Call)
    await plugin.send(*[plugin.session.item(call.id, n) for n in range(STREAM_WINDOW_ITEMS)])
    assert await first == 0
    for expected in range(1, STREAM_WINDOW_ITEMS // 2):
        assert await anext(stream) == expected
    credit = await plugin.next(Credit)
    assert credit.n == STREAM_WINDOW_ITEMS // 2
    assert plugin.session.items_allowed(call.id) == STREAM_WINDOW_ITEMS // 2
    await stream.aclose()


async def test_an_item_of_the_wrong_shape_ends_the_stream_in_both(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    stream = channel.stream("rows", [], int)
    first = asyncio.ensure_future(anext(stream))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.item(call.id, "not a number"))
    with pytest.raises(PluginFault, match="gave a wrong item for rows") as e:
        await first
    assert e.value.code == "invalid_result"
    assert (await plugin.next(Cancel)).id == call.id
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_an_error_reaches_the_consumer_after_the_items_before_it(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    stream = channel.stream("rows", [], int)
    first = asyncio.ensure_future(anext(stream))
    call = await plugin.next(Call)
    await plugin.send(
        plugin.session.item(call.id, 1),
        plugin.session.item(call.id, 2),
        plugin.session.error(call.id, "plugin_error", "line 3 is torn"),
    )
    assert await first == 1
    assert await anext(stream) == 2
    with pytest.raises(PluginFault, match="line 3 is torn"):
        await anext(stream)


async def test_leaving_early_cancels_and_what_was_on_its_way_is_dropped(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    async with channel.stream("rows", [], int) as stream:
        first = asyncio.ensure_future(anext(stream))
        call = await plugin.next(Call)
        await plugin.send(plugin.session.item(call.id, 1))
        assert await first == 1
    assert (await plugin.next(Cancel)).id == call.id
    await plugin.send(plugin.session.item(call.id, 2), plugin.session.result(call.id, None))
    assert await answered(channel.call("read", [], int), plugin, 7) == 7


async def test_an_abandoned_stream_is_cancelled(bench: Bench) -> None:
    channel, plugin = await bench.connect()

    async def take_one() -> int:
        async for item in channel.stream("rows", [], int):
            return item
        raise AssertionError

    first = asyncio.create_task(take_one())
    call = await plugin.next(Call)
    await plugin.send(plugin.session.item(call.id, 1))
    assert await first == 1
    del first
    gc.collect()
    assert (await plugin.next(Cancel)).id == call.id


async def test_a_stream_that_nobody_iterates_makes_no_call(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    stream = channel.stream("rows")
    await stream.aclose()
    del stream
    gc.collect()
    assert await answered(channel.call("read", [], int), plugin, 7) == 7


async def test_cancelling_the_consumer_cancels_the_stream(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    consumer = asyncio.ensure_future(anext(channel.stream("rows", [], int)))
    call = await plugin.next(Call)
    consumer.cancel()
    with pytest.raises(asyncio.CancelledError):
        await consumer
    assert (await plugin.next(Cancel)).id == call.id


async def test_a_silent_stream_is_given_up_after_its_timeout(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    with pytest.raises(PluginFault, match=r"sent no item of rows within 0\.05 s") as e:
        await anext(channel.stream("rows", [], int, 0.05))
    assert e.value.code == "deadline_exceeded"
    call = await plugin.next(Call)
    assert (await plugin.next(Cancel)).id == call.id


async def test_items_heavier_than_the_host_will_hold_end_the_connection(bench: Bench) -> None:
    channel, plugin = await bench.connect(limits=ChannelLimits(stream_bytes=10_000))
    first = asyncio.ensure_future(anext(channel.stream("rows", [], str)))
    call = await plugin.next(Call)
    await plugin.send(*[plugin.session.item(call.id, "x" * 1000) for _ in range(12)])
    reason = await channel.closed
    assert (reason.code, "more than 10000 bytes of rows" in reason.message) == ("protocol_error", True)
    assert await first == "x" * 1000


async def test_a_lost_connection_ends_an_open_stream_with_its_reason(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    first = asyncio.ensure_future(anext(channel.stream("rows", [], int)))
    await plugin.next(Call)
    plugin.hang_up()
    with pytest.raises(PluginFault, match="hung up") as e:
        await first
    assert e.value.code == "connection_lost"


async def answered(call: Any, plugin: ScriptedPlugin, value: object) -> Any:
    """The outcome of a call that the plugin answers with `value`."""
    task = asyncio.ensure_future(call)
    message = await plugin.next(Call)
    await plugin.send(plugin.session.result(message.id, value))
    return await task
