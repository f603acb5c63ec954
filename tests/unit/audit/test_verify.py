"""Every way to tamper with a log, found and named."""

import hashlib
import re
from collections.abc import Callable, Sequence

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardcage.audit.chain import RawLine, encode, parse
from cardcage.audit.verify import FAULTS_MAX, LogReport, verify_log

MakeLog = Callable[..., list[bytes]]

reasons = st.lists(st.sampled_from(["is granted", "is not granted", "é ẞ \u202e", 'a "quoted" one', ""]), max_size=14)
fixtures_once = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def verify(lines: Sequence[bytes], key: Ed25519PrivateKey | None = None, kept: bytes | None = None) -> LogReport:
    raws = [RawLine(file="log", number=number, data=data) for number, data in enumerate(lines, 1)]
    return verify_log(raws, keys=[key.public_key()] if key else [], kept=parse(kept) if kept else None)


def told(report: LogReport) -> set[int]:
    return {fault.line for fault in report.faults}


def kinds(report: LogReport) -> set[str]:
    return {fault.kind for fault in report.faults}


def forged(line: bytes, **changes: object) -> bytes:
    """The line with other content and the hash that belongs to that."""
    parsed = parse(line)
    assert parsed is not None
    return encode(msgspec.structs.replace(parsed.entry, **changes))[0].rstrip(b"\n")


def rechained(lines: Sequence[bytes], start: int) -> list[bytes]:
    """What somebody without the key can do at most: mend every hash from line `start` on."""
    mended = list(lines[:start])
    for line in lines[start:]:
        before = parse(mended[-1])
        assert before is not None
        mended.append(forged(line, prev=before.hash))
    return mended


@fixtures_once
@given(reasons)
def test_an_untouched_log_has_no_fault_and_is_signed_to_its_end(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str]
) -> None:
    lines = make_log(texts)
    report = verify(lines, signing_key, kept=lines[-1])
    assert report.faults == []
    assert (report.lines, report.last_seq, report.signed_through) == (len(lines), len(lines), len(lines))
    assert report.unsigned == 0


@fixtures_once
@given(reasons, st.data())
def test_any_changed_byte_is_found_in_its_line(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str], data: st.DataObject
) -> None:
    lines = make_log(texts)
    at = data.draw(st.integers(0, len(lines) - 1))
    where = data.draw(st.integers(0, len(lines[at]) - 1))
    new = data.draw(st.integers(0, 255).filter(lambda byte: byte not in (lines[at][where], 10)))
    lines[at] = lines[at][:where] + bytes([new]) + lines[at][where + 1 :]
    assert told(verify(lines, signing_key)) == {at + 1}


@fixtures_once
@given(reasons, st.data())
def test_a_changed_line_with_a_hash_to_match_is_found_beside_its_neighbour(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str], data: st.DataObject
) -> None:
    lines = make_log(texts)
    at = data.draw(st.integers(0, len(lines) - 2))
    lines[at] = forged(lines[at], reason="another", plugin="other")
    report = verify(lines, signing_key)
    assert at + 1 in told(report)
    assert told(report) <= {at + 1, at + 2}


@fixtures_once
@given(reasons, st.data())
def test_a_log_that_was_mended_to_its_end_is_found_by_the_next_checkpoint(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str], data: st.DataObject
) -> None:
    lines = make_log(texts)
    at = data.draw(st.integers(1, len(lines) - 1))
    lines[at] = forged(lines[at], reason="another")
    lines = rechained(lines, at)
    report = verify(lines, signing_key)
    assert "checkpoint" in kinds(report)
    first_checkpoint = next(
        number for number, line in enumerate(lines, 1) if number > at and b'"audit.checkpoint"' in line
    )
    assert min(told(report)) in (at + 1, first_checkpoint)


@fixtures_once
@given(reasons, st.data())
def test_a_removed_line_is_found_where_it_stood(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str], data: st.DataObject
) -> None:
    lines = make_log(texts)
    last = lines[-1]
    at = data.draw(st.integers(0, len(lines) - 1))
    del lines[at]
    report = verify(lines, signing_key, kept=last)
    assert not report.intact
    assert told(report) <= {max(at, 0), at + 1}
    assert kinds(report) <= {"removed", "head", "cut"}


@fixtures_once
@given(reasons, st.data())
def test_a_log_cut_at_its_end_is_found_by_the_checkpoint_that_was_kept_apart(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str], data: st.DataObject
) -> None:
    lines = make_log(texts)
    left = data.draw(st.integers(0, len(lines) - 1))
    report = verify(lines[:left], signing_key, kept=lines[-1])
    assert kinds(report) == {"cut"}
    assert str(len(lines) - left) in report.faults[0].message


@fixtures_once
@given(reasons, st.data())
def test_two_lines_that_changed_places_are_both_found(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str], data: st.DataObject
) -> None:
    lines = make_log(texts)
    first = data.draw(st.integers(0, len(lines) - 2))
    second = data.draw(st.integers(first + 1, len(lines) - 1))
    lines[first], lines[second] = lines[second], lines[first]
    report = verify(lines, signing_key)
    assert told(report) & {first + 1, second + 1}
    if second - first > 1 and first > 0 and second < len(lines) - 1:
        assert told(report) == {first + 1, second + 1}
        assert kinds(report) == {"moved"}


@fixtures_once
@given(reasons, st.data())
def test_a_repeated_line_is_found(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str], data: st.DataObject
) -> None:
    lines = make_log(texts)
    source = data.draw(st.integers(0, len(lines) - 1))
    at = data.draw(st.integers(1, len(lines)))
    lines.insert(at, lines[source])
    report = verify(lines, signing_key)
    # Of a line and its copy side by side either is the copy.
    side_by_side = {at - 1: {at, at + 1}, at: {at + 1, at + 2}}
    assert told(report) & side_by_side.get(source, {at + 1})
    assert len(told(report)) == 1


@fixtures_once
@given(reasons, st.data())
def test_an_invented_line_is_found(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str], data: st.DataObject
) -> None:
    lines = make_log(texts)
    at = data.draw(st.integers(1, len(lines) - 1))
    before = parse(lines[at - 1])
    assert before is not None
    lines.insert(at, forged(lines[at - 1], seq=before.entry.seq + 1, prev=before.hash, reason="invented"))
    report = verify(lines, signing_key)
    assert told(report) & {at + 1, at + 2}


@fixtures_once
@given(reasons, st.binary(max_size=60).filter(lambda data: b"\n" not in data), st.data())
def test_a_line_that_is_none_is_found(
    make_log: MakeLog, signing_key: Ed25519PrivateKey, texts: list[str], junk: bytes, data: st.DataObject
) -> None:
    lines = make_log(texts)
    at = data.draw(st.integers(0, len(lines)))
    lines.insert(at, junk)
    assert told(verify(lines, signing_key)) == {at + 1}


@given(st.lists(st.binary(max_size=80).filter(lambda data: b"\n" not in data), max_size=6))
def test_no_bytes_make_the_reader_fail(lines: list[bytes]) -> None:
    report = verify(lines)
    assert report.lines == len(lines)
    assert report.intact == (not lines)


def test_another_key_is_named_once(make_log: MakeLog) -> None:
    report = verify(make_log(["x"] * 12), Ed25519PrivateKey.from_private_bytes(bytes(32)))
    assert [fault.kind for fault in report.faults] == ["wrong_key"]
    assert "expected" in report.faults[0].message


def test_without_a_key_the_log_names_its_own_and_the_report_says_that_it_was_not_pinned(
    make_log: MakeLog, signing_key: Ed25519PrivateKey
) -> None:
    lines = make_log(["x"] * 5)
    assert verify(lines).intact
    assert not verify(lines).key_pinned
    assert verify(lines, signing_key).key_pinned


def test_a_checkpoint_of_another_log_is_refused(make_log: MakeLog, signing_key: Ed25519PrivateKey) -> None:
    lines = [*make_log(["x"] * 2), *make_log(["x"] * 30, log="cd" * 16)[4:]]
    assert "other_log" in kinds(verify(lines, signing_key)) or "relinked" in kinds(verify(lines, signing_key))


def test_everything_that_is_wrong_is_told_at_once_within_bounds(
    make_log: MakeLog, signing_key: Ed25519PrivateKey
) -> None:
    lines = make_log(["x"] * 400)
    for at in range(10, 400, 2):
        lines[at] = re.sub(rb'"plugin":"[a-z]*"', b'"plugin":"me"', lines[at])
    report = verify(lines, signing_key)
    assert len(report.faults) == FAULTS_MAX
    assert report.faults_not_told > 0


def test_the_hash_is_what_the_reference_says_it_is(make_log: MakeLog) -> None:
    line = make_log(["é"])[1]
    body, _, tail = line.rpartition(b',"hash":"')
    assert hashlib.sha256(body + b"}").hexdigest() == tail.decode()[:64]


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"seq":2', b'"seq": 2'), (b'"seq":2', b'"seq":2,"seq":2'), (b'"fields":{}', b'"fields":{},"more":1')],
    ids=["a space", "a key twice", "a key too many"],
)
def test_a_line_has_one_form_only(make_log: MakeLog, old: bytes, new: bytes) -> None:
    lines = make_log(["x", "y"])
    body, _, _ = lines[1].replace(old, new).rpartition(b',"hash":"')
    lines[1] = body + b',"hash":"' + hashlib.sha256(body + b"}").hexdigest().encode() + b'"}'
    assert 2 in told(verify(lines))
