"""What a plugin sends unasked is bounded before it is decoded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cardcage.channel import ChannelLimits
from cardcage.channel.limits import EVENT_BYTES_MAX, LOG_FIELDS_BYTES_MAX
from cardcage_sdk.wire import Error, Result

if TYPE_CHECKING:
    from conftest import Bench


async def test_an_event_that_is_too_long_is_dropped_and_told_of_in_the_plugins_log(bench: Bench) -> None:
    _, plugin = await bench.connect()
    await plugin.send(plugin.session.event("huge", "x" * EVENT_BYTES_MAX), plugin.session.event("small", 1))
    assert await bench.handler.events.get() == ("small", 1)
    level, text, _ = await bench.handler.logs.get()
    assert level == "warning"
    assert text.startswith("event huge was dropped: it has ")


async def test_log_fields_that_are_too_long_are_dropped_and_the_message_kept(bench: Bench) -> None:
    _, plugin = await bench.connect()
    bomb: list[dict[str, int]] = [{} for _ in range(LOG_FIELDS_BYTES_MAX)]
    fields = {"bomb": bomb}
    await plugin.send(plugin.session.log("error", "it broke", fields))
    level, text, kept = await bench.handler.logs.get()
    assert (level, text) == ("error", "it broke")
    assert kept is not None
    assert list(kept) == ["dropped"]


async def test_the_arguments_of_calls_that_run_are_bounded_together(bench: Bench) -> None:
    gate = asyncio.Event()
    running = asyncio.Semaphore(0)

    async def wait(method: str, args: Any) -> Any:
        running.release()
        await gate.wait()
        return len(args[0])

    bench.handler.answer = wait
    _, plugin = await bench.connect(limits=ChannelLimits(serving_bytes=100_000))
    calls = [plugin.session.call("keep", ["x" * 40_000]) for _ in range(3)]
    await plugin.send(*(frame for _, frame in calls))
    refused = await plugin.next(Error)
    assert (refused.id, refused.code) == (calls[2][0], "unavailable")
    assert "bytes of arguments" in refused.message
    gate.set()
    assert {(await plugin.next(Result)).id for _ in range(2)} == {calls[0][0], calls[1][0]}
    again, frame = plugin.session.call("keep", ["x" * 400_000])
    await plugin.send(frame)
    assert (await plugin.next(Result)).id == again, "a single call is never too long for the bound"


async def test_an_opening_that_is_cancelled_leaves_no_error_that_nobody_looks_at(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    complaints: list[dict[str, Any]] = []
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    host, plugin = bench.pair()
    opening = asyncio.create_task(bench.open(host))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    plugin.hang_up()
    opening.cancel()
    await asyncio.wait({opening})
    del opening
    import gc

    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []
