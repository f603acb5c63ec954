"""The log in files: several processes, ends in the middle of a line, full files, and what was done to it meanwhile."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardcage.audit import Action, AuditEvent
from cardcage.audit.chain import Entry, parse
from cardcage.audit.file_sink import FileSink
from cardcage.audit.keys import PRIVATE_NAME
from cardcage.audit.segments import KEPT_NAME, open_log, segment_name
from cardcage.audit.sink import LogLimits
from cardcage.audit.verify import LogReport, verify_log
from cardcage.foundation.errors import Misuse

NOW_S = 1_700_000_000.0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


def sink_in(folder: Path, **limits: int) -> FileSink:
    return FileSink(folder, wall_s=lambda: NOW_S, limits=LogLimits(**limits))


def event(reason: str) -> AuditEvent:
    return AuditEvent(action=Action.LIMIT_HIT, reason=reason)


def entries(folder: Path) -> list[Entry]:
    with open_log(folder) as log:
        return [line.entry for raw in log.lines() if (line := parse(raw.data)) is not None]


def verify(folder: Path) -> LogReport:
    with open_log(folder) as log:
        return verify_log(log.lines(), kept=log.kept)


def of(folder: Path, action: Action) -> list[Entry]:
    return [entry for entry in entries(folder) if entry.action == action]


def test_the_log_and_its_key_can_be_read_by_their_owner_alone(folder: Path) -> None:
    sink_in(folder).append([event("1")])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / segment_name(1)).stat().st_mode & 0o777 == 0o600
    assert (folder / PRIVATE_NAME).stat().st_mode & 0o777 == 0o600


def test_another_host_continues_the_chain(folder: Path) -> None:
    first = sink_in(folder)
    first.append([event("1")])
    first.checkpoint()
    first.close()
    second = sink_in(folder)
    second.append([event("2")])
    second.checkpoint()
    assert [entry.reason for entry in of(folder, Action.LIMIT_HIT)] == ["1", "2"]
    assert len(of(folder, Action.AUDIT_OPENED)) == 2
    assert verify(folder).faults == []


def test_two_sinks_that_take_turns_do_not_fork_the_chain(folder: Path) -> None:
    sinks = [sink_in(folder, segment_bytes=2000), sink_in(folder, segment_bytes=2000)]
    for number in range(60):
        sinks[number % 2].append([event(str(number))])
    sinks[0].checkpoint()
    assert [entry.reason for entry in of(folder, Action.LIMIT_HIT)] == [str(number) for number in range(60)]
    assert verify(folder).faults == []


def test_processes_that_write_at_once_do_not_fork_the_chain(folder: Path) -> None:
    code = textwrap.dedent(
        """
        import sys, time
        from pathlib import Path
        from cardcage.audit import Action, AuditEvent
        from cardcage.audit.file_sink import FileSink
        from cardcage.audit.sink import LogLimits
        sink = FileSink(Path(sys.argv[1]), wall_s=time.time, limits=LogLimits(segment_bytes=20_000))
        for number in range(100):
            sink.append([AuditEvent(action=Action.LIMIT_HIT, reason=f"{sys.argv[2]} {number}")])
            if number % 30 == 0:
                sink.checkpoint()
        sink.checkpoint()
        """
    )
    writers = [subprocess.Popen([sys.executable, "-c", code, str(folder), name]) for name in ("a", "b", "c")]
    try:
        assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0]
    finally:
        for writer in writers:
            writer.kill()
    report = verify(folder)
    assert report.faults == []
    assert report.unsigned == 0
    found = [entry.reason for entry in of(folder, Action.LIMIT_HIT)]
    assert sorted(found) == sorted(f"{name} {number}" for name in "abc" for number in range(100))
    for name in "abc":
        assert [reason for reason in found if reason[0] == name] == [f"{name} {number}" for number in range(100)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.integers(1, 2000))
def test_a_host_that_ended_in_the_middle_of_a_line_leaves_a_log_that_goes_on(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("cut") / "audit"
    sink = sink_in(folder)
    sink.append([event("1"), event("2" * 100), event("3")])
    file = folder / segment_name(1)
    length = max(0, file.stat().st_size - cut)
    os.truncate(file, length)
    before = file.read_bytes()
    after = sink_in(folder)
    after.append([event("4")])
    after.checkpoint()
    assert verify(folder).faults == []
    torn = before.rpartition(b"\n")[2]
    whole = parse(torn) is not None
    recovered = of(folder, Action.AUDIT_RECOVERED)
    assert len(recovered) == (1 if torn and not whole else 0)
    if recovered:
        assert recovered[0].fields["bytes"] == len(torn)
    assert file.read_bytes().startswith(before if whole else before[: len(before) - len(torn)])


def test_a_full_file_is_followed_by_another_that_continues_the_chain(folder: Path) -> None:
    sink = sink_in(folder, segment_bytes=1000)
    for number in range(20):
        sink.append([event(str(number))])
    sink.checkpoint()
    assert len(list(folder.glob("log-*.jsonl"))) > 3
    assert len(of(folder, Action.AUDIT_ROTATED)) == len(list(folder.glob("log-*.jsonl"))) - 1
    assert verify(folder).faults == []


def test_the_oldest_file_goes_where_there_are_too_many_and_the_log_says_so(folder: Path) -> None:
    sink = sink_in(folder, segment_bytes=1000, segments=3)
    for number in range(60):
        sink.append([event(str(number))])
    sink.checkpoint()
    assert len(list(folder.glob("log-*.jsonl"))) == 3
    report = verify(folder)
    assert report.faults == []
    assert report.trimmed_through == report.first_seq - 1 > 0


def test_a_file_that_somebody_removed_is_missed(folder: Path) -> None:
    sink = sink_in(folder, segment_bytes=1000)
    for number in range(60):
        sink.append([event(str(number))])
    sink.checkpoint()
    (folder / segment_name(1)).unlink()
    assert [fault.kind for fault in verify(folder).faults] == ["head"]
    (folder / segment_name(3)).unlink()
    assert [(fault.file, fault.kind) for fault in verify(folder).faults] == [
        (segment_name(2), "head"),
        (segment_name(4), "removed"),
    ]


def lines_from_end(count: int) -> Callable[[Path], None]:
    def cut(file: Path) -> None:
        file.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-count]))

    return cut


@pytest.mark.parametrize("again", [True, False], ids=["by the same host", "by a further host"])
@pytest.mark.parametrize("damage", [lines_from_end(3), Path.unlink], ids=["cut", "removed"])
def test_a_log_that_was_cut_stays_cut_for_ever(folder: Path, damage: Callable[[Path], None], again: bool) -> None:
    sink = sink_in(folder)
    sink.append([event(str(number)) for number in range(10)])
    sink.checkpoint()
    damage(folder / segment_name(1))
    assert {fault.kind for fault in verify(folder).faults} == {"cut"}
    after = sink if again else sink_in(folder)
    after.append([event("after")])
    after.checkpoint()
    (found,) = of(folder, Action.AUDIT_TAMPERED)
    assert found.allowed is False
    assert {fault.kind for fault in verify(folder).faults} <= {"removed", "head"}
    assert not verify(folder).intact


def test_lines_that_are_none_stay_to_be_seen(folder: Path) -> None:
    sink = sink_in(folder)
    sink.append([event("1")])
    with (folder / segment_name(1)).open("ab") as file:
        file.write(b"not a line\n")
    sink_in(folder).append([event("2")])
    assert len(of(folder, Action.AUDIT_TAMPERED)) == 1
    assert [(fault.line, fault.kind) for fault in verify(folder).faults] == [(3, "changed")]


def test_a_checkpoint_is_kept_apart(folder: Path) -> None:
    sink = sink_in(folder)
    sink.append([event("1")])
    sink.checkpoint()
    assert (folder / segment_name(1)).read_bytes().endswith((folder / KEPT_NAME).read_bytes())


def test_a_disk_that_is_full_leaves_whole_lines_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = sink_in(folder)
    sink.append([event("1")])
    write, calls = os.write, list[int]()

    def half(descriptor: int, data: bytes) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space"):
            sink.append([event("2")])
    assert len(calls) == 2
    sink.append([event("3")])
    assert [entry.reason for entry in of(folder, Action.LIMIT_HIT)] == ["1", "3"]
    assert verify(folder).faults == []


def test_a_key_that_others_may_read_is_refused(folder: Path) -> None:
    sink_in(folder).append([event("1")])
    (folder / PRIVATE_NAME).chmod(0o640)
    with pytest.raises(Misuse, match="may be read by others"):
        sink_in(folder)


def test_a_key_that_is_none_is_refused(folder: Path) -> None:
    sink_in(folder).append([event("1")])
    (folder / PRIVATE_NAME).write_text("none")
    with pytest.raises(Misuse, match="no Ed25519 private key"):
        sink_in(folder)


def test_a_folder_that_others_may_write_to_is_refused(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(Misuse, match="others may write to it"):
        sink_in(folder)


def test_a_link_in_place_of_the_log_is_not_followed(folder: Path, tmp_path: Path) -> None:
    folder.mkdir(mode=0o700)
    (folder / segment_name(1)).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        sink_in(folder).append([event("1")])
    assert not (tmp_path / "elsewhere").exists()


def test_a_public_key_that_was_lost_is_written_again(folder: Path) -> None:
    sink_in(folder).append([event("1")])
    before = (folder / "key.pub.pem").read_bytes()
    (folder / "key.pub.pem").unlink()
    sink_in(folder).append([event("2")])
    assert (folder / "key.pub.pem").read_bytes() == before
