"""The sentences about processes that ended, and the limits that they name."""

from __future__ import annotations

import pytest

from cardcage.foundation.sizes import size_text
from cardcage.launch.runner import Exit, ExitReason
from cardcage.runtime.deaths import hit_words, limit_of
from cardcage.sandbox.plan import ResourceLimits

LIMITS = ResourceLimits(memory_bytes=64 << 20, cpu_time_s=7, processes=12, disk_bytes=1 << 30, inodes=100)


@pytest.mark.parametrize(
    ("exit_", "name", "text"),
    [
        (Exit(reason=ExitReason.OUT_OF_MEMORY), "memory", "64 MiB"),
        (Exit(reason=ExitReason.CPU_LIMIT), "cpu_time", "7 s"),
        (Exit(reason=ExitReason.PROCESS_LIMIT), "processes", "12"),
        (Exit(reason=ExitReason.DISK_LIMIT), "disk", "1 GiB"),
        (Exit(reason=ExitReason.DISK_LIMIT, limit="inodes"), "inodes", "100 files"),
    ],
)
def test_an_end_by_a_limit_names_it_with_its_value(exit_: Exit, name: str, text: str) -> None:
    limit = limit_of(exit_, LIMITS)
    assert limit is not None
    assert (limit["name"], limit["text"]) == (name, text)


@pytest.mark.parametrize("reason", [ExitReason.CRASHED, ExitReason.STOPPED, ExitReason.KILLED, ExitReason.SYSTEM_CALL])
def test_other_ends_name_none(reason: ExitReason) -> None:
    assert limit_of(Exit(reason=reason), LIMITS) is None


def test_a_hit_names_the_limit_too() -> None:
    assert "the 64 MiB of memory" in hit_words("memory", LIMITS)
    assert "the 12 it was given" in hit_words("processes", LIMITS)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 << 20, "64 MiB"),
        ((1 << 30) - 1, "1 GiB"),
        (5 << 40, "5 TiB"),
        (3 << 60, "3072 PiB"),
    ],
)
def test_sizes_are_short(count: int, text: str) -> None:
    assert size_text(count) == text
