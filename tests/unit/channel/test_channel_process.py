"""Calls to a plugin in a process of its own, quick enough to be answered without a turn of the event loop."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from cardcage.channel import Channel
from cardcage.foundation.errors import PluginFault

if TYPE_CHECKING:
    from conftest import Bench

PLUGIN = """
import os, socket, sys
from cardcage_sdk.wire import Call, Goodbye, Role, Session

sock = socket.socket(fileno=int(sys.argv[1]))
session = Session(Role.PLUGIN)
sock.sendall(session.hello())
buffer = memoryview(bytearray(65536))
while count := sock.recv_into(buffer):
    for message in session.receive_data(buffer[:count]):
        match message:
            case Call(id=call_id, method="echo"):
                sock.sendall(session.result(call_id, session.decode(message.args)[0]))
            case Call(id=call_id, method="chatty"):
                told = session.event("working", 1) + session.log("info", "working")
                sock.sendall(told + session.result(call_id, "done") + session.event("worked", 2))
            case Call(id=call_id, method="fail"):
                sock.sendall(session.error(call_id, "plugin_error", "as asked"))
            case Call(id=call_id, method="ramble"):
                sock.sendall(session.result(call_id, "sense") + b"\\x00\\x00\\x00\\x01\\xc1")
            case Call(method="die"):
                os._exit(1)
            case Goodbye():
                sock.sendall(session.goodbye("stopping"))
                sys.exit()
"""


@pytest.fixture
async def channel(bench: Bench) -> AsyncIterator[Channel]:
    host, sock = socket.socketpair()
    with sock:
        arguments = [sys.executable, "-c", PLUGIN, str(sock.fileno())]
        process = subprocess.Popen(arguments, pass_fds=[sock.fileno()], cwd=os.sep)
    channel = await bench.open(host, timeout_s=60)
    yield channel
    await channel.close()
    process.kill()
    process.wait()


async def test_calls_one_after_another_each_get_their_own_answer(channel: Channel) -> None:
    for n in range(500):
        assert await channel.call("echo", [n], int) == n


async def test_calls_beside_each_other_each_get_their_own_answer(channel: Channel) -> None:
    async def echo(start: int) -> None:
        for n in range(start, start + 50):
            assert await channel.call("echo", [n], int) == n

    await asyncio.gather(*[echo(1000 * each) for each in range(10)])


async def test_a_caller_that_never_pauses_leaves_turns_of_the_loop_to_others(channel: Channel) -> None:
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count_turns())
    for n in range(680):
        await channel.call("echo", [n], int)
    counting.cancel()
    assert turns >= 680 // 17


async def test_what_comes_beside_an_answer_is_handed_on_in_order(bench: Bench, channel: Channel) -> None:
    for _ in range(50):
        assert await channel.call("chatty", [], str) == "done"
    async with asyncio.timeout(60):
        told = [(await bench.handler.events.get())[1] for _ in range(100)]
    assert told == [1, 2] * 50
    assert bench.handler.logs.qsize() == 50


async def test_an_error_and_a_wrong_shape_are_told_apart(channel: Channel) -> None:
    for _ in range(50):
        with pytest.raises(PluginFault, match="as asked") as raised:
            await channel.call("fail")
        assert raised.value.code == "plugin_error"
        with pytest.raises(PluginFault, match="gave a wrong result for echo") as raised:
            await channel.call("echo", ["text"], int)
        assert raised.value.code == "invalid_result"


async def test_an_answer_counts_though_garbage_follows_it(channel: Channel) -> None:
    assert await channel.call("echo", [1], int) == 1
    assert await channel.call("ramble", [], str) == "sense"
    assert (await channel.closed).code == "protocol_error"
    with pytest.raises(PluginFault, match="malformed"):
        await channel.call("echo", [1])


async def test_a_plugin_that_dies_in_a_call_is_a_lost_connection(channel: Channel) -> None:
    assert await channel.call("echo", [1], int) == 1
    with pytest.raises(PluginFault, match="hung up without a goodbye") as raised:
        await channel.call("die")
    assert raised.value.code == "connection_lost"
