"""What the host makes of a guest's words, true or not."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage.launch.vm.control import CONSOLE_BYTES, MESSAGE_BYTES_MAX, Console, Control, GuestError
from cardcage.launch.vm.machine import MachineSize
from cardcage.launch.vm.report import machine_report
from cardcage.sandbox.plan import MIB
from cardcage.sandbox.report import EnforcementReport, LayerName, LayerStatus

TIMEOUT_S = 30.0


def framed(message: object) -> bytes:
    packed = msgspec.msgpack.encode(message)
    return len(packed).to_bytes(4, "big") + packed


@pytest.fixture
def guest() -> Iterator[tuple[socket.socket, socket.socket]]:
    theirs, ours = socket.socketpair()
    yield theirs, ours
    theirs.close()
    ours.close()


Pair = tuple[socket.socket, socket.socket]


async def test_orders_arrive_as_they_were_given_and_answers_are_told_apart(guest: Pair) -> None:
    theirs, ours = guest
    control = Control(ours)
    await control.order({"limits": {}}, {"plan": b"x"})
    assert theirs.recv(65536) == framed({"limits": {}}) + framed({"plan": b"x"})
    ready = framed(["ready", [["egress", "off", ""]], []])
    theirs.sendall(ready[:3])
    theirs.sendall(ready[3:] + framed(["ended", 7 << 8, False, True]))
    async with asyncio.timeout(TIMEOUT_S):
        assert (await control.up)[0] == "ready"
        assert await control.ended == ["ended", 7 << 8, False, True]
    control.close()


async def test_a_guest_that_fails_says_why_and_one_that_ends_is_not_waited_for(guest: Pair) -> None:
    theirs, ours = guest
    control = Control(ours)
    theirs.sendall(framed(["broken", "OSError: no disk"]))
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(GuestError, match="no disk"):
            await control.up
    other_theirs, other_ours = socket.socketpair()
    other = Control(other_ours)
    other_theirs.close()
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(GuestError, match="the machine ended"):
            await other.up
    control.close()


@pytest.mark.parametrize(
    "data",
    [
        (MESSAGE_BYTES_MAX + 1).to_bytes(4, "big"),
        framed(["ended", "7", False, False]),
        framed(["hello"]),
        framed({"ready": 1}),
        b"\0\0\0\1\xc1",
    ],
    ids=["too long", "an odd end", "an unknown word", "no list", "no MessagePack"],
)
async def test_a_guest_that_talks_nonsense_is_heard_no_more(guest: Pair, data: bytes) -> None:
    theirs, ours = guest
    control = Control(ours)
    theirs.sendall(data)
    async with asyncio.timeout(TIMEOUT_S):
        with pytest.raises(GuestError, match="makes no sense"):
            await control.up
    assert ours.fileno() == -1
    assert not control.ended.done()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.one_of(st.binary(max_size=30), st.lists(st.text(max_size=5), max_size=4).map(framed)), max_size=6))
def test_whatever_comes_it_is_taken_or_the_end_of_it(parts: list[bytes]) -> None:
    async def hear() -> None:
        theirs, ours = socket.socketpair()
        control = Control(ours)
        theirs.sendall(b"".join(parts))
        theirs.close()
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.wait({control.up})
        control.close()

    asyncio.run(hear())


async def test_of_what_a_machine_prints_the_end_is_kept_and_shown_in_one_line() -> None:
    read_end, write_end = os.pipe()
    console = Console((read_end, None))
    os.write(write_end, b"x" * CONSOLE_BYTES + b"\n\x1b[31mKernel panic\r\n  not syncing\n")
    os.close(write_end)
    console.close()
    words = console.last_words()
    assert words.startswith("; it last printed: ")
    assert words.endswith("Kernel panic | not syncing")
    assert "\x1b" not in words


@given(st.lists(st.tuples(st.text(max_size=20), st.text(max_size=12), st.text(max_size=2000)), max_size=8))
def test_a_guest_can_lie_about_its_own_walls_but_not_about_the_machine(rows: list[Any]) -> None:
    size = MachineSize(memory_bytes=256 * MIB, cpus=1, disk_bytes=MIB, inodes=100, plugin_memory_bytes=160 * MIB)
    lies = [*rows, ("virtual_machine", "enforced", "trust me"), ("encryption", "perfect", ""), ("egress", "odd", "")]
    report = machine_report(lies, EnforcementReport(layers=()), size)
    assert {str(layer.name) for layer in report.layers} <= set(LayerName)
    assert "trust me" not in str(report.to_json())
    assert report.status(LayerName.ENCRYPTION) is LayerStatus.ENFORCED, "which the host itself made sure of"
    assert report.status(LayerName.EGRESS) is LayerStatus.UNAVAILABLE, "a word that is none counts as nothing"
    assert all(len(layer.detail) <= 500 for layer in report.layers)
