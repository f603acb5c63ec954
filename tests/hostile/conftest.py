"""The arena, shared by all tests of this folder; its modules stand beside them."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cardcage.sandbox.doctor import examine
from cardcage.sandbox.plan import STRICT_FLOOR

sys.path.insert(0, str(Path(__file__).parent))

from hostile_suite import Arena

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def in_loop() -> Iterator[Run]:
    """Runs something in an event loop of its own, so that one arena can serve many tests."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Awaitable[Any], timeout_s: float = 110.0) -> Any:
        async def bounded() -> Any:
            async with asyncio.timeout(timeout_s):
                return await work

        return asyncio.run_coroutine_threadsafe(bounded(), loop).result()

    yield run
    loop.call_soon_threadsafe(loop.stop)
    thread.join(30)
    loop.close()


@pytest.fixture(scope="session")
def machine_has_walls() -> None:
    """Skips where no walls can be put up."""
    if missing := examine().below(STRICT_FLOOR):
        pytest.skip(f"walls cannot be put up here: {', '.join(f'{layer.name}: {layer.detail}' for layer in missing)}")


@pytest.fixture(scope="module")
def arena(in_loop: Run, machine_has_walls: None) -> Iterator[Arena]:
    """Everything up: hostile plugins behind walls, the same without, and a neighbour."""
    logger = logging.getLogger("cardcage")
    before, logger.propagate = logger.propagate, False  # flooding the log is what some of them do
    arena = Arena()
    in_loop(arena.__aenter__())
    yield arena
    in_loop(arena.__aexit__(None, None, None))
    logger.propagate = before
