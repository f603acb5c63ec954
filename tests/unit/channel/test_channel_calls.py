"""Calls over a real socket pair, against a plugin whose every word is scripted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cardcage.foundation.errors import Misuse, PluginFault, Refused, Unavailable
from cardcage_sdk.wire import Call, Cancel, Encoding, Event, WireLimits

if TYPE_CHECKING:
    from conftest import Bench


class Page(msgspec.Struct, frozen=True):
    number: int
    text: str


@pytest.mark.parametrize("encoding", list(Encoding))
async def test_a_result_arrives_as_its_declared_type(bench: Bench, encoding: Encoding) -> None:
    channel, plugin = await bench.connect(encoding=encoding)
    wanted = asyncio.create_task(channel.call("read", ["a.png", 3], Page, 5.0, meta={"trace": "t-1"}))
    call = await plugin.next(Call)
    assert (call.method, plugin.session.decode(call.args), call.deadline_ms) == ("read", ["a.png", 3], 5000)
    assert (call.credit, call.meta) == (0, {"trace": "t-1"})
    await plugin.send(plugin.session.result(call.id, {"number": 3, "text": "Hello"}))
    assert await wanted == Page(number=3, text="Hello")


async def test_arguments_by_name_and_a_result_of_any_shape(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    wanted = asyncio.create_task(channel.call("read", {"path": "a.png"}))
    call = await plugin.next(Call)
    assert plugin.session.decode(call.args) == {"path": "a.png"}
    await plugin.send(plugin.session.result(call.id, [1, None, {"a": 1.5}]))
    assert await wanted == [1, None, {"a": 1.5}]


async def test_many_calls_in_flight_each_get_their_own_answer_in_any_order(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    wanted = [asyncio.create_task(channel.call("double", [n], int)) for n in range(200)]
    calls = [await plugin.next(Call) for _ in wanted]
    answers = [plugin.session.result(call.id, plugin.session.decode(call.args)[0] * 2) for call in reversed(calls)]
    await plugin.send(*answers)
    assert await asyncio.gather(*wanted) == [n * 2 for n in range(200)]


async def test_a_frame_of_megabytes_goes_both_ways(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    big = "x" * (3 * 1024 * 1024)
    wanted = asyncio.create_task(channel.call("echo", [big], str))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.result(call.id, plugin.session.decode(call.args)[0]))
    assert await wanted == big


async def test_a_result_of_the_wrong_shape_is_an_invalid_result_that_names_the_path(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    wanted = asyncio.create_task(channel.call("read", [], list[Page]))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.result(call.id, [{"number": "three", "text": "Hello"}]))
    with pytest.raises(PluginFault, match=r'"ocr" 1\.2\.0 gave a wrong result for read: .*int.*\$\[0\]\.number') as e:
        await wanted
    assert (e.value.code, e.value.fields["method"], e.value.fields["plugin"]) == ("invalid_result", "read", "ocr")


async def test_a_result_nested_without_end_is_an_invalid_result(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    nested: Any = 0
    for _ in range(100):
        nested = [nested]
    wanted = asyncio.create_task(channel.call("read"))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.result(call.id, nested))
    with pytest.raises(PluginFault, match="nested at most 64 levels") as e:
        await wanted
    assert e.value.code == "invalid_result"


@pytest.mark.parametrize(
    ("code", "error", "kept"),
    [
        ("method_not_found", PluginFault, "method_not_found"),
        ("plugin_error", PluginFault, "plugin_error"),
        ("internal", PluginFault, "internal"),
        ("cancelled", PluginFault, "cancelled"),
        ("deadline_exceeded", PluginFault, "deadline_exceeded"),
        ("a_code_of_its_own", PluginFault, "plugin_error"),
        ("invalid_params", Misuse, "invalid_params"),
        ("refused", Refused, "refused"),
        ("unavailable", Unavailable, "unavailable"),
    ],
)
async def test_an_error_answer_becomes_the_error_of_its_code(
    bench: Bench, code: str, error: type[Exception], kept: str
) -> None:
    channel, plugin = await bench.connect()
    wanted = asyncio.create_task(channel.call("read"))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.error(call.id, code, "no page 3", {"retry_after_s": 2.5}))
    with pytest.raises(error, match=r'plugin "ocr" 1\.2\.0 .*no page 3') as e:
        await wanted
    assert e.value.code == kept  # type: ignore[attr-defined]
    if isinstance(e.value, Unavailable):
        assert e.value.retry_after_s == 2.5


async def test_the_words_of_a_plugins_error_are_bounded_and_free_of_control_characters(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    wanted = asyncio.create_task(channel.call("read"))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.error(call.id, "plugin_error", "\x1b[2J" + "x" * 100_000))
    with pytest.raises(PluginFault) as e:
        await wanted
    assert "\x1b" not in e.value.message
    assert "\\x1b[2J" in e.value.message
    assert len(e.value.message) < 3000


async def test_the_facts_of_a_plugins_error_are_kept_up_to_a_bound(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    for data, kept in (({"page": 3}, {"page": 3}), ({"page": "x" * 70_000}, None), (None, None)):
        wanted = asyncio.create_task(channel.call("read"))
        call = await plugin.next(Call)
        await plugin.send(plugin.session.error(call.id, "plugin_error", "no", data))
        with pytest.raises(PluginFault) as e:
            await wanted
        assert e.value.fields.get("data") == kept


async def test_the_deadline_cancels_the_call_and_its_late_answer_is_dropped(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    with pytest.raises(PluginFault, match=r'plugin "ocr" 1\.2\.0 did not answer read within 0\.05 s') as e:
        await channel.call("read", [], int, 0.05)
    assert e.value.code == "deadline_exceeded"
    call = await plugin.next(Call)
    cancel = await plugin.next(Cancel)
    assert (cancel.id, cancel.reason) == (call.id, "deadline_exceeded")
    await plugin.send(plugin.session.result(call.id, 1))
    wanted = asyncio.create_task(channel.call("read", [], int))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.result(call.id, 2))
    assert await wanted == 2


async def test_a_short_deadline_rings_though_a_longer_one_was_set_before_it(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    patient = asyncio.create_task(channel.call("read", [], int, 60.0))
    first = await plugin.next(Call)
    with pytest.raises(PluginFault, match="did not answer hasty within"):
        await channel.call("hasty", [], int, 0.05)
    with pytest.raises(PluginFault, match=r"did not answer hasty again"):
        await channel.call("hasty again", [], int, 0.05)
    await plugin.send(plugin.session.result(first.id, 1))
    assert await patient == 1


async def test_cancelling_the_task_cancels_the_call_in_the_plugin(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    wanted = asyncio.create_task(channel.call("read"))
    call = await plugin.next(Call)
    wanted.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wanted
    cancel = await plugin.next(Cancel)
    assert (cancel.id, cancel.reason) == (call.id, "cancelled")
    await plugin.send(plugin.session.error(call.id, "cancelled", "as asked"))
    wanted = asyncio.create_task(channel.call("read"))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.result(call.id, "still here"))
    assert await wanted == "still here"


async def test_a_call_beyond_those_in_flight_is_unavailable(bench: Bench) -> None:
    channel, plugin = await bench.connect(wire=WireLimits(in_flight_calls=3))
    wanted = [asyncio.create_task(channel.call("read")) for _ in range(3)]
    calls = [await plugin.next(Call) for _ in wanted]
    with pytest.raises(Unavailable, match="3 calls are unanswered") as e:
        await channel.call("read")
    assert e.value.retry_after_s
    await plugin.send(*[plugin.session.result(call.id, 1) for call in calls])
    assert await asyncio.gather(*wanted) == [1, 1, 1]


@pytest.mark.parametrize("value", [object(), 2**70])
async def test_an_argument_without_a_form_on_the_wire_is_the_callers_misuse(bench: Bench, value: object) -> None:
    channel, plugin = await bench.connect()
    with pytest.raises(Misuse, match="can't be encoded"):
        await channel.call("read", [value])
    wanted = asyncio.create_task(channel.call("read", [1], int))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.result(call.id, 1))
    assert await wanted == 1


async def test_arguments_longer_than_a_frame_are_the_callers_misuse(bench: Bench) -> None:
    channel, _ = await bench.connect(wire=WireLimits(frame_bytes=1000))
    with pytest.raises(Misuse, match="frames are limited to 1000"):
        await channel.call("read", ["x" * 1001])


async def test_events_reach_the_plugin_and_unsendable_ones_are_misuse(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    channel.publish("cost.spike", {"service": "ec2"})
    event = await plugin.next(Event)
    assert (event.name, plugin.session.decode(event.data)) == ("cost.spike", {"service": "ec2"})
    with pytest.raises(Misuse, match=r"cost\.spike"):
        channel.publish("cost.spike", object())


@pytest.mark.parametrize("encoding", list(Encoding))
async def test_what_the_plugin_tells_is_handed_on(bench: Bench, encoding: Encoding) -> None:
    _, plugin = await bench.connect(encoding=encoding)
    session = plugin.session
    await plugin.send(
        session.event("page.read", {"page": 3}),
        session.event("page.read", "the host's own bug"),
        session.log("warning", "blurred \x1b[2J", {"page": 3}),
        session.log("info", "done"),
        session.metric("pages", "counter", 1, {"kind": "scan"}),
        session.event("last", None),
    )
    async with asyncio.timeout(60):
        assert await bench.handler.events.get() == ("page.read", {"page": 3})
        assert await bench.handler.logs.get() == ("warning", "blurred \x1b[2J", {"page": 3})
        assert await bench.handler.logs.get() == ("info", "done", None)
        assert await bench.handler.metrics.get() == ("pages", "counter", 1.0, {"kind": "scan"})
        assert await bench.handler.events.get() == ("last", None)
