"""Openings that fail, hostile and dead peers, and goodbyes: each ends with an error that names the plugin."""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING

import pytest

from cardcage.channel import ChannelLimits
from cardcage.foundation.errors import PluginFault, Unavailable
from cardcage_sdk.wire import Call, Encoding, Goodbye, Ping, Pong, Ready, State

if TYPE_CHECKING:
    from conftest import Bench

NAMED = r'plugin "ocr" 1\.2\.0 '


async def test_a_plugin_that_says_nothing_is_given_up(bench: Bench) -> None:
    host, plugin = bench.pair()
    with pytest.raises(PluginFault, match=NAMED + r"said no hello within 0\.05 s") as e:
        await bench.open(host, timeout_s=0.05)
    assert e.value.code == "deadline_exceeded"
    assert await plugin.until_host_hangs_up() == []


async def test_a_plugin_that_hangs_up_before_its_hello_is_a_lost_connection(bench: Bench) -> None:
    host, plugin = bench.pair()
    plugin.hang_up()
    with pytest.raises(PluginFault, match=NAMED + "hung up without a goodbye, in state opening") as e:
        await bench.open(host)
    assert e.value.code == "connection_lost"


@pytest.mark.parametrize(
    ("first_words", "found"),
    [
        (b"Hello, world!\n", r"began with byte 0x48 \('H'\), expected a hello"),
        (b"\x00\x00\x00\x02\x91\x63", "malformed message"),
        (b'["hello"]\n', "malformed message"),
        (b"\x00\x00\x00\x07\x97\x02\x01\xa1a\x90\xc0\x00\xc0", "malformed message"),
        (b"[11,7]\n", "sent ping in state opening, expected hello"),
        (b"[0,[2,3]]\n", r"offers protocol versions 2, 3, but the host speaks 1"),
    ],
)
async def test_first_words_that_are_no_hello_are_refused(bench: Bench, first_words: bytes, found: str) -> None:
    host, plugin = bench.pair()
    await plugin.send(first_words)
    with pytest.raises(PluginFault, match=NAMED + ".*" + found) as e:
        await bench.open(host)
    assert e.value.code == "protocol_error"


async def test_a_cancelled_opening_closes_the_socket(bench: Bench) -> None:
    host, plugin = bench.pair()
    opening = asyncio.create_task(bench.open(host))
    await asyncio.sleep(0)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert await plugin.until_host_hangs_up() == []


async def test_the_hosts_ready_names_the_version(bench: Bench) -> None:
    host, plugin = bench.pair()
    await plugin.send(plugin.session.hello(sdk="scripted"))
    channel = await bench.open(host)
    ready = await plugin.next(Ready)
    assert (ready.version, plugin.session.state) == (1, State.READY)
    assert channel.hello
    assert channel.hello.info == {"sdk": "scripted"}


async def test_garbage_in_the_middle_ends_the_connection_and_names_expected_and_found(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    wanted = asyncio.create_task(channel.call("read"))
    await plugin.next(Call)
    await plugin.send(b"\x00\x00\x00\x05print")
    with pytest.raises(PluginFault, match=NAMED + "sent a malformed message: .*array.*while read was wanted") as e:
        await wanted
    assert e.value.code == "protocol_error"
    reason = await channel.closed
    assert (reason.code, reason.expected) == ("protocol_error", False)
    (goodbye,) = await plugin.until_host_hangs_up()
    assert isinstance(goodbye, Goodbye)
    assert "malformed" in goodbye.message
    with pytest.raises(PluginFault, match="malformed"):
        await channel.call("read")


@pytest.mark.parametrize("words", [b'[9,"\\u001b[2J","x"]\n', b'[13,"\\u001b[2J","\\u001b[2J"]\n'])
async def test_what_a_reason_quotes_of_the_plugin_has_no_control_characters(bench: Bench, words: bytes) -> None:
    channel, plugin = await bench.connect(encoding=Encoding.JSON)
    await plugin.send(words)
    message = (await channel.closed).message
    assert "\x1b" not in message
    assert "\\x1b[2J" in message


async def test_a_frame_beyond_the_limit_is_refused_by_its_length_alone(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    await plugin.send(struct.pack(">I", 70 * 1024 * 1024))
    reason = await channel.closed
    assert reason.message == "sent a 70 MiB frame, but frames are limited to 16 MiB"


async def test_the_answers_before_the_garbage_still_count(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    wanted = asyncio.create_task(channel.call("read", [], int))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.result(call.id, 3), b"\x00\x00\x00\x01\xc1")
    assert await wanted == 3
    assert (await channel.closed).code == "protocol_error"


async def test_an_answer_to_a_call_that_was_never_made_ends_the_connection(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    await plugin.send(b"\x00\x00\x00\x04\x93\x03\x09\x01")
    assert "answered call 9, which was never made" in (await channel.closed).message


async def test_a_malformed_value_of_an_event_ends_the_connection(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    await plugin.send(b"\x00\x00\x00\x06\x93\x08\xa1e\xa1\xff")
    reason = await channel.closed
    assert (reason.code, "malformed event e" in reason.message) == ("protocol_error", True)


async def test_a_lost_connection_fails_every_call_in_flight(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    wanted = [asyncio.create_task(channel.call("read")) for _ in range(5)]
    for _ in wanted:
        await plugin.next(Call)
    plugin.hang_up()
    for outcome in await asyncio.gather(*wanted, return_exceptions=True):
        assert isinstance(outcome, PluginFault)
        assert (outcome.code, outcome.fields["version"]) == ("connection_lost", "1.2.0")
        assert "hung up without a goodbye" in outcome.message
    reason = await channel.closed
    assert (reason.code, reason.expected) == ("connection_lost", False)


async def test_a_connection_lost_in_the_middle_of_a_message_says_so(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    await plugin.send(plugin.session.event("e", "x" * 100)[:-1])
    plugin.hang_up()
    assert "in the middle of a message" in (await channel.closed).message


async def test_a_frame_that_never_finishes_ends_the_connection(bench: Bench) -> None:
    channel, plugin = await bench.connect(limits=ChannelLimits(frame_s=0.05))
    frame = plugin.session.event("e", "x" * 100)
    await plugin.send(frame, frame[:-1])
    reason = await channel.closed
    assert (reason.code, reason.message) == ("deadline_exceeded", "began a frame and did not finish it within 0.05 s")
    assert bench.handler.events.qsize() == 1


async def test_a_slow_frame_that_finishes_is_taken(bench: Bench) -> None:
    _, plugin = await bench.connect(limits=ChannelLimits(frame_s=20))
    frame = plugin.session.event("e", "x" * 20)
    for at in range(len(frame)):
        await plugin.send(frame[at : at + 1])
        await asyncio.sleep(0)
    async with asyncio.timeout(60):
        assert await bench.handler.events.get() == ("e", "x" * 20)


async def test_a_plugin_that_never_reads_holds_up_its_callers_and_is_then_disconnected(bench: Bench) -> None:
    channel, _ = await bench.connect(limits=ChannelLimits(write_soft_bytes=100_000, stall_s=0.3))
    page = "x" * 200_000
    wanted = [asyncio.create_task(channel.call("read", [page])) for _ in range(20)]
    outcomes = await asyncio.gather(*wanted, return_exceptions=True)
    assert {getattr(outcome, "code", None) for outcome in outcomes} == {"deadline_exceeded"}
    reason = await channel.closed
    assert reason.message.startswith("has not read what it was sent for 0.3 s")
    unsent = int(reason.message.split(": ")[1].split()[0])
    assert unsent < 100_000 + 2 * len(page)


async def test_a_call_whose_deadline_passes_before_it_could_be_written_says_so(bench: Bench) -> None:
    channel, _ = await bench.connect(limits=ChannelLimits(write_soft_bytes=1000, stall_s=20))
    first = asyncio.create_task(channel.call("read", ["x" * 2_000_000]))
    await asyncio.sleep(0)
    with pytest.raises(PluginFault, match="has not read what it was sent; read could not be begun") as e:
        await channel.call("read", [], timeout_s=0.05)
    assert e.value.code == "deadline_exceeded"
    with pytest.raises(Unavailable, match="does not read its events"):
        channel.publish("e", 1)
    first.cancel()


async def test_callers_go_on_when_the_plugin_reads_again(bench: Bench) -> None:
    channel, plugin = await bench.connect(limits=ChannelLimits(write_soft_bytes=1000, stall_s=20))
    wanted = [asyncio.create_task(channel.call("read", ["x" * 500_000], int)) for _ in range(8)]
    for _ in wanted:
        call = await plugin.next(Call)
        await plugin.send(plugin.session.result(call.id, call.id))
    assert await asyncio.gather(*wanted) == list(range(1, 9))


async def test_a_flood_of_pings_from_a_plugin_that_reads_no_pongs_is_cut_off(bench: Bench) -> None:
    limits = ChannelLimits(write_soft_bytes=1000, write_hard_bytes=50_000, stall_s=20)
    channel, plugin = await bench.connect(limits=limits)
    ping = plugin.session.ping(1)

    async def flood() -> None:
        while True:
            await plugin.send(ping * 1000)

    flooding = asyncio.create_task(flood())
    async with asyncio.timeout(60):
        reason = await channel.closed
    assert "does not read what it is sent: more than 50000 bytes are unsent" in reason.message
    with pytest.raises(OSError, match=r"Broken pipe|Connection reset"):
        await flooding


async def test_pings_are_answered_both_ways(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    await plugin.send(plugin.session.ping(77))
    assert (await plugin.next(Pong)).nonce == 77
    pinging = asyncio.create_task(channel.ping(20))
    ping = await plugin.next(Ping)
    await plugin.send(plugin.session.pong(ping.nonce))
    assert await pinging >= 0


async def test_a_ping_without_an_answer_is_a_fault_and_a_late_pong_is_harmless(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    with pytest.raises(PluginFault, match=NAMED + r"did not answer a ping within 0\.05 s"):
        await channel.ping(0.05)
    ping = await plugin.next(Ping)
    await plugin.send(plugin.session.pong(ping.nonce))
    again = asyncio.create_task(channel.ping(20))
    ping = await plugin.next(Ping)
    await plugin.send(plugin.session.pong(ping.nonce))
    assert await again >= 0


async def test_close_says_goodbye_and_waits_for_the_plugins(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    closing = asyncio.create_task(channel.close("maintenance"))
    goodbye = await plugin.next(Goodbye)
    assert (goodbye.code, goodbye.message) == ("stopping", "maintenance")
    await plugin.send(plugin.session.goodbye("stopping"))
    await closing
    reason = await channel.closed
    assert (reason.code, reason.expected) == ("closed", True)
    assert await plugin.until_host_hangs_up() == []
    await channel.close("again")


async def test_an_open_call_may_still_be_answered_after_our_goodbye_but_none_begun(bench: Bench) -> None:
    channel, plugin = await bench.connect(limits=ChannelLimits(goodbye_s=20))
    wanted = asyncio.create_task(channel.call("read", [], int))
    call = await plugin.next(Call)
    closing = asyncio.create_task(channel.close())
    await plugin.next(Goodbye)
    with pytest.raises(Unavailable, match="is stopping and can't be sent read"):
        await channel.call("read")
    await plugin.send(plugin.session.result(call.id, 5), plugin.session.goodbye("stopping"))
    assert await wanted == 5
    await closing


async def test_a_plugin_that_ignores_our_goodbye_is_hung_up_on_and_its_calls_fail(bench: Bench) -> None:
    channel, plugin = await bench.connect(limits=ChannelLimits(goodbye_s=0.05))
    wanted = asyncio.create_task(channel.call("read"))
    await plugin.next(Call)
    await channel.close("maintenance")
    with pytest.raises(PluginFault, match="was closed: maintenance") as e:
        await wanted
    assert e.value.code == "connection_lost"
    assert (await channel.closed).expected


async def test_a_plugins_goodbye_is_answered_once_its_open_calls_are(bench: Bench) -> None:
    channel, plugin = await bench.connect(limits=ChannelLimits(goodbye_s=20))
    wanted = asyncio.create_task(channel.call("read", [], int))
    call = await plugin.next(Call)
    await plugin.send(plugin.session.goodbye("stopping", "my work is done"))
    await plugin.send(plugin.session.result(call.id, 5))
    assert await wanted == 5
    await plugin.next(Goodbye)
    reason = await channel.closed
    assert (reason.code, reason.message) == ("goodbye", "said goodbye (stopping): my work is done")


async def test_a_plugin_that_says_goodbye_and_hangs_up_has_left_in_good_order(bench: Bench) -> None:
    channel, plugin = await bench.connect()
    await plugin.send(plugin.session.goodbye("stopping"))
    plugin.hang_up()
    assert (await channel.closed).code == "goodbye"


async def test_calls_that_a_plugin_leaves_unanswered_at_its_goodbye_fail(bench: Bench) -> None:
    channel, plugin = await bench.connect(limits=ChannelLimits(goodbye_s=0.05))
    wanted = asyncio.create_task(channel.call("read"))
    await plugin.next(Call)
    await plugin.send(plugin.session.goodbye("stopping"))
    with pytest.raises(PluginFault, match=r"said goodbye \(stopping\), while read was wanted") as e:
        await wanted
    assert e.value.code == "connection_lost"


async def test_cancelling_one_who_waits_for_the_end_leaves_the_others_waiting(bench: Bench) -> None:
    channel, plugin = await bench.connect()

    async def wait() -> str:
        return (await channel.closed).code

    impatient, patient = asyncio.create_task(wait()), asyncio.create_task(wait())
    await asyncio.sleep(0)
    impatient.cancel()
    plugin.hang_up()
    assert await patient == "connection_lost"
