"""Looking names up for one instance."""

from __future__ import annotations

import asyncio

import pytest

from cardcage.egress.dial import DialFailed
from cardcage.egress.ledger import Ledger
from cardcage.egress.outlet import LOOK_UPS_AT_ONCE, Outlet
from cardcage.egress.rules import EgressRules
from cardcage.permissions.network import parse_endpoint


class Silent:
    """A resolver whose look-ups end when they are told to, as those of the C library end when they please."""

    def __init__(self) -> None:
        self.under_way = 0
        self.asked = 0
        self.over = asyncio.Event()

    async def resolve(self, name: str, port: int) -> tuple[str, ...]:
        self.asked += 1
        self.under_way += 1
        try:
            await asyncio.shield(asyncio.ensure_future(self.over.wait()))
        except asyncio.CancelledError:
            self.over.set()  # whoever gives up must not take the thread for free
            raise
        finally:
            self.under_way -= 1
        raise OSError("no such name")


async def test_a_look_up_that_was_given_up_keeps_its_turn_until_it_is_over() -> None:
    rules = EgressRules(
        plugin="p", instance="p", endpoints=(parse_endpoint("*.slow.test:443"),), connect_timeout_s=0.05
    )
    resolver = Silent()
    ledger = Ledger(rules, lambda _: None, asyncio.get_running_loop().time)
    outlet = Outlet(rules, resolver, ledger, memoryview(bytearray(1024)))
    for number in range(2 * LOOK_UPS_AT_ONCE):
        target = rules.target(f"n{number}.slow.test", 443)
        assert target is not None
        with pytest.raises(DialFailed):
            async with outlet.way(target):
                raise AssertionError("nothing was resolved")
    assert (resolver.asked, resolver.under_way) == (LOOK_UPS_AT_ONCE, LOOK_UPS_AT_ONCE)
    resolver.over.set()
    async with asyncio.timeout(30):
        while resolver.under_way:
            await asyncio.sleep(0)
    target = rules.target("again.slow.test", 443)
    assert target is not None
    with pytest.raises(DialFailed, match="cannot be resolved"):
        async with outlet.way(target):
            raise AssertionError("nothing was resolved")
