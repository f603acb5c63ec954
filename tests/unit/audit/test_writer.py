"""The auditor that writes: nothing is lost silently, nobody waits, and nobody can flood it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from cardcage.audit import Action, Actor, AuditEvent
from cardcage.audit.chain import Entry, parse
from cardcage.audit.intake import INSTANCE_EVENTS_MAX, QUEUE_EVENTS_MAX, Intake
from cardcage.audit.repeats import LINES_BURST, LINES_PER_S, SAME_MAX, WINDOW_S, Repeats
from cardcage.audit.segments import open_log
from cardcage.audit.sink import LogLimits, MemorySink
from cardcage.audit.verify import verify_log
from cardcage.audit.writer import AuditWriter, open_auditor
from cardcage.foundation.errors import Misuse


class Gate(MemorySink):
    """A sink in memory that writes only while its gate is open, and fails while it is broken."""

    def __init__(self) -> None:
        super().__init__(Ed25519PrivateKey.generate(), log="ab" * 16)
        self.gate = threading.Event()
        self.gate.set()
        self.broken = False
        self.failed = threading.Event()

    def append(self, events: Sequence[AuditEvent]) -> None:
        if self.lines:
            self.gate.wait(30)
            if self.broken:
                self.failed.set()
                raise OSError(28, "No space left on device")
        super().append(events)

    def entries(self, action: Action) -> list[Entry]:
        found = [parse(line.rstrip(b"\n")) for line in self.lines]
        return [line.entry for line in found if line is not None and line.entry.action == action]


@pytest.fixture
def sink() -> Gate:
    return Gate()


@pytest.fixture
def writer(sink: Gate) -> Iterator[AuditWriter]:
    made = AuditWriter(lambda limits: sink, wall_s=lambda: 1_700_000_000.0)
    yield made
    sink.broken = False
    sink.gate.set()
    made.close()


def event(reason: str, instance: str = "", action: Action = Action.CAPABILITY_REFUSED) -> AuditEvent:
    return AuditEvent(action=action, reason=reason, instance=instance, plugin=instance)


def test_what_is_recorded_is_written_and_signed_at_the_end(sink: Gate, writer: AuditWriter) -> None:
    for number in range(50):
        writer.record(event(str(number)))
    writer.close()
    assert [entry.reason for entry in sink.entries(Action.CAPABILITY_REFUSED)] == [str(number) for number in range(50)]
    assert sink.entries(Action.AUDIT_CHECKPOINT)
    assert sink.lines[-1].count(b'"audit.checkpoint"') == 1


def test_nobody_waits_for_a_disk_that_does(sink: Gate, writer: AuditWriter) -> None:
    writer.record(event("first"))
    sink.gate.clear()
    for number in range(1000):
        writer.record(event(str(number)))
    assert not writer.flush(timeout_s=0.05)
    sink.gate.set()
    assert writer.flush()
    assert len(sink.entries(Action.CAPABILITY_REFUSED)) == 1001


def test_what_finds_no_room_is_counted_and_the_count_is_recorded(sink: Gate, writer: AuditWriter) -> None:
    writer.record(event("first"))
    assert writer.flush()
    sink.gate.clear()
    sent = 3 * QUEUE_EVENTS_MAX  # the writer holds one full queue already, at most
    for number in range(sent):
        writer.record(event(str(number)))
    sink.gate.set()
    assert writer.flush()
    writer.close()
    kept = len(sink.entries(Action.CAPABILITY_REFUSED)) - 1
    lost = sum(int(str(entry.fields["count"])) for entry in sink.entries(Action.AUDIT_LOST))
    assert kept + lost == sent
    assert lost > 0


def test_one_instance_cannot_push_out_what_others_do(sink: Gate, writer: AuditWriter) -> None:
    writer.record(event("first"))
    assert writer.flush()
    sink.gate.clear()
    for number in range(2 * QUEUE_EVENTS_MAX):
        writer.record(event(str(number), instance="noisy"))
    writer.record(event("heard", instance="quiet"))
    sink.gate.set()
    assert writer.flush()
    writer.close()
    entries = sink.entries(Action.CAPABILITY_REFUSED)
    assert "heard" in [entry.reason for entry in entries]
    # What the writer holds already is one batch more.
    assert sum(entry.instance == "noisy" for entry in entries) <= 2 * INSTANCE_EVENTS_MAX
    assert "noisy" in str(sink.entries(Action.AUDIT_LOST)[0].fields["counts"])


def test_a_disk_that_refuses_and_then_takes_again_loses_nothing(sink: Gate, writer: AuditWriter) -> None:
    sink.broken = True
    for number in range(10):
        writer.record(event(str(number)))
    assert sink.failed.wait(30)
    sink.broken = False
    writer.close()
    assert [entry.reason for entry in sink.entries(Action.CAPABILITY_REFUSED)] == [str(number) for number in range(10)]


def test_an_event_that_cannot_be_written_does_not_end_the_record(
    sink: Gate, writer: AuditWriter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    append = sink.append

    def refuse_some(events: Sequence[AuditEvent]) -> None:
        if any(event.reason == "odd" for event in events):
            raise ValueError("it makes no sense")
        append(events)

    monkeypatch.setattr(sink, "append", refuse_some)
    for reason in ("odd", "plain"):
        writer.record(AuditEvent(action=Action.LIMIT_HIT, reason=reason))
        assert writer.flush()
    writer.close()
    assert [entry.reason for entry in sink.entries(Action.LIMIT_HIT)] == ["plain"]
    (lost,) = sink.entries(Action.AUDIT_LOST)
    assert lost.fields["count"] == 1
    assert "cannot be written" in caplog.text


def test_a_disk_that_never_takes_anything_is_told_of_in_the_log(
    sink: Gate, writer: AuditWriter, caplog: pytest.LogCaptureFixture
) -> None:
    sink.broken = True
    writer.record(event("1"))
    writer.close()
    assert "1 audit events are lost" in caplog.text
    assert "No space left" in caplog.text


def test_an_act_that_is_repeated_is_written_a_few_times_and_then_counted(sink: Gate, writer: AuditWriter) -> None:
    for _ in range(1000):
        writer.record(event("not granted", instance="ocr"))
    writer.close()
    written = sink.entries(Action.CAPABILITY_REFUSED)
    counted = sum(int(str(entry.fields["count"])) for entry in sink.entries(Action.AUDIT_REPEATED))
    assert len(written) + counted == 1000
    assert counted > 0
    repeated = sink.entries(Action.AUDIT_REPEATED)[0]
    assert (repeated.plugin, repeated.reason) == ("ocr", "not granted")
    assert repeated.fields["repeated"] == Action.CAPABILITY_REFUSED


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.floats(0, 3)), max_size=200))
def test_what_is_written_and_what_is_counted_are_together_what_came(came: list[tuple[str, str, float]]) -> None:
    repeats, now_s, written, counted = Repeats(), 0.0, 0, 0
    for reason, instance, step_s in came:
        now_s += step_s / 20
        counted += sum(int(each.fields["count"]) for each in repeats.due(now_s))
        written += repeats.admits(event(reason, instance), now_s)
    counted += sum(int(each.fields["count"]) for each in repeats.due(now_s, all_=True))
    assert written + counted == len(came)
    assert not repeats.waiting


def by_plugin(reason: str, instance: str = "ocr") -> AuditEvent:
    return AuditEvent(action=Action.EGRESS_REFUSED, reason=reason, instance=instance, actor=Actor.PLUGIN)


def test_a_plugin_that_makes_each_act_look_different_is_written_at_a_rate_and_the_rest_is_counted() -> None:
    repeats = Repeats()
    written = sum(repeats.admits(by_plugin(str(number)), 0.0) for number in range(5000))
    counted = sum(int(each.fields["count"]) for each in repeats.due(WINDOW_S))
    assert written == LINES_BURST
    assert written + counted == 5000
    again = sum(repeats.admits(by_plugin(f"later {number}"), 10.0) for number in range(5000))
    assert again == 10 * LINES_PER_S


def test_what_the_host_does_about_a_noisy_plugin_is_always_written() -> None:
    repeats = Repeats()
    for number in range(5000):
        repeats.admits(by_plugin(str(number)), 0.0)
    assert not repeats.admits(by_plugin("one more"), 0.0)
    assert repeats.admits(event("killed", "ocr", Action.INSTANCE_CRASHED), 0.0)
    assert repeats.admits(by_plugin("another's", "quiet"), 0.0)


def test_calls_of_two_services_are_not_taken_for_the_same() -> None:
    repeats = Repeats()

    def called(service: str) -> bool:
        act = AuditEvent(
            action=Action.CAPABILITY_CALLED, reason="is granted", instance="a", fields={"service": service}
        )
        return repeats.admits(act, 0.0)

    assert [called("data_store.put") for _ in range(SAME_MAX + 1)][-1] is False
    assert called("data_store.delete")


def test_after_a_pause_the_same_act_is_written_again() -> None:
    repeats = Repeats()
    assert [repeats.admits(event("x", "ocr"), 0.0) for _ in range(SAME_MAX + 1)] == [*[True] * SAME_MAX, False]
    repeats.due(WINDOW_S)
    assert repeats.admits(event("x", "ocr"), WINDOW_S)


def test_a_closed_intake_takes_nothing() -> None:
    intake = Intake()
    assert intake.put(event("1"))
    intake.close()
    assert not intake.put(event("2"))
    assert [each.reason for each in intake.take().events] == ["1"]


def test_a_log_that_nothing_is_written_to_is_not_begun(tmp_path: Path) -> None:
    open_auditor(tmp_path / "audit", wall_s=lambda: 0.0).close()
    assert list((tmp_path / "audit").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_told_of_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misuse, match="no audit log can be kept"):
        open_auditor(tmp_path / "file" / "audit", wall_s=lambda: 0.0)


def test_a_checkpoint_is_made_after_so_many_lines(tmp_path: Path) -> None:
    writer = open_auditor(tmp_path, wall_s=lambda: 0.0, limits=LogLimits(checkpoint_lines=5))
    for number in range(20):
        writer.record(event(str(number)))
        assert writer.flush()
    writer.close()
    with open_log(tmp_path) as log:
        report = verify_log(log.lines(), kept=log.kept)
    assert report.intact
    assert report.checkpoints >= 4


def test_a_program_that_forgets_to_close_leaves_a_signed_log(tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from cardcage.audit import Action, Trail
        from cardcage.audit.writer import open_auditor
        writer = open_auditor(Path(sys.argv[1]), wall_s=time.time)
        Trail(auditor=writer, plugin="ocr").note(Action.LIMIT_HIT, "memory", limit="memory")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, timeout=60)
    with open_log(tmp_path) as log:
        report = verify_log(log.lines(), kept=log.kept)
    assert report.intact
    assert (report.lines, report.unsigned) == (3, 0)


def test_any_number_of_threads_may_record(sink: Gate, writer: AuditWriter) -> None:
    def work(name: str) -> None:
        for number in range(300):
            writer.record(event(f"{name} {number}"))

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    writer.close()
    assert len(sink.entries(Action.CAPABILITY_REFUSED)) == 1200


def test_what_signs_is_not_loaded_before_there_is_something_to_sign(tmp_path: Path) -> None:
    program = """
        import sys, time
        from pathlib import Path
        from cardcage.audit.writer import open_auditor
        open_auditor(Path(sys.argv[1]) / "audit", wall_s=time.time).close()
        assert not [name for name in sys.modules if name.startswith("cryptography")]
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=True, timeout=60)
