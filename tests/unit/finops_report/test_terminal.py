"""The report for a terminal."""

from __future__ import annotations

import io
import unicodedata
from collections.abc import Callable
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cardcage_finops.pipeline.result import Analysis
from cardcage_finops.report.glyphs import bar, sparkline
from cardcage_finops.report.terminal import print_report
from cardcage_finops.report.untrusted import visible


def _printed(analysis: Analysis, *, colour: bool = False, width: int = 130) -> str:
    out = io.StringIO()
    colours = "truecolor" if colour else None
    print_report(analysis, Console(file=out, width=width, force_terminal=colour, color_system=colours))
    return out.getvalue()


def test_the_report_says_what_was_spent_where_and_what_stands_out(analysis: Analysis) -> None:
    text = _printed(analysis)
    for part in ("Billed", "Could be saved", "Amazon Elastic Compute Cloud", "Team one", "2024-09-20 to 2024-09-21"):
        assert part in text
    assert "121 read, 120 taken, 2 corrected, 1 refused" in text
    assert "3.0 times as much" in text
    assert "321.50 USD" in text


def test_escape_sequences_and_markup_of_untrusted_text_are_only_shown(analysis: Analysis) -> None:
    text = _printed(analysis)
    assert all(char == "\n" or char.isprintable() for char in text)
    assert "\\x1b[31m" in text
    assert "\\u202e[bold]evil[/]" in text


def test_on_a_terminal_every_escape_sequence_is_one_of_our_own_colours(analysis: Analysis) -> None:
    text = _printed(analysis, colour=True)
    assert "\x1b[1m" in text
    rest = text.replace("\x1b[0m", "")
    while "\x1b[" in rest:
        before, _, rest = rest.partition("\x1b[")
        codes, end, rest = rest.partition("m")
        assert end
        assert codes.replace(";", "").isdigit()
        assert "\x1b" not in before
    assert "\x07" not in text
    assert "\u202e" not in text


def test_a_second_currency_is_named_and_kept_apart(make_analysis: Callable[..., Analysis]) -> None:
    text = _printed(make_analysis("USD", "EUR"))
    assert "never added together" in text
    assert "EUR" in text


@pytest.mark.parametrize("width", [40, 80, 200])
def test_no_line_is_wider_than_the_terminal(analysis: Analysis, width: int) -> None:
    assert max(map(len, _printed(analysis, width=width).splitlines())) <= width


def test_a_stream_that_is_not_utf_8_gets_charts_in_ascii(analysis: Analysis) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding="ascii", errors="replace")
    print_report(analysis, Console(file=out, width=100))
    out.flush()
    assert b"####" in raw.getvalue()


@given(st.text())
def test_visible_text_has_no_controls_and_harmless_text_stays_as_it_is(text: str) -> None:
    shown = visible(text, 10_000)
    assert not [char for char in shown if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    plain = "".join(char for char in text if char.isascii() and char.isprintable())
    assert visible(plain, 10_000) == plain


def test_long_text_is_cut_with_a_mark() -> None:
    assert visible("x" * 300, 5) == "xxxxx…"


def test_a_bar_is_as_long_as_its_share_and_never_empty_above_nothing() -> None:
    assert bar(1.0, 8) == "█" * 8
    assert bar(0.5, 8) == "████"
    assert bar(1e-9, 8) == "▏"
    assert bar(0.0, 8) == ""
    assert bar(0.01, 8, ascii_only=True) == "#"


def test_a_sparkline_runs_from_its_least_to_its_greatest_within_its_width() -> None:
    assert sparkline([Decimal(value) for value in (1, 8, 4)], 10) == "▁█▄"
    assert sparkline([Decimal(5)] * 3, 10) == "▁▁▁"
    assert len(sparkline([Decimal(value) for value in range(365)], 24)) == 24
    assert sparkline([], 10) == ""
