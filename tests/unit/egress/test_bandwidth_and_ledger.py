"""The bandwidth cap, and the books of an instance's connections."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cardcage.egress import EgressEvent, EgressRules, Verdict
from cardcage.egress.bandwidth import Bandwidth
from cardcage.egress.ledger import EVENTS_BURST, EVENTS_PER_S, Ledger
from cardcage.permissions.network import parse_endpoint


class Time:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@given(st.integers(1, 10**9), st.lists(st.tuples(st.integers(0, 10**6), st.floats(0, 5)), max_size=40))
def test_whoever_waits_as_told_never_exceeds_rate_and_burst(rate: int, moves: list[tuple[int, float]]) -> None:
    time = Time()
    bandwidth = Bandwidth(rate, time)
    began_s, moved = time.now_s, 0
    for count, pause_s in moves:
        allowed = (time.now_s - began_s) * rate + bandwidth.burst_bytes
        assert moved <= allowed * (1 + 1e-6) + 1e-3  # before each read the debt of the one before is paid
        moved += count
        time.now_s += bandwidth.spend(count) + pause_s


def test_a_small_answer_is_not_held_up() -> None:
    assert Bandwidth(1000, Time()).spend(250) == 0
    assert Bandwidth(1000, Time()).spend(1250) == 1.0


def ledger(told: list[EgressEvent], time: Time) -> Ledger:
    rules = EgressRules(plugin="p", instance="i", endpoints=(parse_endpoint("*.example.com:443"),))
    return Ledger(rules, told.append, time)


def test_counts_go_by_grant_so_that_a_plugin_cannot_make_them_grow() -> None:
    books = ledger([], Time())
    for number in range(1000):
        books.connected("*.example.com:443", f"n{number}.example.com:443", "192.0.2.1")
        books.closed("*.example.com:443", f"n{number}.example.com:443", "192.0.2.1", 1, 2)
        books.refused("", f"n{number}.elsewhere:443", "no grant covers it")
    counts = list(books.counts())
    assert [(count.endpoint, count.connections, count.open, count.refused) for count in counts] == [
        ("*.example.com:443", 1000, 0, 0),
        ("not granted", 0, 0, 1000),
    ]


def test_a_flood_of_refusals_is_counted_and_not_told_one_by_one() -> None:
    told: list[EgressEvent] = []
    time = Time()
    books = ledger(told, time)
    for _ in range(1000):
        books.refused("", "x.test:1", "no grant covers it")
    assert len(told) == EVENTS_BURST
    time.now_s += 1 / EVENTS_PER_S + 0.001
    books.refused("", "x.test:1", "no grant covers it")
    assert told[-1].suppressed == 1000 - EVENTS_BURST
    assert told[-1].verdict is Verdict.REFUSED
    assert f"({1000 - EVENTS_BURST} more before it)" in told[-1].sentence()
