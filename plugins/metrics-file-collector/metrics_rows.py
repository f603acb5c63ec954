"""Rows of a metrics file, whatever its form: a resource, a time, and the values of one or more metrics."""

from __future__ import annotations

import csv
import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cardcage_finops.bills import utc_time
from cardcage_finops.models import RowIssue

TIME_NAMES = ("time", "timestamp", "period_start", "date")
RESOURCE_NAMES = ("resource_id", "ResourceId", "resource", "id")


class MetricsError(ValueError):
    """The file as a whole cannot be read. The message is one sentence for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRow:
    """What one row says."""

    resource_id: str
    time: str
    values: dict[str, float]


def read_rows(path: str) -> Iterator[MetricRow | RowIssue]:
    """Every row, as a row or as what is wrong with it. Raises `MetricsError` where it is no metrics file."""
    try:
        with open(path, "rb") as raw:
            packed = raw.peek(2)[:2] == b"\x1f\x8b"
            binary = io.BufferedReader(gzip.GzipFile(fileobj=raw)) if packed else raw  # type: ignore[arg-type]
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", errors="replace", newline="")
            yield from _rows(path, text)
    except (OSError, EOFError, zlib.error) as error:
        raise MetricsError(f'cannot read the metrics file "{path}": {_why(error)}') from None


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def _rows(path: str, text: io.TextIOWrapper) -> Iterator[MetricRow | RowIssue]:
    first = next((line for line in text if line.strip()), "")
    if not first:
        raise MetricsError(f'the metrics file "{path}" is empty: expected a header or JSON lines')
    if first.lstrip().startswith("{"):
        return _json_rows(first, text)
    header = next(csv.reader([first]))
    return _csv_rows(_Layout(path, header), text)


class _Layout:
    """Where time, resource and metrics stand in a CSV file."""

    def __init__(self, path: str, header: list[str]) -> None:
        names = [name.strip() for name in header]
        self.width = len(names)
        twice = sorted({name for name in names if name and names.count(name) > 1})
        if twice:
            raise MetricsError(f'the metrics file "{path}" has the column {twice[0]} twice: which one counts?')
        self.time = _place(path, names, TIME_NAMES)
        self.resource = _place(path, names, RESOURCE_NAMES)
        self.long = (names.index("metric"), names.index("value")) if {"metric", "value"} <= set(names) else None
        self.metrics = [
            (index, name) for index, name in enumerate(names) if name and index not in (self.time, self.resource)
        ]
        if not self.metrics:
            raise MetricsError(f'the metrics file "{path}" has no metric: found only the columns {", ".join(names)}')


def _place(path: str, names: list[str], known: tuple[str, ...]) -> int:
    for name in known:
        if name in names:
            return names.index(name)
    found = ", ".join(names)[:300]
    raise MetricsError(f'the metrics file "{path}" has no column {known[0]}; found the columns {found}')


def _csv_rows(layout: _Layout, text: io.TextIOWrapper) -> Iterator[MetricRow | RowIssue]:
    reader = csv.reader(text)
    number = 0
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield _refused(number, "", "bad_row", f"the row cannot be read: {error}")
            continue
        if not row:
            continue
        number += 1
        if len(row) != layout.width:
            yield _refused(number, "", "wrong_width", f"expected {layout.width} values, found {len(row)}")
        elif layout.long:
            name, value = row[layout.long[0]], row[layout.long[1]]
            yield _row(number, row[layout.resource], row[layout.time], [(name, value)])
        else:
            cells = [(name, row[index]) for index, name in layout.metrics]
            yield _row(number, row[layout.resource], row[layout.time], cells)


def _json_rows(first: str, text: io.TextIOWrapper) -> Iterator[MetricRow | RowIssue]:
    line, number = first, 0
    while line:
        if line.strip():
            number += 1
            yield _json_row(number, line)
        line = text.readline()


def _json_row(number: int, line: str) -> MetricRow | RowIssue:
    try:
        found: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _refused(number, "", "bad_row", f"the line is no JSON: {error}")
    if not isinstance(found, dict):
        return _refused(number, "", "bad_row", "expected a JSON object")
    values: dict[str, Any] = {str(key): value for key, value in found.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    time = next((values.pop(name) for name in TIME_NAMES if name in values), None)
    resource = next((values.pop(name) for name in RESOURCE_NAMES if name in values), None)
    if "metric" in values and "value" in values:
        values = {str(values["metric"]): values["value"]}
    cells = [(name, "" if value is None else str(value)) for name, value in values.items()]
    return _row(number, str(resource or ""), str(time or ""), cells)


_KNOWN_TIMES: dict[str, str | None] = {}


def _row(number: int, resource: str, time: str, cells: list[tuple[str, str]]) -> MetricRow | RowIssue:
    if not resource:
        return _refused(number, "resource_id", "missing_value", "expected a resource id, found none")
    if time not in _KNOWN_TIMES:
        if len(_KNOWN_TIMES) > 50_000:
            _KNOWN_TIMES.clear()
        _KNOWN_TIMES[time] = utc_time(time)
    moment = _KNOWN_TIMES[time]
    if moment is None:
        return _refused(
            number, "time", "bad_date", f'expected a time such as 2024-09-18T22:00:00Z, found "{time[:60]}"'
        )
    values: dict[str, float] = {}
    for name, text in cells:
        if text:
            try:
                value = float(text)
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                return _refused(number, name, "bad_number", f'expected a number, found "{text[:60]}"')
            values[name] = value
    return MetricRow(resource_id=resource, time=moment, values=values)


def _refused(number: int, column: str, code: str, message: str) -> RowIssue:
    return RowIssue(row=number, column=column, code=code, message=message, action="refused")
