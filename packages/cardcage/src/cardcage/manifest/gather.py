"""Collecting every fault of a document, each with its path, its line and what was expected and found."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, cast

from cardcage.foundation.errors import Fault
from cardcage.manifest.document import FAULTS_MAX, Document, child_path


class Gather:
    """The faults found so far in one document, and the readers of its values.

    A reader returns the value it was asked for, or None after noting the fault; None in the document counts as absent.
    """

    def __init__(self, document: Document) -> None:
        self.document = document
        self.faults: list[Fault] = []

    def fault(self, path: str, message: str) -> None:
        """Note a fault. Those beyond the most that help are only counted as one."""
        if len(self.faults) < FAULTS_MAX:
            line = self.document.lines.get(path)
            self.faults.append(Fault(path=path, message=f"{message} (line {line})" if line else message))

    def wrong(self, path: str, expected: str, value: Any) -> None:
        """Note that something else was expected at this path."""
        self.fault(path, f"expected {expected}, found {describe(value, self.document.texts.get(path))}")

    def text(self, path: str, value: Any, expected: str, pattern: str | None = None, *, most: int = 500) -> str | None:
        """A text of one line that matches the pattern as a whole."""
        if not isinstance(value, str):
            quoted = isinstance(value, int | float) and path in self.document.texts
            self.wrong(path, f"{expected} (a text, so in quotes)" if quoted else expected, value)
        elif len(value) > most:
            self.fault(path, f"expected at most {most} characters, found {len(value)}")
        elif not value.strip() or (pattern is not None and not re.fullmatch(pattern, value)):
            self.wrong(path, expected, value)
        else:
            return value
        return None

    def raw_text(self, path: str, value: Any) -> Any:
        """The text of a number as it was written: `1.10` where YAML reads 1.1."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self.document.texts.get(path, str(value))
        return value

    def texts(self, path: str, value: Any, expected: str, pattern: str | None = None) -> tuple[str, ...]:
        """A list of texts; one text stands for a list of one. Repetitions are dropped."""
        return tuple(
            dict.fromkeys(
                text
                for member_path, member in self.members(path, value, f"a list, each {expected}")
                if (text := self.text(member_path, member, expected, pattern, most=200)) is not None
            )
        )

    def members(self, path: str, value: Any, expected: str) -> Iterable[tuple[str, Any]]:
        """The members of a list with their paths; a value that is no list is a list of itself."""
        if isinstance(value, list):
            return [(child_path(path, index), member) for index, member in enumerate(cast(list[Any], value))]
        if value is None or isinstance(value, dict | bool):
            self.wrong(path, expected, value)
            return []
        return [(path, value)]

    def mapping(self, path: str, value: Any, expected: str) -> Mapping[str, Any]:
        """A mapping, or an empty one after a fault."""
        if isinstance(value, dict):
            return cast(dict[str, Any], value)
        self.wrong(path, expected, value)
        return {}

    def flag(self, path: str, value: Any, default: bool) -> bool:
        """True or false."""
        if isinstance(value, bool):
            return value
        self.wrong(path, "true or false", value)
        return default

    def integer(self, path: str, value: Any, least: int, most: int, default: int) -> int:
        """A whole number within bounds."""
        number = whole_number(value)
        if number is not None and least <= number <= most:
            return number
        self.wrong(path, f"a whole number from {least} to {most}", value)
        return default

    def unknown_keys(self, path: str, value: Mapping[str, Any], known: Collection[str]) -> None:
        """A fault for each key that nobody reads, with the nearest that somebody does."""
        for key in value:
            if key not in known and not key.startswith("x-"):
                self.fault(child_path(path, key), f"no such key{did_you_mean(key, known)}")


def whole_number(value: Any) -> int | None:
    """The value as an int: JSON knows one kind of number, so 5.0 is one too, but true is not."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?`, or nothing where nothing is near."""
    close = difflib.get_close_matches(word[:60].lower(), sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def printable(text: str) -> str:
    """The text with what a terminal would not show, or would obey, written as escapes."""
    return "".join(char if char.isprintable() else json.dumps(char)[1:-1] for char in text)


def describe(value: Any, text: str | None = None) -> str:
    """A value in a few words, so that it can stand in a sentence."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            return printable(json.dumps(value if len(value) <= 80 else f"{value[:77]}...", ensure_ascii=False))
        case int() | float():
            return f"the number {text or value}"
        case Mapping():
            keys = ", ".join(map(str, list(cast(Mapping[str, Any], value))[:4]))
            return f"a mapping of {printable(keys[:80])}" if keys else "an empty mapping"
        case Sequence():
            return f"a list of {len(cast(Sequence[Any], value))}"
        case _:
            return f"a {type(value).__name__}"
