"""The log files: bounded, ordered, and read as they grow."""

from __future__ import annotations

import stat
import threading
from itertools import islice
from pathlib import Path

import pytest

from cardcage.cli import logs
from cardcage.cli.logs import LogFiles


def test_the_last_lines_come_back_in_order(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    for number in range(5):
        files.append("ocr/eu", {"text": str(number)})
    assert [line["text"] for line in files.last("ocr/eu", 3)] == ["2", "3", "4"]
    assert files.last("other", 3) == []


def test_a_log_is_for_the_hosts_user_alone(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    files.append("ocr", {"text": "x"})
    assert stat.S_IMODE(files.path("ocr").stat().st_mode) == 0o600


def test_a_full_file_is_set_aside_once_and_then_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "LOG_FILE_BYTES_MAX", 300)
    files = LogFiles(tmp_path)
    for number in range(200):
        files.append("ocr", {"text": f"line {number}"})
    kept = [line["text"] for line in files.last("ocr", 1000)]
    assert kept[-1] == "line 199"
    assert kept == [f"line {number}" for number in range(200 - len(kept), 200)]
    assert sum(path.stat().st_size for path in files.path("ocr").parent.iterdir()) < 700


def test_a_torn_or_foreign_line_is_passed_over(tmp_path: Path) -> None:
    files = LogFiles(tmp_path)
    files.append("ocr", {"text": "good"})
    with files.path("ocr").open("ab") as file:
        file.write(b'{"text": "torn\n[1]\n\xff\n')
    files.append("ocr", {"text": "after"})
    assert [line["text"] for line in files.last("ocr", 10)] == ["good", "after"]


def test_following_gives_what_is_written_from_then_on_across_a_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "_FOLLOW_INTERVAL_S", 0.01)
    files = LogFiles(tmp_path)
    files.append("ocr", {"text": "before"})
    seen: list[str] = []
    following = threading.Event()

    def follow() -> None:
        for line in islice(files.follow("ocr"), 3):
            seen.append(line["text"])
            following.set()

    reader = threading.Thread(target=follow, daemon=True)
    reader.start()
    while not following.wait(0.01):  # until the reader stands at the end of the file
        files.append("ocr", {"text": "probe"})
    files.path("ocr").replace(tmp_path / "elsewhere")
    while reader.is_alive():
        files.append("ocr", {"text": "new file"})
        reader.join(0.05)
    assert "before" not in seen
    assert seen[-1] == "new file"
