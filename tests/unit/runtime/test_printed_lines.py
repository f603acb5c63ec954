"""What a plugin prints, line by line: nothing is lost, and a flood does not hold up the event loop."""

from __future__ import annotations

import asyncio
import os

from cardcage.runtime.streams import read_lines


async def test_lines_arrive_in_order_the_last_one_without_its_end_too() -> None:
    read_end, write_end = os.pipe()
    lines: list[str] = []
    _, reader = await read_lines(read_end, lines.append)
    os.write(write_end, b"one\ntwo\nthr")
    os.write(write_end, b"ee\n\xffour")
    os.close(write_end)
    await asyncio.wait_for(reader.ended, 30)
    assert lines == ["one", "two", "three", "\\xffour"]


async def test_a_pipe_full_of_line_feeds_is_taken_in_pieces_and_all_of_it() -> None:
    read_end, write_end = os.pipe()
    count, turns = 0, 0
    in_one_turn: list[int] = [0]

    def take(_: str) -> None:
        nonlocal count
        count += 1
        in_one_turn[-1] += 1

    _, reader = await read_lines(read_end, take)
    written = os.write(write_end, b"\n" * 20_000)
    while count < written:
        await asyncio.sleep(0)
        in_one_turn.append(0)
        turns += 1
    os.close(write_end)
    await asyncio.wait_for(reader.ended, 30)
    assert count == written == 20_000
    assert max(in_one_turn) <= 1000


async def test_what_waits_when_the_pipe_ends_is_still_handed_on() -> None:
    read_end, write_end = os.pipe()
    lines: list[str] = []
    transport, reader = await read_lines(read_end, lines.append)
    os.write(write_end, b"x\n" * 5000 + b"last")
    os.close(write_end)
    while not lines:
        await asyncio.sleep(0)
    transport.close()
    await asyncio.wait_for(reader.ended, 30)
    assert lines == ["x"] * 5000 + ["last"]
