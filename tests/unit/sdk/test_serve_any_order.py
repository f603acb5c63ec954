"""Calls, streams, cancels, credits and pings in any order and cut anywhere: each call is answered once, and rightly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cardcage_sdk.wire import Error, Pong, Result

if TYPE_CHECKING:
    from .conftest import FakeHost, StartPlugin

BLOCKING = """
    from cardcage_sdk import Plugin

    class Worker(Plugin):
        open = 0

        def echo(self, number: int) -> int:
            return number

        def fail(self, number: int) -> int:
            raise ValueError(number)

        def count(self, number: int):
            self.open += 1
            try:
                yield from range(number)
            finally:
                self.open -= 1

        def ask(self, number: int) -> int:
            return self.context.api_client.call("host.double", number)

        def still_open(self) -> int:
            return self.open
"""

ASYNCHRONOUS = """
    import asyncio
    from cardcage_sdk import Plugin

    class Worker(Plugin):
        open = 0

        async def echo(self, number: int) -> int:
            await asyncio.sleep(0)
            return number

        async def fail(self, number: int) -> int:
            raise ValueError(number)

        async def count(self, number: int):
            self.open += 1
            try:
                for each in range(number):
                    yield each
            finally:
                self.open -= 1

        async def ask(self, number: int) -> int:
            return await self.context.api_client.acall("host.double", number)

        def still_open(self) -> int:
            return self.open
"""

steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["echo", "fail", "count", "ask", "lost"]), st.integers(0, 5), st.integers(0, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("credit"), st.integers(0, 20), st.integers(1, 3)),
        st.tuples(st.just("ping"), st.just(0), st.just(0)),
    ),
    max_size=20,
)


def expected(method: str, number: int) -> object:
    return {"echo": number, "ask": 2 * number, "count": None}[method]


def converse(host: FakeHost, plan: list[tuple[str, int, int]], cuts: list[int], nonce: int) -> None:
    """Send all of the plan in the pieces that the cuts make, then see every answer."""
    session = host.session
    begun: dict[int, tuple[str, int, int]] = {}
    cancelled: set[int] = set()
    data = b""
    for kind, number, amount in plan:
        target = list(begun)[number % len(begun)] if begun else 0
        if kind == "ping":
            nonce += 1
            data += session.ping(nonce)
        elif kind == "cancel":
            if target and session.is_waiting(target):
                cancelled.add(target)
                data += session.cancel(target, "enough")
        elif kind == "credit":
            if target and session.is_waiting(target) and begun[target][2]:
                data += session.credit(target, amount)
        else:
            call_id, more = session.call(kind, [number], credit=amount)
            begun[call_id] = (kind, number, amount)
            data += more
    for begin, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(data)], strict=True):
        host.sock.sendall(data[begin:end])
    for call_id, (method, number, credit) in begun.items():
        if call_id in cancelled:
            continue
        if method == "count" and credit and session.is_waiting(call_id):
            host.sock.sendall(session.credit(call_id, 10))
        message = host.wait_until(lambda call_id=call_id: host.answer_to(call_id))
        check(host, message, method, number, credit)
    assert host.ask("still_open") == 0
    host.wait_until(lambda: session.calls_open == 0 or None)


def check(host: FakeHost, message: Result | Error, method: str, number: int, credit: int) -> None:
    if isinstance(message, Error):
        assert message.code == {"fail": "plugin_error", "lost": "method_not_found"}[method]
        return
    value = host.session.decode(message.value)
    if method == "count":
        assert (value or host.items(message.id)) == list(range(number))
        assert bool(value) <= (not credit)
    else:
        assert value == expected(method, number)


@pytest.mark.parametrize("source", [BLOCKING, ASYNCHRONOUS], ids=["blocking", "asyncio"])
def test_every_call_is_answered_once_whatever_the_order_and_the_cuts(start_plugin: StartPlugin, source: str) -> None:
    host = start_plugin(source)
    host.services["host.double"] = (2).__mul__
    host.load("Worker")
    pings = 0

    # One connection serves all examples, so a failure is not shrunk: what it left behind would fail the next ones too.
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
        phases=[Phase.explicit, Phase.generate],
    )
    @given(steps, st.lists(st.integers(0, 600), max_size=5))
    def run(plan: list[tuple[str, int, int]], cuts: list[int]) -> None:
        nonlocal pings
        converse(host, plan, cuts, pings)
        pings += sum(kind == "ping" for kind, _, _ in plan)
        host.wait_until(lambda: sum(isinstance(each, Pong) for each in host.received) == pings or None)

    run()
    assert host.dismiss() == 0
