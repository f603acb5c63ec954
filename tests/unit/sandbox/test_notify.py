"""Calls that wait for another process's word: read, refused, answered, let go on, given a descriptor."""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from cardcage.sandbox import capabilities, notify
from cardcage.sandbox.enter import die_with_parent
from cardcage.sandbox.syscalls import MACHINE, NUMBERS

ASKED = ("getppid", "getcwd", "personality")
TIMEOUT_MS = 30_000


def _program() -> bytes:
    """Asks about three calls that an interpreter makes only when it is told to, and allows everything else."""
    ask, allow = (0x06, 0, 0, 0x7FC00000), (0x06, 0, 0, 0x7FFF0000)
    steps = [(0x20, 0, 0, 0), *((0x15, len(ASKED) - n, 0, NUMBERS[MACHINE][one]) for n, one in enumerate(ASKED))]
    return b"".join(struct.pack("HBBI", *step) for step in (*steps, allow, ask))


class Decider:
    """Answers each call as it was told to, and remembers what it was asked."""

    def __init__(self, decide: Callable[[notify.Notification, notify.Reader], notify.Answer | None]) -> None:
        self.asked: list[notify.Notification] = []
        self._decide = decide

    def decide(self, asked: notify.Notification, reader: notify.Reader) -> notify.Answer | None:
        self.asked.append(asked)
        return self._decide(asked, reader)


def supervised(act: Callable[[], str], handler: notify.Handler) -> str:
    """What `act` returns in a child whose calls `handler` decides."""
    if not notify.is_supported():
        pytest.skip("the kernel has no seccomp notification")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            die_with_parent()
            capabilities.no_new_privileges()
            listener = notify.install(_program())
            socket.send_fds(theirs, [b"up"], [listener])
            os.close(listener)  # or a call that nobody answers would wait for this very process
            theirs.send(act().encode())
        except OSError as error:
            theirs.send(errno.errorcode[error.errno or 0].encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        _, descriptors, _, _ = socket.recv_fds(ours, 16, 1)
        listener = notify.Listener(descriptors[0])
        watch = select.poll()
        watch.register(listener.fileno(), select.POLLIN)
        watch.register(ours, select.POLLIN)
        try:
            while True:
                events = watch.poll(TIMEOUT_MS)
                assert events, "the child is stuck"
                if any(descriptor == ours.fileno() for descriptor, _ in events):
                    return ours.recv(4096).decode()
                if listener.fileno() >= 0:
                    listener.serve_one(handler)
                else:
                    watch = select.poll()
                    watch.register(ours, select.POLLIN)
        finally:
            listener.close()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _raw(name: str, *arguments: Any) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(NUMBERS[MACHINE][name], *arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), name)
    return result


def test_a_call_may_go_on() -> None:
    decider = Decider(lambda asked, reader: notify.PROCEED)
    assert supervised(lambda: str(os.getppid()), decider) == str(os.getpid())
    assert [one.name for one in decider.asked] == ["getppid"]


def test_a_call_may_fail_with_any_error() -> None:
    decider = Decider(lambda asked, reader: notify.Fail(errno.EDQUOT))
    assert supervised(os.getcwd, decider) == "EDQUOT"


def test_a_call_may_be_answered_without_being_made() -> None:
    decider = Decider(lambda asked, reader: notify.Return(4711))
    assert supervised(lambda: str(_raw("getppid")), decider) == "4711"


def test_what_an_address_leads_to_can_be_read() -> None:
    seen: list[bytes] = []

    def decide(asked: notify.Notification, reader: notify.Reader) -> notify.Answer:
        seen.append(reader.read(asked, asked.arguments[0], 5))
        return notify.Return(asked.arguments[1])

    assert supervised(lambda: str(_raw("getcwd", b"hello", 7)), Decider(decide)) == "7"
    assert seen == [b"hello"]


def test_a_handler_that_cannot_read_its_caller_refuses() -> None:
    decider = Decider(lambda asked, reader: notify.Return(len(reader.read(asked, 8, 5))))
    assert supervised(lambda: str(_raw("getcwd", ctypes.c_void_p(8), 5)), decider) in ("EIO", "EFAULT")


@pytest.mark.parametrize("address", [1 << 63, (1 << 64) - 1, (1 << 64) - 4096])
def test_an_address_beyond_all_memory_is_refused_like_any_that_leads_nowhere(address: int) -> None:
    decider = Decider(lambda asked, reader: notify.Return(len(reader.read(asked, asked.arguments[0], 5))))
    assert supervised(lambda: str(_raw("getcwd", ctypes.c_void_p(address), 5)), decider) == "EFAULT"


def test_a_descriptor_can_be_put_at_a_place_of_the_caller() -> None:
    read_end, write_end = os.pipe()
    os.write(write_end, b"given")

    def act() -> str:
        place = os.open("/dev/null", os.O_RDONLY)
        _raw("personality", place)
        return os.read(place, 5).decode() + str(os.get_inheritable(place))

    def decide(asked: notify.Notification, reader: notify.Reader) -> notify.Answer:
        return notify.Give(read_end, asked.arguments[0], close_on_exec=True)

    assert supervised(act, Decider(decide)) == "givenFalse"
    os.close(read_end)
    os.close(write_end)


def test_when_nobody_listens_any_more_the_call_does_not_exist() -> None:
    def act() -> str:
        return str(_raw("getppid"))

    def leave(asked: notify.Notification, reader: notify.Reader) -> None:
        assert isinstance(reader, notify.Listener)
        reader.close()

    assert supervised(act, Decider(leave)) == "ENOSYS"
