"""What leaves for a terminal or a program carries nothing that could drive either."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from cardcage.cli.text import facts, safe, to_json, write_line


@given(st.text())
def test_safe_text_is_one_line_without_control_characters(text: str) -> None:
    cleaned = safe(text)
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in cleaned)
    assert not set(cleaned) & set("\u2028\u2029\u202e\u2066\u200f")
    assert len(cleaned.splitlines()) <= 1


def test_ordinary_text_of_any_language_stays_as_it_is() -> None:
    assert safe("Grüße, 世界 [bold]not markup[/bold]") == "Grüße, 世界 [bold]not markup[/bold]"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_json_reads_back_as_the_same_and_drives_no_terminal(value: object) -> None:
    text = to_json(value)
    assert json.loads(text) == value
    assert not any(0x7F <= ord(char) < 0xA0 or char in "\u202e\u2028" for char in text)


def test_values_that_json_lacks_become_text() -> None:
    document = {"money": Decimal("1.10"), "raw": b"\x00\xff", "at": datetime(2026, 1, 2, tzinfo=UTC)}
    assert json.loads(to_json(document)) == {"money": "1.10", "raw": "AP8=", "at": "2026-01-02T00:00:00Z"}


def test_a_character_that_the_stream_lacks_is_written_as_an_escape() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    write_line(stream, "naïve")
    stream.seek(0)
    assert stream.read() == "na\\xefve\n"


def test_facts_leave_out_what_is_not_known_and_escape_the_rest() -> None:
    assert facts({"name": "a", "author": None, "license": "x\x1b[31m"}) == "name     a\nlicense  x\\x1b[31m"
