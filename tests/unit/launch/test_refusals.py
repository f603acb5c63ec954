"""What a supervisor tells of the connections it refused: few of many, and the number of all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.launch.keeper import socket_path
from cardcage.launch.refusals import (
    NOT_GRANTED,
    TOLD_BURST,
    TOLD_PER_S,
    UNHEARD_MAX,
    Refusal,
    RefusalTap,
    Teller,
)


class Time:
    def __init__(self) -> None:
        self.now_s = 7.0

    def __call__(self) -> float:
        return self.now_s


@given(st.lists(st.tuples(st.integers(0, 200), st.floats(0, 3)), max_size=30))
def test_what_is_told_stays_below_its_rate_and_its_numbers_add_up(floods: list[tuple[int, float]]) -> None:
    time, told = Time(), list[Refusal]()
    teller = Teller(told.append, time)
    began_s, noted = time.now_s, 0
    for count, pause_s in floods:
        for port in range(count):
            teller.note(NOT_GRANTED, "127.0.0.1", port)
        noted += count
        assert len(told) <= TOLD_BURST + (time.now_s - began_s) * TOLD_PER_S + 1e-6
        time.now_s += pause_s
        teller.flush()
    teller.flush(all_=True)
    assert sum(1 + refusal.more for refusal in told) == noted


def test_what_is_held_is_told_when_the_rate_allows_it_again() -> None:
    time, told = Time(), list[Refusal]()
    teller = Teller(told.append, time)
    for port in range(TOLD_BURST + 5):
        assert teller.wait_s is None or port > TOLD_BURST
        teller.note(NOT_GRANTED, "127.0.0.1", port)
    assert len(told) == TOLD_BURST
    wait_s = teller.wait_s
    assert wait_s is not None
    time.now_s += wait_s + 1e-9
    teller.flush()
    assert told[-1] == Refusal(NOT_GRANTED, "127.0.0.1", TOLD_BURST + 4, 4)
    assert teller.wait_s is None


def test_refusals_wait_for_whoever_hears_them_and_not_without_bound() -> None:
    tap, heard = RefusalTap(), list[Refusal]()
    for port in range(UNHEARD_MAX + 3):
        tap.tell(Refusal(NOT_GRANTED, "::1", port))
    tap.hear(heard.append)
    tap.tell(Refusal(NOT_GRANTED, "::1", 999))
    assert [refusal.port for refusal in heard] == [*range(UNHEARD_MAX), 999]


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"\x01\x00/run/docker.sock\x00rest", "/run/docker.sock"),
        (b"\x01\x00\x00name", "@name"),
        (b"\x01\x00/run/\n\x1b[2J\xff", "/run/\\n\\x1b[2J\\\\xff"),
        (b"\x01\x00", ""),
    ],
)
def test_the_path_of_a_unix_socket_is_shown_in_plain_letters(raw: bytes, path: str) -> None:
    assert socket_path(raw) == path
