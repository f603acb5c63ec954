"""The filter's program, run instruction by instruction for every call of both architectures."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.sandbox.seccomp import Profile, Refusal, assemble, profile
from cardcage.sandbox.syscalls import AUDIT_ARCH, NUMBERS

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
MACHINES = ["x86_64", "aarch64"]


def run(program: bytes, *, machine: str, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the kernel's interpreter returns for this call: `linux/filter.h`, as far as the program uses it."""
    padded = (*arguments, *([0] * (6 - len(arguments))))
    data = struct.pack("<IIQ6Q", number, AUDIT_ARCH[machine], 0, *(one & (1 << 64) - 1 for one in padded))
    steps = list(struct.iter_unpack("<HBBI", program))
    place = accumulator = 0
    while True:
        code, jump_true, jump_false, operand = steps[place]
        place += 1
        match code:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x15:
                place += jump_true if accumulator == operand else jump_false
            case 0x25:
                place += jump_true if accumulator > operand else jump_false
            case 0x35:
                place += jump_true if accumulator >= operand else jump_false
            case 0x45:
                place += jump_true if accumulator & operand else jump_false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"instruction {code:#x} is not one that the assembler knows")


def is_refused_by(refusal: Refusal, value: int) -> bool:
    """The refusal's meaning in plain words."""
    masked = value & refusal.mask
    if refusal.bits:
        return bool(masked & refusal.bits)
    if refusal.values:
        return masked in refusal.values
    return masked not in refusal.except_for


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("execute", [False, True])
def test_every_call_is_allowed_or_refused_as_the_profile_says(machine: str, execute: bool) -> None:
    program, words = assemble(execute=execute, machine=machine), profile(execute=execute, machine=machine)
    for name, number in NUMBERS[machine].items():
        if name in words.conditional:
            continue
        verdict = run(program, machine=machine, number=number)
        if name in words.allowed:
            assert verdict == ALLOW, name
        elif name in ("clone3", "openat2"):
            assert verdict == ERRNO | errno.ENOSYS, name
        else:
            assert verdict == ERRNO | errno.EPERM, name


def _conditional(words: Profile) -> list[tuple[str, tuple[Refusal, ...]]]:
    return [(name, refusals) for name, refusals in words.conditional.items() if name != "setsockopt"]


@given(st.data())
def test_an_argument_is_refused_exactly_where_the_profile_says(data: st.DataObject) -> None:
    machine = data.draw(st.sampled_from(MACHINES))
    name, refusals = data.draw(st.sampled_from(_conditional(profile(execute=False, machine=machine))))
    telling = [value for refusal in refusals for value in (*refusal.values, *refusal.except_for, refusal.bits)]
    value = st.one_of(st.sampled_from(telling), st.integers(0, (1 << 64) - 1))
    arguments = tuple(data.draw(st.tuples(*[value] * 6)))
    verdict = run(
        assemble(execute=False, machine=machine), machine=machine, number=NUMBERS[machine][name], arguments=arguments
    )
    stopping = [refusal for refusal in refusals if is_refused_by(refusal, arguments[refusal.argument] & 0xFFFFFFFF)]
    assert verdict == (ERRNO | stopping[0].code if stopping else ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
def test_tcp_options_that_connect_are_refused_and_others_are_not(machine: str) -> None:
    program, number = assemble(execute=False, machine=machine), NUMBERS[machine]["setsockopt"]
    assert run(program, machine=machine, number=number, arguments=(3, 6, 30)) == ERRNO | errno.EPERM
    assert run(program, machine=machine, number=number, arguments=(3, 6, 1)) == ALLOW  # TCP_NODELAY
    assert run(program, machine=machine, number=number, arguments=(3, 1, 30)) == ALLOW  # SOL_SOCKET


def test_a_call_of_another_architecture_ends_the_process() -> None:
    program = assemble(execute=False, machine="x86_64")
    assert run(program, machine="aarch64", number=0) == KILL
    assert run(program, machine="x86_64", number=0x40000000) == KILL


@pytest.mark.parametrize("machine", MACHINES)
def test_a_number_beyond_the_table_does_not_exist(machine: str) -> None:
    number = max(NUMBERS[machine].values()) + 1
    assert run(assemble(execute=False, machine=machine), machine=machine, number=number) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("machine", MACHINES)
def test_programs_can_be_started_only_where_they_are_granted(machine: str) -> None:
    for execute, verdict in ((False, ERRNO | errno.EPERM), (True, ALLOW)):
        number = NUMBERS[machine]["execve"]
        assert run(assemble(execute=execute, machine=machine), machine=machine, number=number) == verdict


@pytest.mark.parametrize("machine", MACHINES)
def test_the_program_is_within_the_kernels_bound(machine: str) -> None:
    assert len(assemble(execute=True, machine=machine)) // 8 <= 4096


def test_numbers_that_are_the_same_everywhere_are_the_same_in_both_tables() -> None:
    x86_64, aarch64 = NUMBERS["x86_64"], NUMBERS["aarch64"]
    common = {name for name in x86_64.keys() & aarch64.keys() if aarch64[name] >= 424}
    assert len(common) > 40
    assert all(x86_64[name] == aarch64[name] for name in common)
    assert len(set(x86_64.values())) == len(x86_64)
    assert len(set(aarch64.values())) == len(aarch64)
