"""What every `Sink` does. A new implementation is added to `sinks`, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cardcage.audit import Action, AuditEvent
from cardcage.audit.chain import RawLine, parse
from cardcage.audit.file_sink import FileSink
from cardcage.audit.segments import open_log
from cardcage.audit.sink import LogLimits, MemorySink, Sink
from cardcage.audit.verify import verify_log

Lines = Callable[[], list[bytes]]


def in_memory(folder: Path) -> tuple[Sink, Lines]:
    sink = MemorySink(Ed25519PrivateKey.generate(), log="ab" * 16)
    return sink, lambda: sink.lines


def in_files(folder: Path) -> tuple[Sink, Lines]:
    return file_sink(folder, LogLimits())


def in_many_files(folder: Path) -> tuple[Sink, Lines]:
    return file_sink(folder, LogLimits(segment_bytes=1500))


def file_sink(folder: Path, limits: LogLimits) -> tuple[Sink, Lines]:
    def lines() -> list[bytes]:
        with open_log(folder) as log:
            return [raw.data for raw in log.lines()]

    return FileSink(folder, wall_s=lambda: 1_700_000_000.0, limits=limits), lines


sinks: dict[str, Callable[[Path], tuple[Sink, Lines]]] = {
    "memory": in_memory,
    "files": in_files,
    "many-files": in_many_files,
}


@pytest.fixture(params=sorted(sinks))
def made(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Sink, Lines]:
    return sinks[request.param](tmp_path / "audit")


def event(reason: str) -> AuditEvent:
    return AuditEvent(action=Action.LIMIT_HIT, reason=reason, plugin="ocr", fields={"limit": "memory"})


def reasons(lines: list[bytes], action: Action = Action.LIMIT_HIT) -> list[str]:
    found = [parse(line.rstrip(b"\n")) for line in lines]
    return [line.entry.reason for line in found if line is not None and line.entry.action == action]


def test_events_are_kept_in_their_order(made: tuple[Sink, Lines]) -> None:
    sink, lines = made
    sink.append([event("1"), event("2")])
    sink.append([event("3")])
    assert reasons(lines()) == ["1", "2", "3"]


def test_the_first_line_tells_of_the_opening(made: tuple[Sink, Lines]) -> None:
    sink, lines = made
    sink.append([event("1")])
    first = parse(lines()[0].rstrip(b"\n"))
    assert first is not None
    assert (first.entry.seq, first.entry.action) == (1, Action.AUDIT_OPENED)
    assert {"log", "public_key"} <= first.entry.fields.keys()


def test_what_was_written_and_signed_is_found_whole(made: tuple[Sink, Lines]) -> None:
    sink, lines = made
    for number in range(40):
        sink.append([event(str(number))])
        if number % 7 == 0:
            sink.checkpoint()
    sink.checkpoint()
    sink.close()
    report = verify_log(
        RawLine(file="log", number=number, data=line.rstrip(b"\n")) for number, line in enumerate(lines(), 1)
    )
    assert report.faults == []
    assert report.unsigned == 0
    assert report.checkpoints == 7


def test_what_an_event_brings_is_cleaned(made: tuple[Sink, Lines]) -> None:
    sink, lines = made
    hostile = AuditEvent(
        action=Action.EVENT_REFUSED,
        reason="x\n" * 5000,
        plugin="p\x1b[2J",
        fields={"event": "e" * 10_000, "password": "hunter2", "paths": ["p" * 1000] * 1000},
    )
    sink.append([hostile])
    (line,) = [each for each in lines() if b"event.refused" in each]
    assert len(line) <= 16 * 1024
    assert b"hunter2" not in line
    parsed = parse(line.rstrip(b"\n"))
    assert parsed is not None
    assert parsed.intact
    assert parsed.entry.plugin == "p\\x1b[2J"
