"""Whether walls are put up as root, as an ordinary user, without namespaces, or not at all."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any, Final

from cardcage.sandbox import capabilities, confine, landlock, notify, syscalls
from cardcage.sandbox.enter import CLONE_FLAGS
from cardcage.sandbox.fallback import NAMESPACES_AT_HAND, NO_NAMESPACES
from cardcage.sandbox.report import Mode

_TRUNCATE_ABI: Final = 3
"""Below it Landlock does not keep files from being cut short, which a uid that is shared with the host may do."""

_CAP_CHOWN, _CAP_KILL, _CAP_SETGID, _CAP_SETUID = 0, 5, 6, 7
_ANSWER_BYTES_MAX: Final = 400


def detect_mode() -> Mode:
    """How this process can put up walls, from what a child of it may do; whether all of it works the doctor tries."""
    if sys.platform != "linux" or not syscalls.supported():
        return Mode.NONE
    if not why_no_namespaces():
        return Mode.ROOT if os.geteuid() == 0 else Mode.USER
    return Mode.NONE if why_no_fallback() else Mode.FALLBACK


def why_no_walls() -> str:
    """Why this process can put up no walls at all, for a sentence."""
    if sys.platform != "linux" or not syscalls.supported():
        return "it is not Linux on x86_64 or aarch64"
    return f"namespaces cannot be made ({why_no_namespaces()}), nor the wall without them ({why_no_fallback()})"


def fallback_facts() -> dict[str, Any]:
    """What a plan without namespaces has to know of this machine."""
    return {NO_NAMESPACES: why_no_namespaces(), NAMESPACES_AT_HAND: namespaces_at_hand()}


@cache
def why_no_namespaces() -> str:
    """Why namespaces cannot be had here, found by making them in a child; empty where they can."""
    if os.geteuid() == 0 and not capabilities.effective() >> capabilities.CAP_SYS_ADMIN & 1:
        return "root without CAP_SYS_ADMIN"
    return _failure_of(_make_namespaces)


@cache
def why_no_fallback() -> str:
    """What is missing even for the wall that needs no namespaces; empty where it can be had."""
    if landlock.abi() < _TRUNCATE_ABI:
        return f"Landlock of ABI {_TRUNCATE_ABI} or newer (Linux 6.2) is missing: the kernel has {landlock.abi()}"
    if not notify.is_supported():
        return "seccomp notification (Linux 5.9) is missing"
    if os.geteuid() == 0:
        needed = {"CAP_CHOWN": _CAP_CHOWN, "CAP_KILL": _CAP_KILL, "CAP_SETGID": _CAP_SETGID, "CAP_SETUID": _CAP_SETUID}
        held = capabilities.effective()
        lacking = [name for name, number in needed.items() if not held >> number & 1]
        if lacking:
            return f"root without {', '.join(lacking)} cannot give a plugin a uid of its own"
    return ""


@cache
def namespaces_at_hand() -> tuple[str, ...]:
    """The kinds that can be made here without a user namespace, found by making them in a child: root may have some."""
    told = _failure_of(_tell_namespaces_at_hand)
    return tuple(told.removeprefix(_AT_HAND).split()) if told.startswith(_AT_HAND) else ()


_AT_HAND: Final = "at hand:"


def _tell_namespaces_at_hand() -> None:
    raise OSError(0, f"{_AT_HAND} {' '.join(confine.namespaces_at_hand())}")


def _make_namespaces() -> None:
    """What a start does of it, in the same order: both steps are forbidden in one place or another."""
    uid, gid, as_root = os.getuid(), os.getgid(), os.geteuid() == 0
    syscalls.call("unshare", CLONE_FLAGS["pid"] | (0 if as_root else CLONE_FLAGS["user"]))
    if not as_root:
        _map_ids(uid, gid)
    others = ("mount", "network", "ipc", "uts")
    syscalls.call("unshare", sum(CLONE_FLAGS[name] for name in others))
    private = 0x4000 | 0x40000  # MS_REC, MS_PRIVATE: AppArmor allows the namespaces and refuses this
    syscalls.call("mount", b"none", b"/", None, private, None)
    syscalls.call("unshare", CLONE_FLAGS["user"])


def _map_ids(uid: int, gid: int) -> None:
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def _failure_of(attempt: Callable[[], None]) -> str:
    """What stops `attempt` in a child; empty where nothing does."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        told = "it ended without a word"
        try:
            attempt()
            told = ""
        except OSError as error:
            told = f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror)
        finally:
            os.write(write_end, f"{told}\n".encode()[:_ANSWER_BYTES_MAX])
            os._exit(0)
    os.close(write_end)
    try:
        answer = os.read(read_end, _ANSWER_BYTES_MAX)
    finally:
        os.close(read_end)
        os.waitpid(child, 0)
    return answer.decode(errors="replace").strip() if answer else "a child that tried was ended"
