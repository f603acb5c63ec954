"""What plugins say is bounded, escaped and labelled."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.foundation.limits import LOG_BURST_LINES, LOG_LINE_CHARS_MAX, PLUGIN_LOG_HISTORY_LINES
from cardcage.runtime.logbook import LogBook, escape


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic_s(self) -> float:
        return self.now_s

    def wall_s(self) -> float:
        return self.now_s


def test_terminal_escapes_and_newlines_are_written_out() -> None:
    assert escape("a\x1b[31mb\nc\x7f\x9b\u202e") == "a\\x1b[31mb\\nc\\x7f\\x9b\\u202e"


@given(st.text())
def test_no_control_character_survives_and_plain_text_stays(text: str) -> None:
    escaped = escape(text)
    assert all(ord(char) >= 32 and ord(char) != 127 for char in escaped)
    escaped.encode("utf-8")
    if text.isascii() and text.isprintable():
        assert escaped == text


def test_a_long_line_is_cut_and_says_so() -> None:
    escaped = escape("x" * (LOG_LINE_CHARS_MAX + 1))
    assert escaped.endswith(f"({LOG_LINE_CHARS_MAX + 1} characters)")


def test_lines_carry_the_plugins_name_in_the_hosts_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cardcage.plugin"):
        LogBook("ocr", FakeClock()).write("warning", "log", "careful")
    (record,) = caplog.records
    assert record.getMessage() == "[plugin:ocr] careful"
    assert record.levelno == logging.WARNING


def test_a_flood_is_dropped_and_counted_and_the_book_stays_bounded() -> None:
    clock = FakeClock()
    book = LogBook("ocr", clock)
    for number in range(LOG_BURST_LINES + 500):
        book.write("info", "stdout", str(number))
    assert book.dropped_total == 500
    clock.now_s += 1
    book.write("info", "stdout", "after")
    *_, told, last = book.lines()
    assert told.text.startswith("500 lines dropped")
    assert last.text == "after"
    for number in range(PLUGIN_LOG_HISTORY_LINES * 2):
        clock.now_s += 1
        book.write("info", "stdout", str(number))
    assert len(book.lines()) == PLUGIN_LOG_HISTORY_LINES


def test_an_unknown_level_and_odd_fields_are_taken_as_plain_text() -> None:
    book = LogBook("ocr", FakeClock())
    book.write("shout", "log", "hey", {"a\n": "b\x1b", "n": 3, "o": [1]})
    (line,) = book.lines()
    assert line.level == "info"
    assert line.fields == {"a\\n": "b\\x1b", "n": 3, "o": "[1]"}


def test_a_plugin_may_lower_its_log_rate_and_never_raise_it() -> None:
    clock = FakeClock()
    quiet, loud = LogBook("ocr", clock, lines_per_s=2), LogBook("ocr", clock, lines_per_s=10**6)
    for number in range(LOG_BURST_LINES + 1):
        quiet.write("info", "stdout", str(number))
        loud.write("info", "stdout", str(number))
    assert quiet.dropped_total == LOG_BURST_LINES + 1 - 10
    assert loud.dropped_total == 1
