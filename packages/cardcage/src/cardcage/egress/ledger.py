"""The books of one instance's connections: counts for each grant, and events told at a bounded rate."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from cardcage.egress.events import EgressCount, EgressEvent, Tell, Verdict
from cardcage.egress.rules import EgressRules

EVENTS_PER_S: Final = 10.0
EVENTS_BURST: Final = 100
"""Connections cost a plugin nothing, and each is a line of the audit: what comes faster is only counted."""


class Ledger:
    """Counts what happens to connections, and tells of it."""

    def __init__(self, rules: EgressRules, tell: Tell, now_s: Callable[[], float]) -> None:
        self._rules = rules
        self._tell = tell
        self._now_s = now_s
        self._counts = {str(endpoint): EgressCount(endpoint=str(endpoint)) for endpoint in rules.endpoints}
        self._others = EgressCount(endpoint="not granted")
        self._tokens = float(EVENTS_BURST)
        self._filled_at_s = now_s()
        self._suppressed = 0

    def counts(self) -> Iterable[EgressCount]:
        """One for each granted endpoint, and one for what no grant covers where there was any."""
        yield from self._counts.values()
        if self._others.refused:
            yield self._others

    def of(self, grant: str) -> EgressCount:
        """The count of one grant; of what no grant covers, one for all."""
        return self._counts.get(grant, self._others)

    def refused(self, grant: str, endpoint: str, reason: str, *, more: int = 0) -> None:
        """A rule forbade a connection, and `more` before it that nobody told of."""
        self.of(grant).refused += 1 + more
        self._suppressed += more
        self._note(endpoint, Verdict.REFUSED, reason=reason)

    def failed(self, grant: str, endpoint: str, reason: str) -> None:
        """An allowed connection could not be made, or broke off."""
        self.of(grant).failed += 1
        self._note(endpoint, Verdict.FAILED, reason=reason)

    def connected(self, grant: str, endpoint: str, address: str) -> None:
        """A connection stands; it is told of when it ends, with its bytes."""
        count = self.of(grant)
        count.connections += 1
        count.open += 1
        self._note(endpoint, Verdict.CONNECTED, address=address)

    def closed(self, grant: str, endpoint: str, address: str, up: int, down: int, *, credential: str = "") -> None:
        """A connection has ended. The bytes were counted as they went."""
        self.of(grant).open -= 1
        self._note(endpoint, Verdict.CLOSED, address=address, bytes_up=up, bytes_down=down, credential=credential)

    def _note(
        self,
        endpoint: str,
        verdict: Verdict,
        *,
        address: str = "",
        reason: str = "",
        bytes_up: int = 0,
        bytes_down: int = 0,
        credential: str = "",
    ) -> None:
        if not self._take_token():
            self._suppressed += 1
            return
        suppressed, self._suppressed = self._suppressed, 0
        self._tell(
            EgressEvent(
                plugin=self._rules.plugin,
                instance=self._rules.instance,
                endpoint=endpoint,
                verdict=verdict,
                address=address,
                reason=reason,
                bytes_up=bytes_up,
                bytes_down=bytes_down,
                suppressed=suppressed,
                credential=credential,
            )
        )

    def _take_token(self) -> bool:
        now_s = self._now_s()
        self._tokens = min(float(EVENTS_BURST), self._tokens + (now_s - self._filled_at_s) * EVENTS_PER_S)
        self._filled_at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
