"""The recovery of an instance whose process died: restarts with back-off, until it stands again or is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Protocol

from cardcage.foundation.clock import Clock
from cardcage.foundation.errors import CardcageError
from cardcage.runtime.chronicle import Chronicle
from cardcage.supervise import PluginState, RestartHistory, RestartPolicy, StepAction, next_step


class Patient(Protocol):
    """What a recovery needs of the instance."""

    @property
    def wanted(self) -> PluginState:
        """The state that it is to be in."""
        ...

    @property
    def pid(self) -> int | None:
        """The number of its process, where it has one."""
        ...

    @property
    def to_be_revived(self) -> bool:
        """Whether it is down and still wanted."""
        ...

    async def revive(self, wanted: PluginState) -> bool:
        """Bring it up to that state; False where it is to be revived no more by the time that its turn comes."""
        ...


class Recovery:
    """The restarts of one instance, counted, and who waits for them."""

    def __init__(
        self, policy: RestartPolicy, *, clock: Clock, jitter: Callable[[], float], chronicle: Chronicle
    ) -> None:
        self.restarts = 0
        self._policy = policy
        self._clock = clock
        self._jitter = jitter
        self._chronicle = chronicle
        self._history = RestartHistory()
        self._under_way = 0  # a new process may die while the recovery of the one before is still ending
        self._settled = asyncio.Event()  # set while no recovery is under way
        self._settled.set()

    @property
    def settled(self) -> bool:
        """Whether no recovery is under way."""
        return self._settled.is_set()

    async def settle(self) -> None:
        """Wait until no recovery is under way."""
        await self._settled.wait()

    @contextmanager
    def under_way(self) -> Generator[None]:
        """From the moment at which an end is seen until it is decided what becomes of the instance."""
        self._under_way += 1
        self._settled.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self._settled.set()

    async def run(self, patient: Patient) -> None:
        """Restart with back-off until the plugin stands again, is no longer wanted, or the policy gives up."""
        wanted = patient.wanted
        while patient.to_be_revived:
            now_s = self._clock.monotonic_s()
            step = next_step(self._policy, self._history, exit_failed=True, now_s=now_s, jitter_sample=self._jitter())
            if step.action is not StepAction.RESTART:
                self._chronicle.gave_up(step.reason, self.restarts)
                return
            self._history = self._history.with_restart(now_s + step.delay_s, self._policy)
            await asyncio.sleep(step.delay_s)
            try:
                if not await patient.revive(wanted):
                    return
            except CardcageError:
                continue  # recorded where it happened; the policy decides on the next one
            self.restarts += 1
            self._chronicle.restarted(step.reason, pid=patient.pid, restarts=self.restarts, delay_s=step.delay_s)
