"""Whether a log is as it was written: every line that was changed, removed, inserted or moved, by its number.

One pass, one line of looking ahead, no memory of what was seen but the faults: a log may be large.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from cardcage.audit.actions import Action
from cardcage.audit.chain import Entry, Head, Line, RawLine, is_action, parse
from cardcage.audit.checkpoint import checkpoint_fault, key_id, public_from_text, signed_by

FAULTS_MAX: Final = 100
"""More are counted, not told: where so much is wrong, the first hundred say enough."""


PLACES_MAX: Final = 10_000
"""Lines that are out of order, and gaps, before it is no longer a log: each is held in memory."""


class _TooWrong(Exception):
    """What is read is no audit log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFault:
    """One thing that is wrong: in which file and line, of which kind, and a sentence about it."""

    file: str
    line: int
    kind: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


@dataclass(slots=True, kw_only=True)
class LogReport:
    """What was found. `signed_through` is the last line number (`seq`) that a good checkpoint stands behind."""

    lines: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_at: str = ""
    last_at: str = ""
    checkpoints: int = 0
    signed_through: int = 0
    keys: list[str] = field(default_factory=list[str])
    key_pinned: bool = False
    lost: int = 0
    """Events that the log itself says could not be kept."""
    trimmed_through: int = 0
    faults: list[LogFault] = field(default_factory=list[LogFault])
    faults_not_told: int = 0

    @property
    def intact(self) -> bool:
        return not self.faults

    @property
    def unsigned(self) -> int:
        """Lines after the last checkpoint: chained, but whoever holds the file could still rewrite them."""
        return max(0, self.last_seq - max(self.signed_through, self.first_seq - 1))


def verify_log(
    lines: Iterable[RawLine], *, keys: Iterable[Ed25519PublicKey] = (), kept: Line | None = None
) -> LogReport:
    """Hold every line against the chain and every checkpoint against the keys.

    Without `keys` the one that the log names itself is used: that shows damage, and not whether somebody has written
    the whole log anew. `kept` is the line of a checkpoint that was kept apart: a log that ends before it was cut.
    """
    return _Verifier(keys, kept).run(lines)


class _Verifier:
    def __init__(self, keys: Iterable[Ed25519PublicKey], kept: Line | None) -> None:
        self._keys = {key_id(key): key for key in keys}
        self._kept = kept
        self._kept_seen = False
        self._report = LogReport(key_pinned=bool(self._keys))
        self._head: Head | None = None
        """Where the chain ends so far; its hash is empty where that is not known for sure."""
        self._also = ""
        """A second hash by which the line before may be known: of a line that was changed one of two is right."""
        self._before: RawLine | None = None
        self._log = ""
        self._gaps: dict[int, tuple[RawLine, int]] = {}
        """Numbers that are missing so far: the first of each gap, the line after it, and the last of the gap."""
        self._strays: dict[int, RawLine] = {}
        """Lines that stand where their number does not belong."""
        self._trimmed: list[tuple[int, str]] = []
        self._first: Line | None = None
        self._first_raw: RawLine | None = None
        self._unknown_keys: set[str] = set()

    def run(self, lines: Iterable[RawLine]) -> LogReport:
        last: RawLine | None = None
        try:
            for raw, line, following in _with_next(lines):
                self._report.lines += 1
                self._take(raw, line, following)
                self._before = last = raw
        except _TooWrong:
            assert last is not None
            self._fault(last, "order", "is where reading ended: too many lines are out of order for this to be a log")
        self._end(last)
        self._report.faults.sort(key=lambda fault: (fault.file, fault.line))
        return self._report

    # one line -----------------------------------------------------------------------------------------------------

    def _take(self, raw: RawLine, line: Line | None, following: Line | None) -> None:
        if self._head is None:
            self._begin(raw, line, following)
            return
        expected = self._head.seq + 1
        if line is None:
            self._fault(raw, "changed", _why_changed(line))
            if following is None or following.entry.seq != expected:  # it stands in the place of another
                self._head, self._also = Head(seq=expected, hash=""), ""
            return
        if not line.intact:
            self._fault(raw, "changed", _why_changed(line))
        if line.entry.seq == expected:
            self._check_link(raw, line)
            self._accept(raw, line)
        else:
            self._out_of_line(raw, line, following, expected)

    def _begin(self, raw: RawLine, line: Line | None, following: Line | None) -> None:
        """The first line: where the log is one that was cut at its head, any number may be its first."""
        self._first, self._first_raw = line, raw
        if line is None or not line.intact:
            self._fault(raw, "changed", _why_changed(line))
            # Its own number may be what was changed, so the next line's is believed.
            seq = following.entry.seq - 1 if following else line.entry.seq if line else 1
            self._head = Head(seq=seq, hash=line.hash if line else "")
            self._also = line.computed if line else ""
            self._report.first_seq = seq
        else:
            self._report.first_seq = line.entry.seq
            self._accept(raw, line)

    def _check_link(self, raw: RawLine, line: Line) -> None:
        assert self._head is not None
        if self._head.hash in ("", line.entry.prev) or line.entry.prev == self._also or not line.intact:
            return
        before = self._before or raw
        self._fault(
            before,
            "relinked",
            f"and the line after it ({_place(raw)}) do not belong together: one was changed and given a new hash",
        )

    def _accept(self, raw: RawLine, line: Line) -> None:
        self._head, self._also = line.head, line.computed
        self._read(raw, line)

    def _out_of_line(self, raw: RawLine, line: Line, following: Line | None, expected: int) -> None:
        """A number that is not the next: inserted, in another's place, or the first after a gap."""
        seq, next_seq = line.entry.seq, following.entry.seq if following else None
        if not line.intact and next_seq == expected + 1:  # its number is what was changed, and that was told
            self._head, self._also = Head(seq=expected, hash=line.hash), line.computed
        elif next_seq == expected:
            self._strays[seq] = raw
        elif next_seq == expected + 1 and next_seq != seq + 1:
            self._strays[seq] = raw
            self._gaps[expected] = (raw, expected)
            self._head, self._also = Head(seq=expected, hash=""), ""
        elif seq > expected:
            self._gaps[expected] = (raw, seq - 1)
            self._accept(raw, line)
        else:
            self._strays[seq] = raw
        if len(self._gaps) + len(self._strays) > PLACES_MAX:
            raise _TooWrong

    # what lines say -----------------------------------------------------------------------------------------------

    def _read(self, raw: RawLine, line: Line) -> None:
        entry, report = line.entry, self._report
        report.last_seq, report.last_at = max(report.last_seq, entry.seq), entry.at
        report.first_at = report.first_at or entry.at
        if self._kept is not None and entry.seq == self._kept.entry.seq:
            self._kept_seen = True
            if line.hash != self._kept.hash:
                self._fault(
                    raw, "checkpoint", "is not the checkpoint that was kept apart: this part of the log was rewritten"
                )
        if is_action(entry, Action.AUDIT_CHECKPOINT):
            self._checkpoint(raw, entry)
        elif is_action(entry, Action.AUDIT_LOST):
            report.lost += _count(entry)
        elif is_action(entry, Action.AUDIT_TRIMMED):
            self._trimmed.append((_number(entry, "last_seq"), str(entry.fields.get("last_hash", ""))))
        log = str(entry.fields.get("log", ""))
        if not self._report.key_pinned and entry.fields.get("public_key"):
            self._trust(str(entry.fields.get("public_key", "")))
        if log and self._log and log != self._log:
            self._fault(raw, "other_log", f"belongs to another log ({log}, not {self._log})")
        self._log = self._log or log

    def _trust(self, text: str) -> None:
        public = public_from_text(text)
        if public is not None:
            self._keys.setdefault(key_id(public), public)

    def _checkpoint(self, raw: RawLine, entry: Entry) -> None:
        signer = signed_by(entry)
        public = self._keys.get(signer)
        if public is None:
            if signer not in self._unknown_keys:
                self._unknown_keys.add(signer)
                known = ", ".join(self._keys) or "none"
                self._fault(raw, "wrong_key", f"is a checkpoint made with the key {signer or '?'}, expected: {known}")
            return
        fault = checkpoint_fault(entry, public)
        if fault is not None:
            self._fault(raw, "checkpoint", f"is a checkpoint that {fault}")
            return
        self._report.checkpoints += 1
        if signer not in self._report.keys:
            self._report.keys.append(signer)
        if not self._report.faults and not self._gaps and not self._strays:
            self._report.signed_through = entry.seq

    # the end ------------------------------------------------------------------------------------------------------

    def _end(self, last: RawLine | None) -> None:
        self._tell_order()
        self._tell_head()
        kept = self._kept
        if kept is not None:
            self._check_kept(kept)
        if kept is not None and not self._kept_seen and kept.entry.seq > self._report.last_seq:
            missing = kept.entry.seq - self._report.last_seq
            file, number = (last.file, last.number) if last else ("", 0)
            self._add(
                LogFault(
                    file=file,
                    line=number,
                    kind="cut",
                    message=f"is the last line, but {missing} more stood after it when the checkpoint of "
                    f"{kept.entry.at} was made (up to number {kept.entry.seq})"
                    if last
                    else f"no line is left of the {missing} that stood here at {kept.entry.at}",
                )
            )

    def _check_kept(self, kept: Line) -> None:
        """What was kept apart must be a checkpoint itself; it is signed, so it cannot have been made up."""
        public = self._keys.get(signed_by(kept.entry))
        wrong = "is of another key" if public is None else checkpoint_fault(kept.entry, public)
        if not kept.intact:
            wrong = "was changed"
        elif not self._keys:
            return  # nothing is left that could name a key
        if wrong is not None:
            message = f"the checkpoint that was kept apart {wrong}"
            self._add(LogFault(file="the kept checkpoint", line=1, kind="kept", message=message))

    def _tell_order(self) -> None:
        for first, (raw, last) in self._gaps.items():
            found = [seq for seq in range(first, min(last, first + FAULTS_MAX) + 1) if seq in self._strays]
            missing = last - first + 1 - len(found)
            for seq in found:
                stray = self._strays.pop(seq)
                self._fault(
                    stray, "moved", f"has the number {seq} and stands out of order: it belongs at {_place(raw)}"
                )
            if missing > 0:
                numbers = f"number {first}" if first == last else f"numbers {first} to {last}"
                self._fault(raw, "removed", f"comes after a gap: {missing} removed before it ({numbers})")
        for seq, raw in self._strays.items():
            self._fault(raw, "inserted", f"was inserted: its number {seq} is that of another line")

    def _tell_head(self) -> None:
        first, raw = self._first, self._first_raw
        if first is None or raw is None or not first.intact:
            return
        if first.entry.seq == 1 and not is_action(first.entry, Action.AUDIT_OPENED):
            self._fault(raw, "head", "is the first line and does not tell of the opening of the log")
        if first.entry.seq > 1:
            before = first.entry.seq - 1
            if (before, first.entry.prev) in self._trimmed:
                self._report.trimmed_through = before
            else:
                self._fault(raw, "head", f"is the first line and has number {before + 1}: {before} removed before it")

    # faults -------------------------------------------------------------------------------------------------------

    def _fault(self, raw: RawLine, kind: str, sentence: str) -> None:
        self._add(LogFault(file=raw.file, line=raw.number, kind=kind, message=f"line {raw.number} {sentence}"))

    def _add(self, fault: LogFault) -> None:
        if len(self._report.faults) < FAULTS_MAX:
            self._report.faults.append(fault)
        else:
            self._report.faults_not_told += 1


def fault_counts(report: LogReport) -> Mapping[str, int]:
    """How many faults of each kind were told."""
    counts: dict[str, int] = {}
    for fault in report.faults:
        counts[fault.kind] = counts.get(fault.kind, 0) + 1
    return counts


def _with_next(lines: Iterable[RawLine]) -> Iterator[tuple[RawLine, Line | None, Line | None]]:
    """Each line with what it spells, and with what the one after it spells."""
    held: tuple[RawLine, Line | None] | None = None
    for raw in lines:
        line = parse(raw.data)
        if held is not None:
            yield (*held, line)
        held = (raw, line)
    if held is not None:
        yield (*held, None)


def _why_changed(line: Line | None) -> str:
    if line is None:
        return "was changed: it is not a line of an audit log"
    if line.hash != line.computed:
        return "was changed: its content and its hash do not fit"
    return "was changed: it is not in the one form that a line may have"


def _place(raw: RawLine) -> str:
    return f"{raw.file}:{raw.number}" if raw.file else f"line {raw.number}"


def _number(entry: Entry, name: str) -> int:
    value = entry.fields.get(name, 0)
    return value if isinstance(value, int) else 0


def _count(entry: Entry) -> int:
    return _number(entry, "count")
