"""The filter's program, run instruction by instruction for every call of both architectures."""

from __future__ import annotations

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.sandbox.profile import Condition, Options, ProfileName, profile
from cardcage.sandbox.seccomp import assemble
from cardcage.sandbox.syscalls import AUDIT_ARCH, NUMBERS

ALLOW, NOTIFY, ERRNO, KILL = 0x7FFF0000, 0x7FC00000, 0x00050000, 0x80000000
MACHINES = ["x86_64", "aarch64"]
NAMES: list[ProfileName] = ["plugin", "fallback", "fallback-shared"]


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


def is_refused_by(condition: Condition, arguments: tuple[int, ...]) -> bool:
    """The condition's meaning in plain words."""
    if isinstance(condition, Options):
        return arguments[2] not in condition.allowed.get(arguments[1], ())
    masked = arguments[condition.argument] & condition.mask
    if condition.bits:
        return bool(masked & condition.bits)
    if condition.values:
        return masked in condition.values
    return masked not in condition.except_for  # and where nothing is given, always


def telling_values(condition: Condition) -> list[int]:
    """Arguments near which the condition's answer changes."""
    if isinstance(condition, Options):
        return [*condition.allowed, *(option for options in condition.allowed.values() for option in options)]
    return [*condition.values, *condition.except_for, condition.bits]


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("execute", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("signals", [False, True])
def test_every_call_is_allowed_or_refused_as_the_profile_says(
    machine: str, execute: bool, name: ProfileName, signals: bool
) -> None:
    program = assemble(execute=execute, machine=machine, name=name, signals=signals)
    words = profile(execute=execute, machine=machine, name=name, signals=signals)
    for one, number in NUMBERS[machine].items():
        if one in words.conditional:
            continue
        verdict = run(program, machine=machine, number=number)
        if one in words.notified:
            assert verdict == NOTIFY, one
        elif one in words.allowed:
            assert verdict == ALLOW, one
        elif one in words.absent:
            assert verdict == ERRNO | errno.ENOSYS, one
        else:
            assert verdict == ERRNO | errno.EPERM, one


@given(st.data())
def test_an_argument_is_refused_exactly_where_the_profile_says(data: st.DataObject) -> None:
    machine, name = data.draw(st.sampled_from(MACHINES)), data.draw(st.sampled_from(NAMES))
    words = profile(execute=False, machine=machine, name=name)
    one, conditions = data.draw(st.sampled_from(list(words.conditional.items())))
    telling = [value for condition in conditions for value in telling_values(condition)]
    value = st.one_of(st.sampled_from([*telling, 0]), st.integers(0, (1 << 64) - 1))
    arguments = tuple(data.draw(st.tuples(*[value] * 6)))
    program = assemble(execute=False, machine=machine, name=name)
    verdict = run(program, machine=machine, number=NUMBERS[machine][one], arguments=arguments)
    seen = tuple(argument & 0xFFFFFFFF for argument in arguments)
    stopping = [condition for condition in conditions if is_refused_by(condition, seen)]
    allowed = NOTIFY if one in words.notified else ALLOW
    assert verdict == (ERRNO | stopping[0].code if stopping else allowed)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", NAMES[1:])
def test_without_namespaces_nothing_connects_listens_or_sends_by_itself(machine: str, name: ProfileName) -> None:
    program, numbers = assemble(execute=True, machine=machine, name=name), NUMBERS[machine]

    def verdict(call: str, *arguments: int) -> int:
        return run(program, machine=machine, number=numbers[call], arguments=arguments)

    assert verdict("connect", 3) == NOTIFY
    assert verdict("clone", 17) == NOTIFY
    assert verdict("clone", 0x10000000) == ERRNO | errno.EPERM, "a refusal comes before the question"
    assert verdict("bind", 3) == verdict("listen", 3) == ERRNO | errno.EPERM
    assert verdict("socket", 2, 1, 0) == ALLOW
    assert verdict("socket", 2, 2, 0) == verdict("socket", 1, 2, 0) == ERRNO | errno.EPERM
    assert verdict("socketpair", 1, 1, 0) == ALLOW
    assert verdict("socketpair", 1, 2 | 0o2000000, 0) == ERRNO | errno.EPERM
    assert verdict("socketpair", 1, 3, 0) == ERRNO | errno.EPERM, "which the kernel takes for datagrams"
    assert verdict("prctl", 1, 0) == ERRNO | errno.EINVAL, "nobody takes off the signal of a dead parent"
    assert verdict("prlimit64", 0) == ALLOW
    assert verdict("prlimit64", 1) == ERRNO | errno.EPERM


SOL_SOCKET, IP, TCP, UDP, IPV6, NETLINK = 1, 0, 6, 17, 41, 270
OPTIONS_REFUSED = {
    "SO_ATTACH_FILTER": (SOL_SOCKET, 26),
    "SO_ATTACH_BPF": (SOL_SOCKET, 50),
    "SO_ATTACH_REUSEPORT_CBPF": (SOL_SOCKET, 51),
    "SO_ATTACH_REUSEPORT_EBPF": (SOL_SOCKET, 52),
    "SO_MARK": (SOL_SOCKET, 36),
    "SO_BINDTODEVICE": (SOL_SOCKET, 25),
    "SO_BUSY_POLL": (SOL_SOCKET, 46),
    "IPT_SO_SET_REPLACE": (IP, 64),
    "IP_ADD_MEMBERSHIP": (IP, 35),
    "IP_OPTIONS": (IP, 4),
    "IP_XFRM_POLICY": (IP, 17),
    "IPV6_RTHDR": (IPV6, 57),
    "IPV6_HOPOPTS": (IPV6, 54),
    "IP6T_SO_SET_REPLACE": (IPV6, 64),
    "TCP_REPAIR": (TCP, 19),
    "TCP_FASTOPEN": (TCP, 23),
    "TCP_FASTOPEN_CONNECT": (TCP, 30),
    "TCP_ULP": (TCP, 31),
    "TCP_MD5SIG": (TCP, 14),
    "TCP_CONGESTION": (TCP, 13),
    "UDP_ENCAP": (UDP, 100),
    "NETLINK_ADD_MEMBERSHIP": (NETLINK, 1),
}
OPTIONS_ALLOWED = {
    "SO_REUSEADDR": (SOL_SOCKET, 2),
    "SO_KEEPALIVE": (SOL_SOCKET, 9),
    "TCP_NODELAY": (TCP, 1),
    "TCP_USER_TIMEOUT": (TCP, 18),
    "IP_TOS": (IP, 1),
    "IPV6_V6ONLY": (IPV6, 26),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", [*OPTIONS_REFUSED, *OPTIONS_ALLOWED])
def test_socket_options_are_those_of_ordinary_clients_and_servers(machine: str, name: str) -> None:
    arguments = (3, *(OPTIONS_REFUSED | OPTIONS_ALLOWED)[name])
    program = assemble(execute=False, machine=machine)
    verdict = run(program, machine=machine, number=NUMBERS[machine]["setsockopt"], arguments=arguments)
    assert verdict == (ALLOW if name in OPTIONS_ALLOWED else ERRNO | errno.ENOPROTOOPT)


@pytest.mark.parametrize("machine", MACHINES)
def test_what_netfilter_tells_is_refused_and_what_a_client_asks_is_not(machine: str) -> None:
    program, number = assemble(execute=False, machine=machine), NUMBERS[machine]["getsockopt"]
    for arguments in ((3, IP, 64), (3, IP, 80), (3, SOL_SOCKET, 26), (3, TCP, 35)):
        assert run(program, machine=machine, number=number, arguments=arguments) == ERRNO | errno.ENOPROTOOPT
    for arguments in ((3, SOL_SOCKET, 4), (3, SOL_SOCKET, 3), (3, TCP, 11)):
        assert run(program, machine=machine, number=number, arguments=arguments) == ALLOW


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
    assert all(len(assemble(execute=True, machine=machine, name=name)) // 8 <= 4096 for name in NAMES)


def test_numbers_that_are_the_same_everywhere_are_the_same_in_both_tables() -> None:
    x86_64, aarch64 = NUMBERS["x86_64"], NUMBERS["aarch64"]
    common = {name for name in x86_64.keys() & aarch64.keys() if aarch64[name] >= 424}
    assert len(common) > 40
    assert all(x86_64[name] == aarch64[name] for name in common)
    assert len(set(x86_64.values())) == len(x86_64)
    assert len(set(aarch64.values())) == len(aarch64)
