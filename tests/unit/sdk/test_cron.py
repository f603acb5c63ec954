"""Cron expressions, against sets made by hand."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cardcage_sdk.cron import CRON_CHARS_MAX, WORDS, parse_cron

BOUNDS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))


@st.composite
def fields(draw: st.DrawFn, low: int, high: int) -> tuple[str, set[int]]:
    """One field as text, and the numbers that it means."""
    texts: list[str] = []
    numbers: set[int] = set()
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(low, high))
        last = draw(st.integers(first, high))
        step = draw(st.integers(1, high))
        text, meant = draw(
            st.sampled_from(
                [
                    ("*", range(low, high + 1)),
                    (f"*/{step}", range(low, high + 1, step)),
                    (f"{first}", range(first, first + 1)),
                    (f"{first}/{step}", range(first, high + 1, step)),
                    (f"{first}-{last}", range(first, last + 1)),
                    (f"{first}-{last}/{step}", range(first, last + 1, step)),
                ]
            )
        )
        texts.append(text)
        numbers |= set(meant)
    return ",".join(texts), numbers


@given(st.tuples(*(fields(low, high) for low, high in BOUNDS)))
def test_an_expression_means_the_numbers_that_it_lists(parts: tuple[tuple[str, set[int]], ...]) -> None:
    cron = parse_cron(" ".join(text for text, _ in parts))
    minutes, hours, days, months, weekdays = (numbers for _, numbers in parts)
    assert (cron.minutes, cron.hours, cron.days, cron.months) == (minutes, hours, days, months)
    assert cron.weekdays == {day % 7 for day in weekdays}


@given(st.text(max_size=40) | st.text("0123456789*/,- @abcjun", max_size=40))
@example("² * * * *")
@example("*/0 * * * *")
@example("5-1 * * * *")
@example("1- * * * *")
@example(", * * * *")
def test_any_text_is_a_schedule_within_bounds_or_a_value_error_of_one_line(text: str) -> None:
    refusal, ranges = "", ()
    try:
        cron = parse_cron(text)
        ranges = (cron.minutes, cron.hours, cron.days, cron.months, cron.weekdays)
    except ValueError as caught:
        refusal = str(caught)
    assert ("cron expression" in refusal) == (not ranges)
    assert "\n" not in refusal
    for numbers, (low, high) in zip(ranges, BOUNDS, strict=False):
        assert numbers
        assert low <= min(numbers) <= max(numbers) <= high


@pytest.mark.parametrize("word", WORDS)
def test_the_words_stand_for_expressions(word: str) -> None:
    assert parse_cron(word.upper()) == parse_cron(WORDS[word])


def test_names_count_as_their_numbers_and_seven_is_sunday() -> None:
    assert parse_cron("0 0 * JAN,mar Mon-FRI") == parse_cron("0 0 * 1,3 1-5")
    assert parse_cron("0 0 * * 7").weekdays == {0}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("* * * *", "expected 5 fields (minute, hour, day of month, month, day of week), found 4"),
        ("60 * * * *", "minute: expected 0 to 59, found '60'"),
        ("* * * foo *", "month: expected 1 to 12 or a name, found 'foo'"),
        ("* 9-5 * * *", "hour: expected a range that goes upwards, found '9-5'"),
        ("*/x * * * *", "minute: expected a step of 1 or more after '/', found '*/x'"),
        ("@sometimes", "expected one of @hourly"),
        ("1," * 200, f"at most {CRON_CHARS_MAX} characters, found 400"),
    ],
)
def test_a_wrong_expression_is_told_with_field_expected_and_found(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="cron expression") as caught:
        parse_cron(text)
    assert told in str(caught.value)


def test_two_restricted_day_fields_are_alternatives() -> None:
    both = parse_cron("0 0 13 * 5")
    assert both.matches(minute=0, hour=0, day=13, month=2, weekday=1)
    assert both.matches(minute=0, hour=0, day=14, month=2, weekday=5)
    assert not both.matches(minute=0, hour=0, day=14, month=2, weekday=1)
    one = parse_cron("0 0 13 * *")
    assert not one.matches(minute=0, hour=0, day=14, month=2, weekday=5)
    assert not one.matches(minute=1, hour=0, day=13, month=2, weekday=5)
