"""Where lines are kept: the `Sink` port, and the one in memory. One contract suite holds every sink to this."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from cardcage.audit.actions import Action
from cardcage.audit.chain import Entry, Head, encode, entry_of
from cardcage.audit.event import AuditEvent

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

MIB: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """How much is kept, and how often it is signed and brought to the disk."""

    segment_bytes: int = 16 * MIB
    """One file of the log: some forty thousand lines."""
    segments: int = 64
    """Files that are kept: together one GiB. The oldest is removed then, which the log itself records."""
    checkpoint_lines: int = 256
    checkpoint_s: float = 60.0
    """A line is signed after so many more, or after so long."""
    sync_s: float = 1.0
    """A power cut takes at most the lines of so long; the end of the host's process takes none that was written."""


class Sink(Protocol):
    """Appends events to one chain. Called from one thread at a time; several sinks may share one log."""

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Write all the events, or raise `OSError` and leave the log as it was."""
        ...

    def checkpoint(self) -> None:
        """Sign what is there, bring it to the disk, and keep the checkpoint apart as well."""
        ...

    def sync(self) -> None:
        """Bring what was written to the disk."""
        ...

    def close(self) -> None:
        """Let go of files. What was written stays."""
        ...


class MemorySink:
    """A log in memory: `lines` are what a file would hold. For tests and for short-lived hosts."""

    def __init__(self, key: Ed25519PrivateKey, *, log: str, now_s: float = 0.0) -> None:
        from cardcage.audit.checkpoint import public_text

        self.lines: list[bytes] = []
        self._key, self._log, self._now_s = key, log, now_s
        self._head = Head()
        self.append([opening(log, public_text(key.public_key()))])

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Chain the events to what is there."""
        for event in events:
            self._put(entry_of(event, self._head, self._now_s))

    def checkpoint(self) -> None:
        """Sign what is there."""
        from cardcage.audit.checkpoint import checkpoint_entry

        self._put(checkpoint_entry(self._key, log=self._log, head=self._head, now_s=self._now_s))

    def sync(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""

    def _put(self, entry: Entry) -> None:
        line, self._head = encode(entry)
        self.lines.append(line)


def opening(log: str, public_key: str) -> AuditEvent:
    """What a host writes first."""
    return AuditEvent(
        action=Action.AUDIT_OPENED,
        reason="a host began to write to this log",
        fields={"log": log, "public_key": public_key},
    )
