"""What a plugin may use: sizes, shares and counts as a manifest writes them, and as numbers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from cardcage.foundation.errors import Fault
from cardcage.manifest.gather import describe, did_you_mean, whole_number

# What a value may look like; its amount is checked once it is a number.
SIZE: Final = r"[0-9]{1,12}(?:\.[0-9]{1,6})? ?(?:[KMGT]i?B|[KMGT]i|kB|B)"
RATE: Final = r"[0-9]{1,12}(?:\.[0-9]{1,6})? ?(?:(?:[KMGT]i?B|kB|B)/s|[kMG]bit/s)"
SHARE: Final = r"[0-9]{1,6}m|[0-9]{1,4}(?:\.[0-9]{1,6})?%|[0-9]{1,4}(?:\.[0-9]{1,6})?"
LINES: Final = r"[0-9]{1,9}/s"

# The same for the published schema, where the form alone has to keep amounts within their bounds.
_AMOUNT: Final = (
    r"(?:[1-9][0-9]{0,2}(?:\.[0-9]{1,6})? ?T|[1-9][0-9]{0,5}(?:\.[0-9]{1,6})? ?[KMG]|0\.[1-9][0-9]{0,5} ?[KMGT])"
)
SIZE_BOUNDED: Final = rf"{_AMOUNT}(?:i?B|i)|[1-9][0-9]{{0,5}} ?kB|[1-9][0-9]{{0,11}} ?B"
RATE_BOUNDED: Final = rf"{_AMOUNT}i?B/s|[1-9][0-9]{{0,5}} ?kB/s|[1-9][0-9]{{0,11}} ?B/s|[1-9][0-9]{{0,5}} ?[kMG]bit/s"
SHARE_BOUNDED: Final = (
    r"[1-9][0-9]{0,5}m|[1-9][0-9]{0,3}(?:\.[0-9]{1,6})?%|[1-9][0-9]{0,2}(?:\.[0-9]{1,6})?|0\.[0-9]{0,5}[1-9]"
)
LINES_BOUNDED: Final = r"[1-9][0-9]{0,5}/s"

_UNITS: Final[Mapping[str, int]] = {
    "B": 1,
    "kB": 10**3,
    **{f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}iB": 1024**power for power, letter in enumerate("KMGT", 1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("KMGT", 1)},
    # Bits a second, counted as bytes.
    "kbit": 125,
    "Mbit": 125_000,
    "Gbit": 125_000_000,
}
BYTES_MAX: Final = 2**50
CORES_MAX: Final = 1024
COUNT_MAX: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one instance may use. None where the manifest asks for nothing in particular."""

    memory_bytes: int | None = None
    cpu_cores: float | None = None
    """Fractions of a core: 0.5 is half of one."""
    processes: int | None = None
    descriptors: int | None = None
    disk_bytes: int | None = None
    inodes: int | None = None
    """Files, folders and links together."""
    network_bytes_per_s: int | None = None
    connections: int | None = None
    """At once."""
    log_lines_per_s: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitKey:
    """One key under `limits:`: the attribute it sets, how its value is read, and what is expected in words."""

    attribute: str
    read: Callable[[Any], int | float | None]
    expected: str
    help: str
    number: str
    """The JSON Schema type of a plain number given for it."""
    most: int
    pattern: str | None = None
    """The texts that may stand for the number, as the published schema has them."""


def _read_size(value: Any) -> int | None:
    return _read_amount(SIZE, value, BYTES_MAX)


def _read_rate(value: Any) -> int | None:
    return _read_amount(RATE, value, BYTES_MAX)


def _read_amount(pattern: str, value: Any, most: int) -> int | None:
    if isinstance(value, str) and re.fullmatch(pattern, value):
        number = re.match(r"[0-9.]+", value)
        assert number is not None
        unit = value[number.end() :].strip().removesuffix("/s")
        value = int(Decimal(number[0]) * _UNITS[unit])
    return _whole(value, most)


def _read_cores(value: Any) -> float | None:
    if isinstance(value, str) and re.fullmatch(SHARE, value):
        divisor = 1000 if value.endswith("m") else 100 if value.endswith("%") else 1
        value = float(value.rstrip("m%")) / divisor
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= CORES_MAX:
        return None
    return float(value)


def _read_count(value: Any) -> int | None:
    return _whole(value, COUNT_MAX)


def _read_lines(value: Any) -> int | None:
    return _whole(int(value[:-2]) if isinstance(value, str) and re.fullmatch(LINES, value) else value, COUNT_MAX)


def _whole(value: Any, most: int) -> int | None:
    number = whole_number(value)
    return number if number is not None and 1 <= number <= most else None


_SIZE_WORDS: Final = "a size such as 256MiB, or a number of bytes"
_COUNT_WORDS: Final = f"a whole number from 1 to {COUNT_MAX}"

LIMIT_KEYS: Final[Mapping[str, LimitKey]] = {
    "memory": LimitKey(
        attribute="memory_bytes",
        read=_read_size,
        expected=_SIZE_WORDS,
        help="Memory of all its processes together.",
        number="integer",
        most=BYTES_MAX,
        pattern=SIZE_BOUNDED,
    ),
    "cpu": LimitKey(
        attribute="cpu_cores",
        read=_read_cores,
        expected="cores such as 0.5, 500m or 50%",
        help="Share of the processor: 1 is one core.",
        number="number",
        most=CORES_MAX,
        pattern=SHARE_BOUNDED,
    ),
    "processes": LimitKey(
        attribute="processes",
        read=_read_count,
        expected=_COUNT_WORDS,
        help="Processes and threads at once.",
        number="integer",
        most=COUNT_MAX,
    ),
    "descriptors": LimitKey(
        attribute="descriptors",
        read=_read_count,
        expected=_COUNT_WORDS,
        help="Open files and sockets of each process.",
        number="integer",
        most=COUNT_MAX,
    ),
    "disk": LimitKey(
        attribute="disk_bytes",
        read=_read_size,
        expected=_SIZE_WORDS,
        help="What it may write to its own folders.",
        number="integer",
        most=BYTES_MAX,
        pattern=SIZE_BOUNDED,
    ),
    "inodes": LimitKey(
        attribute="inodes",
        read=_read_count,
        expected=_COUNT_WORDS,
        help="Files, folders and links that it may have in its own folders.",
        number="integer",
        most=COUNT_MAX,
    ),
    "network": LimitKey(
        attribute="network_bytes_per_s",
        read=_read_rate,
        expected="a bandwidth such as 1MiB/s or 10Mbit/s, or a number of bytes a second",
        help="Bandwidth in each direction.",
        number="integer",
        most=BYTES_MAX,
        pattern=RATE_BOUNDED,
    ),
    "connections": LimitKey(
        attribute="connections",
        read=_read_count,
        expected=_COUNT_WORDS,
        help="Open connections to granted endpoints at once.",
        number="integer",
        most=COUNT_MAX,
    ),
    "log_rate": LimitKey(
        attribute="log_lines_per_s",
        read=_read_lines,
        expected="lines a second such as 100 or 100/s",
        help="Log lines a second; what comes above is dropped and counted.",
        number="integer",
        most=COUNT_MAX,
        pattern=LINES_BOUNDED,
    ),
}
"""Every key that `limits:` may hold."""


def read_limits(written: Mapping[str, Any]) -> tuple[Limits, list[Fault]]:
    """The limits in a mapping written as under `limits:`, and every fault with the key that it is in."""
    numbers: dict[str, Any] = {}
    faults = [
        Fault(path=name, message=f"no such key{did_you_mean(name, LIMIT_KEYS)}") for name in written.keys() - LIMIT_KEYS
    ]
    for name, key in LIMIT_KEYS.items():
        if written.get(name) is None:
            continue
        numbers[key.attribute] = key.read(written[name])
        if numbers[key.attribute] is None:
            faults.append(Fault(path=name, message=f"expected {key.expected}, found {describe(written[name])}"))
    return Limits(**numbers), faults
