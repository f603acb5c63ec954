"""The plugin's calls into the host."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from cardcage.channel import ChannelLimits
from cardcage.foundation.errors import Misuse, PluginFault, Refused, Unavailable
from cardcage_sdk.wire import Call, Encoding, Error, Pong, Result

if TYPE_CHECKING:
    from conftest import Bench, ScriptedPlugin


async def ask(plugin: ScriptedPlugin, method: str = "cost_data", args: Any = ("ec2",), **extra: Any) -> int:
    call_id, frame = plugin.session.call(method, args, **extra)
    await plugin.send(frame)
    return call_id


@pytest.mark.parametrize("encoding", list(Encoding))
async def test_the_host_answers_a_plugins_call(bench: Bench, encoding: Encoding) -> None:
    _, plugin = await bench.connect(encoding=encoding)
    call_id = await ask(plugin)
    result = await plugin.next(Result)
    assert result.id == call_id
    assert plugin.session.decode(result.value) == {"method": "cost_data", "args": ["ec2"]}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("no capability ReadCostData"), "refused"),
        (Misuse("days must be positive"), "invalid_params"),
        (Misuse("no such method", code="method_not_found"), "method_not_found"),
        (Unavailable("the store is starting", retry_after_s=3), "unavailable"),
        (PluginFault("another plugin crashed", code="connection_lost"), "plugin_error"),
    ],
)
async def test_errors_on_purpose_are_answered_with_their_sentence(bench: Bench, error: Exception, code: str) -> None:
    async def fail(method: str, args: Any) -> Any:
        raise error

    bench.handler.answer = fail
    _, plugin = await bench.connect()
    await ask(plugin)
    answer = await plugin.next(Error)
    assert (answer.code, answer.message) == (code, str(error))
    if isinstance(error, Unavailable):
        assert plugin.session.decode(answer.data)["retry_after_s"] == 3


async def test_a_bug_of_the_host_is_logged_here_and_tells_the_plugin_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(method: str, args: Any) -> Any:
        raise ZeroDivisionError("the secret figure")

    bench.handler.answer = fail
    _, plugin = await bench.connect()
    await ask(plugin)
    answer = await plugin.next(Error)
    assert (answer.code, answer.message) == ("internal", "the host failed in cost_data")
    assert "secret" not in str(plugin.session.decode(answer.data))
    assert "the secret figure" in caplog.text


async def test_an_answer_without_a_form_on_the_wire_is_internal(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    async def answer(method: str, args: Any) -> Any:
        return object()

    bench.handler.answer = answer
    _, plugin = await bench.connect()
    await ask(plugin)
    assert (await plugin.next(Error)).code == "internal"
    assert "can't be sent" in caplog.text


@pytest.mark.parametrize("args", ["text", 3, None])
async def test_arguments_that_are_no_list_and_no_map_are_invalid(bench: Bench, args: Any) -> None:
    _, plugin = await bench.connect()
    await ask(plugin, args=args)
    answer = await plugin.next(Error)
    assert answer.code == "invalid_params"
    assert "array or a map" in answer.message


async def test_a_call_that_outlasts_its_deadline_is_cancelled_and_says_so(bench: Bench) -> None:
    ended = asyncio.Event()

    async def hang(method: str, args: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    bench.handler.answer = hang
    _, plugin = await bench.connect()
    await ask(plugin, deadline_ms=20)
    assert (await plugin.next(Error)).code == "deadline_exceeded"
    assert ended.is_set()


async def test_a_plugin_can_cancel_its_call_even_before_it_has_begun(bench: Bench) -> None:
    async def hang(method: str, args: Any) -> Any:
        await asyncio.Event().wait()

    bench.handler.answer = hang
    _, plugin = await bench.connect()
    call_id, frame = plugin.session.call("slow", [])
    await plugin.send(frame, plugin.session.cancel(call_id, "changed its mind"))
    # The session drops the answer to a cancelled call; that the id is free again shows that it was answered.
    await plugin.send(plugin.session.ping(1))
    await plugin.next(Pong)
    async with asyncio.timeout(60):
        while plugin.session.calls_open:
            await plugin.send(plugin.session.ping(2))
            await plugin.next(Pong)


async def test_calls_beyond_the_bound_are_answered_unavailable(bench: Bench) -> None:
    release = asyncio.Event()

    async def wait(method: str, args: Any) -> Any:
        await release.wait()
        return "done"

    bench.handler.answer = wait
    _, plugin = await bench.connect(limits=ChannelLimits(serving=2))
    for _ in range(3):
        await ask(plugin)
    answer = await plugin.next(Error)
    assert (answer.id, answer.code) == (3, "unavailable")
    release.set()
    assert {(await plugin.next(Result)).id for _ in range(2)} == {1, 2}


async def test_the_hosts_work_for_a_plugin_is_cancelled_when_the_plugin_goes(bench: Bench) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(method: str, args: Any) -> Any:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    bench.handler.answer = hang
    _, plugin = await bench.connect()
    await ask(plugin)
    async with asyncio.timeout(60):
        await begun.wait()
        plugin.hang_up()
        await ended.wait()


async def test_both_sides_may_call_at_once_with_the_same_id(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    wanted = asyncio.create_task(channel.call("read", [], str))
    call_id = await ask(plugin)
    call = await plugin.next(Call)
    assert call.id == call_id == 1
    assert (await plugin.next(Result)).id == call_id
    await plugin.send(plugin.session.result(call.id, "page"))
    assert await wanted == "page"
