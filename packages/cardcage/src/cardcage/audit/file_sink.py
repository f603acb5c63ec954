"""A log in files, which several processes may write to at once.

Each batch is written under a lock on `lock`, after a look at whether another process has written meanwhile. Nothing
that was written is ever changed: files are opened for appending, and only what a host that ended in the middle of a
line left behind is cut off, which the next line tells. A log that ends before where it is known to have been is not
continued from there: numbering goes on after what is missing, so that the gap can be seen for ever.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cardcage.audit.actions import Action
from cardcage.audit.chain import Head, encode, entry_of
from cardcage.audit.event import AuditEvent
from cardcage.audit.keys import open_key, write_apart
from cardcage.audit.segments import KEPT_NAME, locked, prepare_folder, read_kept, segment_name, segment_numbers
from cardcage.audit.sink import LogLimits, opening
from cardcage.audit.tail import Tail, read_first, read_tail

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_TORN_SHOWN_BYTES: Final = 200


class FileSink:
    """The log in the folder `folder`, made where there is none. `wall_s` tells the time (seconds since 1970)."""

    def __init__(self, folder: Path, *, wall_s: Callable[[], float], limits: LogLimits | None = None) -> None:
        from cardcage.audit.checkpoint import public_text  # only a log that is written needs cryptography

        self._folder = folder
        self._wall_s = wall_s
        self._limits = limits or LogLimits()
        self._descriptor: int | None = None
        self._number = 0
        self._size = 0
        self._head = Head()
        self._log = ""
        self._introduced = False
        prepare_folder(folder)
        with locked(folder):
            self._key: Ed25519PrivateKey = open_key(folder)
        self._public_key = public_text(self._key.public_key())

    def append(self, events: Sequence[AuditEvent]) -> None:
        """Write all the events as lines after what is there."""
        with locked(self._folder):
            found = self._catch_up()
            if self._size >= self._limits.segment_bytes:
                self._rotate()
            self._put([*found, *events])

    def checkpoint(self) -> None:
        """Sign what is there, and keep the checkpoint apart as well, once it is on the disk."""
        from cardcage.audit.checkpoint import checkpoint_entry

        with locked(self._folder):
            if found := self._catch_up():
                self._put(found)
            entry = checkpoint_entry(self._key, log=self._log, head=self._head, now_s=self._wall_s())
            line, head = encode(entry)
            self._write(line, head)
            self.sync()
            write_apart(self._folder / KEPT_NAME, line, mode=0o600)

    def sync(self) -> None:
        """Bring what was written to the disk."""
        if self._descriptor is not None:
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    # where the log ends -------------------------------------------------------------------------------------------

    def _catch_up(self) -> list[AuditEvent]:
        """Find the end of the log; what is to be said before anything else, where something is."""
        found: list[AuditEvent] = []
        if not self._unmoved():
            found = self._find_end()
        if not self._introduced:
            found.insert(0, opening(self._log, self._public_key))
            self._introduced = True
        return found

    def _unmoved(self) -> bool:
        """Whether the file is as this sink left it."""
        if self._descriptor is None or (self._folder / segment_name(self._number + 1)).exists():
            return False
        status = os.fstat(self._descriptor)
        return status.st_nlink > 0 and status.st_size == self._size

    def _find_end(self) -> list[AuditEvent]:
        self.close()
        kept = read_kept(self._folder / KEPT_NAME)
        numbers = segment_numbers(self._folder)
        self._open_segment(numbers[-1] if numbers else 1)
        assert self._descriptor is not None
        first = read_first(self._descriptor)
        named = [line.entry.fields.get("log") for line in (first, kept) if line is not None]
        self._log = next((str(name) for name in named if name), self._log or secrets.token_hex(16))
        tail = read_tail(self._descriptor)
        found = self._mend(tail)
        self._introduced = (
            self._introduced and self._size > 0
        )  # a new file names log and key, whatever became of others
        head = tail.head or self._end_of_segment_before(numbers) or Head()
        head = Head(seq=head.seq + tail.strange_lines, hash=head.hash)
        known = max((self._head, kept.head if kept else Head()), key=lambda each: each.seq)
        if head.seq < known.seq:
            found.append(_cut(head.seq + 1, known.seq))
            head = known
        self._head = head
        return found

    def _mend(self, tail: Tail) -> list[AuditEvent]:
        assert self._descriptor is not None
        found: list[AuditEvent] = []
        if tail.unended:
            os.write(self._descriptor, b"\n")
        elif tail.torn:
            os.ftruncate(self._descriptor, tail.whole_bytes)
            found.append(_torn(tail.torn))
        if tail.strange_lines:
            found.append(_strange(tail.strange_lines))
        self._size = os.fstat(self._descriptor).st_size
        return found

    def _end_of_segment_before(self, numbers: Sequence[int]) -> Head | None:
        """Where the newest file is still empty: where the one before it ends."""
        return self._end_of(numbers[-2]) if len(numbers) > 1 else None

    def _end_of(self, number: int) -> Head | None:
        descriptor = os.open(self._folder / segment_name(number), os.O_RDONLY | os.O_CLOEXEC)
        try:
            return read_tail(descriptor).head
        finally:
            os.close(descriptor)

    def _open_segment(self, number: int) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(self._folder / segment_name(number), flags, 0o600)
        self._number = number
        self._size = os.fstat(self._descriptor).st_size

    # writing ------------------------------------------------------------------------------------------------------

    def _put(self, events: Sequence[AuditEvent]) -> None:
        now_s = self._wall_s()
        head, lines = self._head, list[bytes]()
        for event in events:
            line, head = encode(entry_of(event, head, now_s))
            lines.append(line)
        self._write(b"".join(lines), head)

    def _write(self, data: bytes, head: Head) -> None:
        """Write these lines, which end with `head`, or leave the file as it was and raise `OSError`."""
        assert self._descriptor is not None
        try:
            done = 0
            while done < len(data):
                done += os.write(self._descriptor, data[done:])
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)
        self._head = head

    def _rotate(self) -> None:
        """Go on in a further file; where there are too many, the oldest goes, and the log says which it was."""
        self.sync()
        self.close()
        self._open_segment(self._number + 1)
        fields = {"log": self._log, "segment": self._number, "public_key": self._public_key}
        self._put([AuditEvent(action=Action.AUDIT_ROTATED, reason="the log goes on in this file", fields=fields)])
        numbers = segment_numbers(self._folder)
        for number in numbers[: max(0, len(numbers) - self._limits.segments)]:
            self._trim(number)

    def _trim(self, number: int) -> None:
        end = self._end_of(number)
        fields = {"segment": number, "last_seq": end.seq if end else 0, "last_hash": end.hash if end else ""}
        reason = f"the log may have {self._limits.segments} files, so its oldest was removed"
        self._put([AuditEvent(action=Action.AUDIT_TRIMMED, reason=reason, fields=fields)])
        self.sync()  # what tells of the removal is on the disk before the removal
        (self._folder / segment_name(number)).unlink()


def _torn(torn: bytes) -> AuditEvent:
    return AuditEvent(
        action=Action.AUDIT_RECOVERED,
        reason="a host ended in the middle of a line, which was cut off",
        fields={"bytes": len(torn), "text": torn[:_TORN_SHOWN_BYTES].decode("utf-8", "replace")},
    )


def _strange(lines: int) -> AuditEvent:
    return AuditEvent(
        action=Action.AUDIT_TAMPERED,
        reason="lines that are none of an audit log stood at its end",
        allowed=False,
        fields={"count": lines},
    )


def _cut(first_seq: int, last_seq: int) -> AuditEvent:
    return AuditEvent(
        action=Action.AUDIT_TAMPERED,
        reason=f"{last_seq - first_seq + 1} lines that had been written were gone from the end of the log",
        allowed=False,
        fields={"first_seq": first_seq, "last_seq": last_seq},
    )
