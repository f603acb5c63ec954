"""Giving up every capability for good. Standard library and ctypes alone."""

from __future__ import annotations

import ctypes
import struct
from typing import Final

from cardcage.sandbox.syscalls import call, prctl

_PR_GET_NO_NEW_PRIVS: Final = 39
_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECUREBITS: Final = 28
_PR_CAPBSET_READ: Final = 23
_PR_CAPBSET_DROP: Final = 24
_PR_CAP_AMBIENT: Final = 47
_PR_CAP_AMBIENT_CLEAR_ALL: Final = 4

CAP_SETPCAP: Final = 8
CAP_SYS_ADMIN: Final = 21

_SECUREBITS: Final = 0xEF
"""No rights from uid 0, none kept over a change of uid, none raised as ambient; and all of that locked."""

_VERSION_3: Final = 0x20080522


def no_new_privileges() -> None:
    """From now on no program that is started can gain rights, whatever its file says."""
    prctl(_PR_SET_NO_NEW_PRIVS, 1)


def has_no_new_privileges() -> bool:
    """Whether the kernel says so."""
    return prctl(_PR_GET_NO_NEW_PRIVS) == 1


def drop_all() -> None:
    """Empty the bounding, ambient, permitted, effective and inheritable sets, and lock the way back.

    The bits and the bounding set come first: changing them takes a capability that the last step gives up.
    """
    drop_bounding()
    clear()


def drop_bounding() -> None:
    """Empty the bounding and ambient sets and lock the way back; the sets in use stay. Takes CAP_SETPCAP."""
    prctl(_PR_SET_SECUREBITS, _SECUREBITS)
    for capability in range(64):
        try:
            call("prctl", _PR_CAPBSET_DROP, capability)
        except OSError:
            break  # past the last one that this kernel knows
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)


def clear() -> None:
    """Empty the permitted, effective and inheritable sets."""
    call("capset", struct.pack("Ii", _VERSION_3, 0), struct.pack("6I", 0, 0, 0, 0, 0, 0))


def effective() -> int:
    """The effective set as a mask."""
    data = bytearray(24)
    low, high = _capget(data)
    return low | high << 32


def bounding_is_empty() -> bool:
    """Whether no capability can come back through a program's file."""
    for capability in range(64):
        try:
            if call("prctl", _PR_CAPBSET_READ, capability) != 0:
                return False
        except OSError:
            break
    return True


def _capget(data: bytearray) -> tuple[int, int]:
    header = struct.pack("Ii", _VERSION_3, 0)
    buffer = (ctypes.c_char * len(data)).from_buffer(data)
    call("capget", header, ctypes.addressof(buffer))
    words = struct.unpack("6I", bytes(data))
    return words[0], words[3]
