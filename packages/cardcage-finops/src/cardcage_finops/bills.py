"""Reading bills: a CSV file in batches of rows, and columns checked value by value, nothing lost in silence.

Three nouns. `BillFile` opens a file (gzip, byte-order marks, wrong encodings, rows of a wrong width) and gives
`RawRows`. `RowLedger` keeps what was mended, refused or noted in one batch. The functions `decimals`, `dates` and
`texts` turn one raw column into one checked column. Memory is bounded by one batch. Light: cost sources use it in their
walls.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import IO, Final, Literal

from cardcage_finops.models import ChargeBatch, RowIssue

ROWS_PER_BATCH: Final = 2000
"""Large enough that the cost of a message vanishes, small enough that a batch is a few MiB at most."""
BYTES_PER_BATCH: Final = 4 * 1024 * 1024
"""A batch ends early here, so that rows with huge tags stay far under the wire's frame limit of 16 MiB."""
ISSUES_PER_BATCH: Final = 200
"""Issues told one by one; those beyond are told as one, with their count."""

NULLS: Final = frozenset({"", "NULL", "null", "Null", "<null>", "\\N"})
"""Texts that mean: no value. Exporters of several providers write them out."""

_DECIMAL: Final = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d{1,3})?", re.ASCII)
_GROUPED: Final = re.compile(r"[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?", re.ASCII)

Column = list[str | None]

_MARK_UNDECODABLE: Final = "cardcage_finops.mark_undecodable"
_undecodable = [0]


def _replace_and_count(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    _undecodable[0] += 1
    return "\ufffd", error.end


codecs.register_error(_MARK_UNDECODABLE, _replace_and_count)


class BillError(ValueError):
    """The bill as a whole cannot be read. The message is one sentence for people."""


@dataclass(frozen=True, kw_only=True)
class RawRows:
    """Some rows as they stand in the file, all as wide as the header."""

    first_row: int
    read: int
    numbers: list[int]
    cells: list[list[str]]
    issues: list[RowIssue]
    done: float

    def column(self, index: int) -> list[str]:
        """One column of these rows."""
        return list(self._columns[index]) if self.cells else []

    @cached_property
    def _columns(self) -> list[tuple[str, ...]]:
        # One transposition of all columns is much cheaper than one walk over the rows for each that is asked for.
        return list(zip(*self.cells, strict=True))


class BillFile:
    """A CSV bill on disk, plain or gzip. Use it as a context manager; it can be read once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.issues: list[RowIssue] = []
        try:
            self._raw = open(path, "rb", buffering=0)  # noqa: SIM115 - closed in close()
        except OSError as error:
            raise BillError(f'cannot open the bill "{path}": {error.strerror}') from None
        self.size_bytes = os.fstat(self._raw.fileno()).st_size
        self._text = self._open_text()
        self._reader = csv.reader(self._text)
        self._number = 0
        self.header = self._read_header()

    def __enter__(self) -> BillFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._text.close()
        self._raw.close()

    def batches(self) -> Iterator[RawRows]:
        """All rows under the header, in order. Blank lines are no rows."""
        while True:
            batch = self._next_batch()
            if not batch.read:
                return
            yield batch

    def _open_text(self) -> io.TextIOWrapper:
        binary: IO[bytes] = io.BufferedReader(self._raw, 1 << 17)
        try:
            if binary.peek(2)[:2] == b"\x1f\x8b":  # type: ignore[attr-defined]
                binary = io.BufferedReader(gzip.GzipFile(fileobj=binary), 1 << 17)  # type: ignore[arg-type]
            head = binary.peek(1 << 16)  # type: ignore[attr-defined]
        except (OSError, EOFError, zlib.error) as error:
            self._raw.close()
            raise BillError(f'the bill "{self.path}" cannot be read: {error}') from None
        self._bytes = binary
        encoding = self._encoding(head)
        return io.TextIOWrapper(binary, encoding=encoding, errors=_MARK_UNDECODABLE, newline="")

    def _encoding(self, head: bytes) -> str:
        if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
            self._mend("encoding", "the file is UTF-32 and was read as such")
            return "utf-32"
        if unmarked := _utf16_without_mark(head):
            self._mend("encoding", "the file is UTF-16 without a byte-order mark and was read as such")
            return unmarked
        if head.startswith((b"\xff\xfe", b"\xfe\xff")):
            self._mend("encoding", "the file is UTF-16 and was read as such")
            return "utf-16"
        if head.startswith(b"\xef\xbb\xbf"):
            self._mend("byte_order_mark", "the byte-order mark before the header was dropped")
            return "utf-8-sig"
        try:
            head[: head.rfind(b"\n") + 1].decode("utf-8")
        except UnicodeDecodeError as error:
            self._mend("encoding", f"the file is not UTF-8 (byte {error.start}) and was read as Windows-1252")
            return "cp1252"
        return "utf-8"

    def _mend(self, code: str, message: str) -> None:
        self.issues.append(RowIssue(row=0, column="", code=code, message=message, action="corrected"))

    def _read_header(self) -> list[str]:
        try:
            header = next((row for row in self._reader if any(name.strip() for name in row)), None)
        except (csv.Error, OSError, EOFError, zlib.error, UnicodeError) as error:
            raise BillError(f'the bill "{self.path}" is no CSV file: {error}') from None
        if not header:
            raise BillError(f'the bill "{self.path}" is empty: expected a line of column names')
        if any("\0" in name for name in header):
            raise BillError(f'the bill "{self.path}" is no text: its first line holds NUL bytes')
        return [name.strip() for name in header]

    def _next_batch(self) -> RawRows:
        line = self._reader.line_num
        first, start, width, undecodable = self._number + 1, self._bytes.tell(), len(self.header), _undecodable[0]
        numbers, cells, refused = list[int](), list[list[str]](), list[RowIssue]()
        more = True
        while more:
            try:
                more = False
                for row in self._reader:
                    self._number += 1
                    begun, line = line + 1, self._reader.line_num
                    if len(row) == width:
                        numbers.append(self._number)
                        cells.append(row)
                    elif row:
                        message = f"expected {width} values, found {len(row)}{_lines(begun, line)}"
                        refused.append(_refusal(self._number, "", "wrong_width", message))
                    else:
                        self._number -= 1
                    if len(cells) >= ROWS_PER_BATCH or len(refused) >= ISSUES_PER_BATCH:
                        break
                    if not len(cells) & 15 and self._bytes.tell() - start > BYTES_PER_BATCH:
                        break
            except csv.Error as error:
                self._number += 1
                begun, line = line + 1, self._reader.line_num
                message = f"the row cannot be read: {error}{_lines(begun, line)}"
                refused.append(_refusal(self._number, "", "bad_row", message))
                more = len(refused) < ISSUES_PER_BATCH
            except (OSError, EOFError, zlib.error, UnicodeError) as error:
                raise BillError(f'the bill "{self.path}" breaks off after row {self._number}: {error}') from None
        mended = _undecodable[0] - undecodable
        return RawRows(
            first_row=first,
            read=self._number + 1 - first,
            numbers=numbers,
            cells=cells,
            issues=[*refused, _mangled(first, mended)] if mended else refused,
            done=min(1.0, self._raw.tell() / self.size_bytes) if self.size_bytes else 1.0,
        )


@dataclass(slots=True, kw_only=True)
class RowLedger:
    """What happened to the rows of one batch. Positions count within the batch."""

    rows: RawRows
    refused: set[int] = field(default_factory=set[int])
    corrected: set[int] = field(default_factory=set[int])
    issues: list[RowIssue] = field(default_factory=list[RowIssue])

    def refuse(self, position: int, column: str, code: str, message: str) -> None:
        """This row is not taken; its first fault is the one told."""
        if position not in self.refused:
            self.refused.add(position)
            self.issues.append(_refusal(self.rows.numbers[position], column, code, message))

    def correct(self, position: int, column: str, code: str, message: str) -> None:
        """This row is taken with one value mended."""
        self.corrected.add(position)
        self._tell(position, column, code, message, "corrected")

    def note(self, position: int, column: str, code: str, message: str) -> None:
        """This row is taken as it stands."""
        self._tell(position, column, code, message, "noted")

    def close(self, columns: dict[str, Column]) -> ChargeBatch:
        """The batch without its refused rows, with everything that was said about them."""
        rows = self.rows
        numbers = rows.numbers
        if self.refused:
            kept = [position for position in range(len(numbers)) if position not in self.refused]
            columns = {name: [values[position] for position in kept] for name, values in columns.items()}
            numbers = [numbers[position] for position in kept]
        contiguous = len(numbers) == rows.read
        gone = {rows.numbers[position] for position in self.refused}
        # What was mended in a row before it was refused is of no account: a row is corrected or refused, never both.
        told = [issue for issue in self.issues if issue.action == "refused" or issue.row not in gone]
        return ChargeBatch(
            columns=columns,
            first_row=rows.first_row,
            read=rows.read,
            taken=len(numbers),
            corrected=len(self.corrected - self.refused),
            refused=rows.read - len(numbers),
            issues=_bounded([*rows.issues, *told]),
            rows=[] if contiguous else numbers,
            done=rows.done,
        )

    def _tell(self, position: int, column: str, code: str, message: str, action: Literal["corrected", "noted"]) -> None:
        number = self.rows.numbers[position]
        self.issues.append(RowIssue(row=number, column=column, code=code, message=message, action=action))


def decimals(ledger: RowLedger, column: str, values: list[str], *, vital: bool) -> Column:
    """A column of decimal strings. A bad value refuses its row where the column is vital, else it is emptied.

    `1,234.50` is mended to `1234.50`; a comma as the decimal point is never guessed at.
    """
    match = _DECIMAL.fullmatch
    bad = {value for value in set(values) if not match(value)}
    checked: Column = list(values)
    if bad:
        for position, value in enumerate(values):
            if value in bad:
                checked[position] = _mended_decimal(ledger, position, column, value, vital=vital)
    return checked


def _mended_decimal(ledger: RowLedger, position: int, column: str, value: str, *, vital: bool) -> str | None:
    bare = value.strip()
    if bare in NULLS:
        return None
    if _DECIMAL.fullmatch(bare):
        return bare
    if _GROUPED.fullmatch(bare):
        plain = bare.replace(",", "")
        ledger.correct(position, column, "thousands_separator", f'"{bare}" was read as {plain}')
        return plain
    _reject(ledger, position, column, "bad_decimal", f"expected a decimal number, found {_quoted(value)}", vital=vital)
    return None


def dates(ledger: RowLedger, column: str, values: list[str], cache: dict[str, str | None], *, vital: bool) -> Column:
    """A column of times in UTC, `2024-09-18T22:00:00Z`. A time without a zone counts as UTC, as FOCUS has it.

    `cache` is kept between batches by the caller; bills repeat few times often.
    """
    if len(cache) > 50_000:
        cache.clear()
    for value in set(values):
        if value not in cache:
            cache[value] = utc_time(value)
    checked: Column = [cache[value] for value in values]
    if None in checked:
        for position, value in enumerate(values):
            if checked[position] is None and value.strip() not in NULLS:
                message = f"expected a date such as 2024-09-18T22:00:00Z, found {_quoted(value)}"
                _reject(ledger, position, column, "bad_date", message, vital=vital)
    return checked


def utc_time(text: str) -> str | None:
    """An ISO 8601 date or time as `2024-09-18T22:00:00Z`, or None where it is none."""
    text = text.strip()
    if len(text) < 10 or text[4] != "-":
        return None
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z".rjust(20, "0")


def texts(values: list[str]) -> Column:
    """A column of text, with the spellings of null made None."""
    if NULLS.isdisjoint(values):
        return list(values)
    return [None if value in NULLS else value for value in values]


def require(ledger: RowLedger, column: str, values: Column) -> None:
    """Refuse the rows whose value is absent."""
    if None in values:
        for position, value in enumerate(values):
            if value is None:
                ledger.refuse(position, column, "missing_value", "expected a value, found none")


def _reject(ledger: RowLedger, position: int, column: str, code: str, message: str, *, vital: bool) -> None:
    if vital:
        ledger.refuse(position, column, code, message)
    else:
        ledger.correct(position, column, code, f"{message}; the value was left empty")


def _refusal(number: int, column: str, code: str, message: str) -> RowIssue:
    return RowIssue(row=number, column=column, code=code, message=message, action="refused")


def _lines(first: int, last: int) -> str:
    """Which lines of the file a row took where it took several: an unclosed quotation mark swallows lines."""
    return f" in lines {first} to {last}; is a quotation mark left open?" if last > first else ""


def _utf16_without_mark(head: bytes) -> str:
    """A header in ASCII letters shows its encoding by where the zero bytes are; empty for any other."""
    even, odd = head[:64:2], head[1:64:2]
    if len(head) >= 8 and all(even) and not any(odd):
        return "utf-16-le"
    return "utf-16-be" if len(head) >= 8 and all(odd) and not any(even) else ""


def _mangled(first_row: int, count: int) -> RowIssue:
    message = f"{count} bytes at or a little after this row are not UTF-8 and were replaced by U+FFFD"
    return RowIssue(row=first_row, column="", code="encoding", message=message, action="corrected")


def _quoted(value: str) -> str:
    return f'"{value[:60]}..."' if len(value) > 60 else f'"{value}"'


def _bounded(issues: list[RowIssue]) -> list[RowIssue]:
    """At most `ISSUES_PER_BATCH` issues, refusals first to be kept; the rest told as counts."""
    if len(issues) <= ISSUES_PER_BATCH:
        return issues
    ordered = sorted(issues, key=lambda issue: issue.action != "refused")
    kept, rest = ordered[:ISSUES_PER_BATCH], ordered[ISSUES_PER_BATCH:]
    counts: dict[tuple[str, str, Literal["corrected", "refused", "noted"]], list[int]] = {}
    for issue in rest:
        counts.setdefault((issue.column, issue.code, issue.action), []).append(issue.row)
    for (column, code, action), numbers in counts.items():
        message = f"and {len(numbers)} more rows from {min(numbers)} to {max(numbers)}"
        kept.append(RowIssue(row=min(numbers), column=column, code=code, message=message, action=action))
    return kept
