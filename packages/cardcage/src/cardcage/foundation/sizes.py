"""Amounts of bytes as people read them."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("KiB", "MiB", "GiB", "TiB", "PiB")


def size_text(count: int) -> str:
    """`67108864` as `64 MiB`: at most one decimal, and none where it would be 0; below 1 KiB in bytes."""
    if count < 1024:
        return f"{count} bytes" if count != 1 else "1 byte"
    power = 1
    while power < len(_UNITS) and round(count / 1024**power, 1) >= 1024:
        power += 1
    return f"{count / 1024**power:.1f}".removesuffix(".0") + f" {_UNITS[power - 1]}"
