"""The table of system calls is whole, and each call has one place in the profile."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from cardcage.sandbox.call_reference import render
from cardcage.sandbox.profile import ProfileName, profile
from cardcage.sandbox.syscalls import NUMBERS

X86_64_HEADERS = (Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), Path("/usr/include/asm/unistd_64.h"))
GENERIC_HEADERS = (Path("/usr/include/asm-generic/unistd.h"),)
MACHINES = sorted(NUMBERS)

NO_CALLS = {"arch_specific_syscall", "syscalls"}
"""Where an architecture's own calls begin, and how many numbers the header has."""

OF_32_BITS = range(403, 424)
"""Numbers that only machines of 32 bits have: the calls with 64-bit times."""

OTHER_NAMES = {"fstatat": "newfstatat", "sync_file_range2": "sync_file_range"}
"""How the generic header spells a call where 64-bit machines have another name for the number."""


def _header(candidates: tuple[Path, ...]) -> dict[str, int]:
    found = next((path for path in candidates if path.exists()), None)
    if found is None:
        pytest.skip("the kernel's headers (linux-libc-dev) are not installed")
    defined: list[tuple[str, str]] = re.findall(
        r"^#define __NR(?:3264)?_(\w+)\s+(\d+)\s*$", found.read_text(), flags=re.MULTILINE
    )
    return {
        OTHER_NAMES.get(name, name): int(number)
        for name, number in defined
        if name not in NO_CALLS and int(number) not in OF_32_BITS
    }


@pytest.mark.parametrize(("machine", "headers"), [("x86_64", X86_64_HEADERS), ("aarch64", GENERIC_HEADERS)])
def test_every_call_of_the_kernels_headers_is_in_the_table(machine: str, headers: tuple[Path, ...]) -> None:
    defined = _header(headers)
    assert len(defined) > 250
    assert {name: number for name, number in defined.items() if NUMBERS[machine].get(name) != number} == {}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("execute", [False, True])
@pytest.mark.parametrize("name", ["plugin", "fallback", "fallback-shared"])
@pytest.mark.parametrize("signals", [False, True])
def test_every_call_has_exactly_one_place(machine: str, execute: bool, name: ProfileName, signals: bool) -> None:
    words = profile(execute=execute, machine=machine, name=name, signals=signals)
    refused = [name for names in words.refused.values() for name in names]
    places = Counter([*words.allowed, *words.conditional, *words.absent, *refused])
    assert [name for name, times in places.items() if times > 1] == []
    assert set(places) == set(NUMBERS[machine])


def test_no_reason_is_given_for_a_call_that_no_machine_has() -> None:
    everywhere = set(NUMBERS["x86_64"]) | set(NUMBERS["aarch64"])
    named = [profile(execute=False, machine=machine) for machine in MACHINES]
    assert {name for words in named for names in words.refused.values() for name in names} <= everywhere


def test_the_reference_is_what_the_profile_says(project_root: Path) -> None:
    # To write it anew: python -m cardcage.sandbox.call_reference > docs/reference/system-calls.md
    assert (project_root / "docs/reference/system-calls.md").read_text() == render()
