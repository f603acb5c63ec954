"""Deciding system calls one at a time from another process: the kernel's seccomp notification.

A filter that answers a call with `SECCOMP_RET_USER_NOTIF` holds its caller until whoever has the filter's listener says
what becomes of the call. What is done with it is the owner's affair: this module receives, reads and answers. Standard
library and ctypes alone.

A caller's memory can be changed by its other threads while it waits. So what was read is a copy to decide on and to act
on; letting a call go on (`PROCEED`) is for calls whose arguments are all numbers, or which are only recorded.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from typing import Final, NamedTuple, Protocol

from cardcage.sandbox.syscalls import MACHINE, NUMBERS, call

_SET_MODE_FILTER: Final = 1
_GET_NOTIF_SIZES: Final = 3
_NEW_LISTENER: Final = 1 << 3
_WAIT_KILLABLE: Final = 1 << 5
"""Once a notification was received, only a fatal signal takes its caller away (Linux 5.19)."""

_RECEIVE: Final = 0xC0502100
_SEND: Final = 0xC0182101
_IS_VALID: Final = 0x40082102
_ADD_DESCRIPTOR: Final = 0x40182103

_REQUEST: Final = struct.Struct("=QIIiIQ6Q")
_RESPONSE: Final = struct.Struct("=QqiI")
_ADDITION: Final = struct.Struct("=QIIII")
_ADDRESS_MAX: Final = (1 << 63) - 1
_FLAG_CONTINUE: Final = 1
_FLAG_SET_NUMBER: Final = 1

_NAMES: Final = {number: name for name, number in NUMBERS.get(MACHINE, {}).items()}


class Notification(NamedTuple):
    """A call that waits: who makes it (a thread's number), which call, and its six arguments as they stand."""

    id: int
    pid: int
    name: str
    arguments: tuple[int, ...]


class Proceed(NamedTuple):
    """Let the kernel do the call. Not for calls whose arguments are addresses: they can change after the look."""


class Fail(NamedTuple):
    """Fail the call with the error `code`."""

    code: int


class Return(NamedTuple):
    """Say that the call returned `value`, without doing it."""

    value: int = 0


class Give(NamedTuple):
    """Put a copy of `descriptor` at the caller's number `place`, and say that the call returned 0."""

    descriptor: int
    place: int
    close_on_exec: bool


Answer = Proceed | Fail | Return | Give
PROCEED: Final = Proceed()


class Handler(Protocol):
    """Who decides: the one port of this module, for supervising and for recording alike."""

    def decide(self, asked: Notification, reader: Reader) -> Answer | None:
        """What becomes of the call; None where it is answered later, by `Listener.answer`."""
        ...


class Reader(Protocol):
    """A way into the memory of a caller that waits."""

    def read(self, asked: Notification, address: int, size: int) -> bytes:
        """At most `size` bytes from `address`. Raises `OSError` where they cannot be read, or the caller is gone."""
        ...


class Listener:
    """The end at which a filter's notifications arrive. Readable (`fileno`) where one waits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = bytearray(_REQUEST.size)

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """Give up: whatever waits, and whatever asks from now on, fails with ENOSYS."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def receive(self) -> Notification | None:
        """The next notification, or None where its caller was gone before it could be taken."""
        self._buffer[:] = bytes(len(self._buffer))
        try:
            fcntl.ioctl(self._descriptor, _RECEIVE, self._buffer)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                return None
            raise
        number, pid, _, call_number, _, _, *arguments = _REQUEST.unpack(self._buffer)
        return Notification(number, pid, _NAMES.get(call_number, str(call_number)), tuple(arguments))

    def waits(self, asked: Notification) -> bool:
        """Whether the caller still waits. If it does, its number was its own until now."""
        try:
            fcntl.ioctl(self._descriptor, _IS_VALID, struct.pack("=Q", asked.id))
        except OSError:
            return False
        return True

    def read(self, asked: Notification, address: int, size: int) -> bytes:
        """At most `size` bytes of the caller's memory. Raises `OSError`.

        Whether the caller still waits is looked at after the read: before it, its number could be another's by then.
        """
        if address > _ADDRESS_MAX:
            # The caller chooses it; Python would have another error for a number that no file has.
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        memory = os.open(f"/proc/{asked.pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.pread(memory, size, address)
        finally:
            os.close(memory)
        if not self.waits(asked):
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        return found

    def answer(self, asked: Notification, answer: Answer) -> bool:
        """Say what becomes of the call. False where its caller is gone; what was to be given is then not given."""
        try:
            match answer:
                case Proceed():
                    self._send(asked, 0, 0, _FLAG_CONTINUE)
                case Fail(code=code):
                    self._send(asked, 0, -code, 0)
                case Return(value=value):
                    self._send(asked, value, 0, 0)
                case Give():
                    flags = os.O_CLOEXEC if answer.close_on_exec else 0
                    addition = _ADDITION.pack(asked.id, _FLAG_SET_NUMBER, answer.descriptor, answer.place, flags)
                    fcntl.ioctl(self._descriptor, _ADD_DESCRIPTOR, addition)
                    self._send(asked, 0, 0, 0)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINPROGRESS):
                return False
            raise
        return True

    def _send(self, asked: Notification, value: int, error: int, flags: int) -> None:
        fcntl.ioctl(self._descriptor, _SEND, _RESPONSE.pack(asked.id, value, error, flags))

    def serve_one(self, handler: Handler) -> None:
        """Take one notification and have it decided; a handler that cannot read its caller refuses."""
        asked = self.receive()
        if asked is None:
            return
        try:
            answer = handler.decide(asked, self)
        except OSError as error:
            answer = Fail(error.errno or errno.EPERM)
        if answer is not None:
            self.answer(asked, answer)


def is_supported() -> bool:
    """Whether the kernel has notifications in the form that is spoken here (Linux 5.9)."""
    sizes = ctypes.create_string_buffer(6)
    try:
        call("seccomp", _GET_NOTIF_SIZES, 0, ctypes.addressof(sizes))
    except OSError:
        return False
    request, response, _ = struct.unpack("=HHH", sizes.raw)
    return (request, response) == (_REQUEST.size, _RESPONSE.size)


def install(program: bytes) -> int:
    """Put `program` on this process and all that come of it, and return the listener's descriptor.

    Needs `no_new_privileges` first. The calling process must hand the listener on and close it: who holds it decides.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    try:
        return call("seccomp", _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE, header)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return call("seccomp", _SET_MODE_FILTER, _NEW_LISTENER, header)
