"""How much one plugin may keep in the data store. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from cardcage.foundation.errors import Misuse, Refused
from cardcage.foundation.limits import MIB

KEY_BYTES_MAX = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class DataQuota:
    """Of one plugin, over all its instances. Bytes are those of keys (UTF-8) and of values as they are kept."""

    total_bytes: int = 16 * MIB
    entries: int = 10_000
    value_bytes: int = MIB

    def check_value(self, key: str, size_bytes: int) -> None:
        """Raises `Refused` (code `quota_exceeded`) for a value that is larger than any may be."""
        if size_bytes > self.value_bytes:
            raise Refused(
                f'the value of "{key[:80]}" takes {size_bytes} bytes, but a value may take {self.value_bytes}',
                code="quota_exceeded",
                quota="value_bytes",
                limit=self.value_bytes,
                found=size_bytes,
            )

    def check_total(self, *, entries: int, total_bytes: int) -> None:
        """Raises `Refused` (code `quota_exceeded`) where there would be more than is allowed."""
        for name, found, limit in (("entries", entries, self.entries), ("total_bytes", total_bytes, self.total_bytes)):
            if found > limit:
                what = "entries" if name == "entries" else "bytes"
                raise Refused(
                    f"the plugin's data would be {found} {what}, but it may keep {limit}",
                    code="quota_exceeded",
                    hint="delete what is no longer needed, or ask the operator for more",
                    quota=name,
                    limit=limit,
                    found=found,
                )


def check_key(key: str) -> None:
    """Raises `Misuse` (code `invalid_params`) for a key that is empty, too long, or no printable text."""
    try:
        size_bytes = len(key.encode())
    except UnicodeEncodeError:
        size_bytes = 0
    if not 0 < size_bytes <= KEY_BYTES_MAX or not key.isprintable():
        raise Misuse(
            f"a key is printable text of 1 to {KEY_BYTES_MAX} bytes, found {key[:40]!r}", code="invalid_params"
        )
