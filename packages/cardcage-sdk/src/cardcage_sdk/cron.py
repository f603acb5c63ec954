"""Cron expressions: five fields, or a word such as `@daily`, turned into the sets of numbers that they stand for.

The fields are minute, hour, day of the month, month and day of the week, as in crontab(5): `*`, `7`, `1-5`, `*/15`,
`10-40/5`, lists of these joined by commas, names (`JAN`, `mon`), and both 0 and 7 for Sunday.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")

CRON_CHARS_MAX: Final = 256
"""Far above any real schedule; bounds the work that a hostile one can cause."""

WORDS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}


class _Field(NamedTuple):
    title: str
    low: int
    high: int
    names: dict[str, int]


_FIELDS: Final = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, {name: number for number, name in enumerate(_MONTHS, 1)}),
    _Field("day of week", 0, 7, {name: number for number, name in enumerate(_DAYS)}),
)


class Cron(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed schedule. `any_day` and `any_weekday` say which day fields were `*`: crontab treats them apart."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def matches(self, *, minute: int, hour: int, day: int, month: int, weekday: int) -> bool:
        """Whether the schedule names this minute; `weekday` counts from Sunday = 0.

        Where both day fields are restricted either one suffices, as in crontab(5).
        """
        if minute not in self.minutes or hour not in self.hours or month not in self.months:
            return False
        by_day, by_weekday = day in self.days, weekday in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday


def parse_cron(text: str) -> Cron:
    """The schedule that `text` spells. Raises ValueError with one sentence naming the field, expected and found."""
    if len(text) > CRON_CHARS_MAX:
        raise ValueError(f"a cron expression has at most {CRON_CHARS_MAX} characters, found {len(text)}")
    spelled = text.strip()
    if spelled.startswith("@"):
        if spelled.lower() not in WORDS:
            raise ValueError(f"cron expression {text!r}: expected one of {', '.join(WORDS)}")
        spelled = WORDS[spelled.lower()]
    parts = spelled.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            f"cron expression {text!r}: expected 5 fields (minute, hour, day of month, month, day of week), "
            f"found {len(parts)}"
        )
    minutes, hours, days, months, weekdays = (
        _numbers(part, field, text) for part, field in zip(parts, _FIELDS, strict=True)
    )
    return Cron(
        minutes=minutes,
        hours=hours,
        days=days,
        months=months,
        weekdays=frozenset(day % 7 for day in weekdays),
        any_day=parts[2].startswith("*"),
        any_weekday=parts[4].startswith("*"),
    )


def _numbers(part: str, field: _Field, text: str) -> frozenset[int]:
    numbers: set[int] = set()
    for item in part.split(","):
        span, slash, step_text = item.partition("/")
        step = _plain_number(step_text) if slash else 1
        if step is None or step < 1:
            raise _bad(text, field, item, "a step of 1 or more after '/'")
        first, last = _span(span, field, item, text, open_ended=bool(slash))
        numbers.update(range(first, last + 1, step))
    return frozenset(numbers)


def _span(span: str, field: _Field, item: str, text: str, *, open_ended: bool) -> tuple[int, int]:
    if span == "*":
        return field.low, field.high
    first_text, dash, last_text = span.partition("-")
    first = _value(first_text, field, item, text)
    if dash:
        last = _value(last_text, field, item, text)
        if last < first:
            raise _bad(text, field, item, "a range that goes upwards")
        return first, last
    return first, field.high if open_ended else first


def _value(word: str, field: _Field, item: str, text: str) -> int:
    number = field.names.get(word.lower())
    if number is None:
        number = _plain_number(word)
    if number is None or not field.low <= number <= field.high:
        raise _bad(text, field, item, f"{field.low} to {field.high}" + (" or a name" if field.names else ""))
    return number


def _plain_number(word: str) -> int | None:
    # isdigit() alone would let through superscripts and digits of other scripts.
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 4 else None


def _bad(text: str, field: _Field, item: str, expected: str) -> ValueError:
    return ValueError(f"cron expression {text!r}: {field.title}: expected {expected}, found {item!r}")
