"""The system call filter as a BPF program, made from the profile, and put on a process.

Calls of another architecture (i386, x32) end the process. Standard library and ctypes alone.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from functools import cache
from typing import Final

from cardcage.sandbox.profile import Condition, Options, ProfileName, Refusal, profile
from cardcage.sandbox.syscalls import AUDIT_ARCH, MACHINE, NUMBERS, call

_LD_ABSOLUTE, _JEQ, _JGT, _JGE, _JSET, _AND, _RETURN = 0x20, 0x15, 0x25, 0x35, 0x45, 0x54, 0x06
_ALLOW, _NOTIFY, _ERRNO, _KILL_PROCESS = 0x7FFF0000, 0x7FC00000, 0x00050000, 0x80000000
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16
_X32_BIT: Final = 0x40000000

_Instruction = tuple[int, int, int, int]
"""Code, jump where true, jump where false, operand."""


def _return(value: int) -> _Instruction:
    return (_RETURN, 0, 0, value)


def _refuse(code: int) -> _Instruction:
    return _return(_ERRNO | code)


def _load_argument(index: int) -> _Instruction:
    """The lower half of an argument; all that the checked calls look at fits in it on a little-endian machine."""
    return (_LD_ABSOLUTE, 0, 0, _ARGUMENTS_OFFSET + 8 * index)


def _check(condition: Condition) -> list[_Instruction]:
    """Instructions that return where `condition` refuses and fall through where it does not."""
    return _check_options(condition) if isinstance(condition, Options) else _check_argument(condition)


def _check_argument(refusal: Refusal) -> list[_Instruction]:
    body = [_load_argument(refusal.argument)]
    if refusal.mask != 0xFFFFFFFF:
        body.append((_AND, 0, 0, refusal.mask))
    deny = _refuse(refusal.code)
    if refusal.bits:
        body += [(_JSET, 0, 1, refusal.bits), deny]
    for value in refusal.values:
        body += [(_JEQ, 0, 1, value), deny]
    if refusal.except_for:
        body += [*_step_over(refusal.except_for), deny]
    if not (refusal.bits or refusal.values or refusal.except_for):
        body.append(deny)
    return body


def _check_options(options: Options) -> list[_Instruction]:
    deny = _refuse(options.code)
    body = [_load_argument(1)]
    for level, allowed in options.allowed.items():
        # Options are the last check of their calls, so an allowed one returns.
        one_level = [_load_argument(2), *_step_over(allowed), deny, _return(_ALLOW)]
        body += [(_JEQ, 0, len(one_level), level), *one_level]
    return [*body, deny]


def _step_over(values: tuple[int, ...]) -> list[_Instruction]:
    """Jump over the one instruction that follows where the accumulator is one of `values`."""
    return [(_JEQ, len(values) - index, 0, value) for index, value in enumerate(values)]


def _for_call(number: int, body: list[_Instruction]) -> list[_Instruction]:
    """`body` runs where the call is `number`, and must return; otherwise it is stepped over with the number loaded."""
    return [(_JEQ, 0, len(body), number), *body]


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1] = (ranges[-1][0], number)
        else:
            ranges.append((number, number))
    return ranges


def _allow_ranges(numbers: list[int]) -> list[_Instruction]:
    steps: list[_Instruction] = []
    for low, high in _ranges(numbers):
        steps += [(_JGT, 3, 0, high), (_JGE, 0, 1, low), _return(_ALLOW), _refuse(errno.EPERM)]
    return steps


@cache
def assemble(*, execute: bool, machine: str = MACHINE, name: ProfileName = "plugin", signals: bool = True) -> bytes:
    """The filter for `machine` as a BPF program."""
    known = NUMBERS[machine]
    wanted = profile(execute=execute, machine=machine, name=name, signals=signals)
    steps = _head(machine)
    for one in (*wanted.conditional, *(one for one in wanted.notified if one not in wanted.conditional)):
        checks = [step for condition in wanted.conditional.get(one, ()) for step in _check(condition)]
        steps += _for_call(known[one], [*checks, _return(_NOTIFY if one in wanted.notified else _ALLOW)])
    for one in wanted.absent:
        steps += _for_call(known[one], [_refuse(errno.ENOSYS)])
    steps += _allow_ranges([known[one] for one in wanted.allowed if one not in wanted.notified])
    steps += [(_JGT, 0, 1, max(known.values())), _refuse(errno.ENOSYS), _refuse(errno.EPERM)]
    return _encode(steps)


def notifying(numbers: list[int], machine: str = MACHINE) -> bytes:
    """A filter that asks its listener about these calls and allows every other one: to be laid below the real one."""
    steps = _head(machine)
    for number in sorted(numbers):
        steps += _for_call(number, [_return(_NOTIFY)])
    return _encode([*steps, _return(_ALLOW)])


def _head(machine: str) -> list[_Instruction]:
    """End the process for a call of another architecture; go on with the call's number loaded."""
    steps: list[_Instruction] = [
        (_LD_ABSOLUTE, 0, 0, _ARCHITECTURE_OFFSET),
        (_JEQ, 1, 0, AUDIT_ARCH[machine]),
        _return(_KILL_PROCESS),
        (_LD_ABSOLUTE, 0, 0, _NUMBER_OFFSET),
    ]
    if machine == "x86_64":
        steps += [(_JGE, 0, 1, _X32_BIT), _return(_KILL_PROCESS)]
    return steps


def _encode(steps: list[_Instruction]) -> bytes:
    return b"".join(struct.pack("HBBI", *step) for step in steps)


_SECCOMP_SET_MODE_FILTER: Final = 1


def install(program: bytes) -> None:
    """Put `program` on this process and all that come of it. Needs `no_new_privileges` first."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    call("seccomp", _SECCOMP_SET_MODE_FILTER, 0, header)
