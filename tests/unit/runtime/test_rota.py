"""Who keeps everybody's limits, and what one that cannot be looked at does to the others."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

import pytest

from cardcage.runtime.rota import Rota


@dataclass(slots=True, eq=False)
class Looked:
    """Something that is looked at."""

    name: str
    ended: bool = False


async def test_one_that_cannot_be_looked_at_keeps_nobody_else_from_it(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []
    enough = asyncio.Event()

    async def look(one: Looked) -> float:
        seen.append(one.name)
        if one.name == "odd":
            raise ValueError("what it tells of itself makes no sense")
        if seen.count("plain") == 3:
            enough.set()
        return time.monotonic()

    rota = Rota(look)
    with caplog.at_level(logging.ERROR, logger="cardcage.limits"):
        for name in ("odd", "plain"):
            rota.add(Looked(name))
        async with asyncio.timeout(30):
            await enough.wait()
    await rota.aclose()
    assert "odd" in seen
    assert "a look at what an instance uses failed" in caplog.text
