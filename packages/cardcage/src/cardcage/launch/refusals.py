"""What is told of the connections that a supervisor refused: at a bounded rate, with the number of those left out.

A refused `connect` costs a plugin nothing, and each that is told costs the host a packet and a line. So the supervisor
tells of a few, and counts the others; the host has a bound of its own (`egress.ledger`). The supervisor imports this
module too: standard library alone.
"""

from collections.abc import Callable
from typing import NamedTuple

TOLD_PER_S = 10.0
TOLD_BURST = 50
"""Told by one supervisor. A client that tries every address of a service in turn stays below it."""

UNHEARD_MAX = 16
"""Kept until somebody listens, which is before the plugin's own code runs."""

NOT_GRANTED, UNIX_SOCKET, TOO_MANY = "not granted", "unix socket", "too many"


class Refusal(NamedTuple):
    """A connection that was refused, and how many more since the last that was told."""

    why: str
    address: str
    """An IP address, or the path of a Unix socket."""
    port: int
    more: int = 0


class Teller:
    """The supervisor's side: tells of refusals, and of those that it only counted as soon as it may again."""

    def __init__(self, tell: "Callable[[Refusal], None]", now_s: "Callable[[], float]") -> None:
        self._tell = tell
        self._now_s = now_s
        self._tokens = float(TOLD_BURST)
        self._filled_at_s = now_s()
        self._held: Refusal | None = None
        self._counted = 0

    def note(self, why: str, address: str, port: int) -> None:
        """A connection was refused."""
        self._counted += 1
        self._held = Refusal(why, address, port)
        self.flush()

    def flush(self, *, all_: bool = False) -> None:
        """Tell what is held where the rate allows it, or in any case."""
        if self._held is None or not (self._take_token() or all_):
            return
        held, more = self._held, self._counted - 1
        self._held, self._counted = None, 0
        self._tell(held._replace(more=more))

    @property
    def wait_s(self) -> "float | None":
        """How long until what is held may be told; None where nothing is."""
        if self._held is None:
            return None
        return max(0.0, (1 - self._tokens) / TOLD_PER_S - (self._now_s() - self._filled_at_s))

    def _take_token(self) -> bool:
        now_s = self._now_s()
        self._tokens = min(float(TOLD_BURST), self._tokens + (now_s - self._filled_at_s) * TOLD_PER_S)
        self._filled_at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class RefusalTap:
    """The host's side: passes refusals on to whoever hears them, and keeps the first until somebody does."""

    def __init__(self) -> None:
        self._hear: Callable[[Refusal], None] | None = None
        self._unheard: list[Refusal] = []

    def tell(self, refusal: Refusal) -> None:
        """A refusal came."""
        if self._hear is not None:
            self._hear(refusal)
        elif len(self._unheard) < UNHEARD_MAX:
            self._unheard.append(refusal)

    def hear(self, listener: "Callable[[Refusal], None]") -> None:
        """Hand every refusal to `listener` from now on, those that came before first."""
        unheard, self._unheard = self._unheard, []
        self._hear = listener
        for refusal in unheard:
            listener(refusal)
