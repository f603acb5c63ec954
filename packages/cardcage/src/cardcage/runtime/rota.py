"""Who is to be looked at next, and when: one task for all, asleep while nobody is due."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Generic, Protocol, TypeVar

_AFTER_FAILURE_S: Final = 1.0
LOGGER: Final = logging.getLogger("cardcage.limits")


class Lookable(Protocol):
    """Something that is looked at until it has ended."""

    ended: bool


L = TypeVar("L", bound=Lookable)


class Rota(Generic[L]):
    """Looks at everyone in turn. `look` returns when to look again, by the monotonic clock."""

    def __init__(self, look: Callable[[L], Awaitable[float]]) -> None:
        self._look = look
        self._due: list[tuple[float, int, L]] = []
        self._numbers = itertools.count()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, one: L) -> None:
        """Look at it as soon as may be, and again when `look` says so, until it has ended."""
        self._push(0.0, one)
        self._wake.set()
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="limits")

    def _push(self, at_s: float, one: L) -> None:
        heapq.heappush(self._due, (at_s, next(self._numbers), one))

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            now_s = time.monotonic()
            while self._due and self._due[0][0] <= now_s:
                _, _, one = heapq.heappop(self._due)
                if one.ended:
                    continue
                try:
                    at_s = await self._look(one)
                except OSError:
                    at_s = now_s + _AFTER_FAILURE_S  # it is on its way out
                except Exception:
                    # One that cannot be looked at must not leave all others without anybody who keeps their limits.
                    LOGGER.exception("a look at what an instance uses failed")
                    at_s = now_s + _AFTER_FAILURE_S
                if not one.ended:
                    self._push(max(at_s, now_s + 0.001), one)
            wait_s = self._due[0][0] - time.monotonic() if self._due else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if wait_s is None else max(0.0, wait_s)):
                    await self._wake.wait()

    async def aclose(self) -> None:
        """End the task, and forget everyone."""
        self._due.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
