"""How much of the host's memory machines may take together."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cardcage.foundation.errors import Unavailable
from cardcage.sandbox.plan import MIB

SHARE: Final = 0.8
"""Of the memory that is free now: what is left keeps the host and its other plugins alive."""


class MemoryBudget:
    """Reservations against the memory that is free, or against `total_bytes` where that is given."""

    def __init__(self, total_bytes: int | None = None) -> None:
        self._total_bytes = total_bytes
        self._free_at_first = 0
        self.reserved_bytes = 0

    def reserve(self, size_bytes: int, *, plugin: str, version: str) -> None:
        """Take `size_bytes` of it. Raises `Unavailable` where so much is not left."""
        left = self._left()
        if size_bytes > left:
            raise Unavailable(
                f"plugin {plugin!r} {version} needs a virtual machine of {size_bytes // MIB} MiB, "
                f"but only {max(left, 0) // MIB} MiB are left for one",
                code="vm_memory",
                hint="stop another instance, or lower the plugin's memory limit",
                retry_after_s=5.0,
            )
        self.reserved_bytes += size_bytes

    def _left(self) -> int:
        if self._total_bytes is not None:
            return self._total_bytes - self.reserved_bytes
        free = int(available_bytes() * SHARE)
        if not self.reserved_bytes:
            self._free_at_first = free
        # A machine that runs has touched only a part of what it may: its whole reservation counts.
        return min(free, self._free_at_first - self.reserved_bytes)

    def release(self, size_bytes: int) -> None:
        """Give it back."""
        self.reserved_bytes -= size_bytes


def available_bytes() -> int:
    """The memory that programs can still have without swapping, as the kernel reckons it."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
