"""Landlock: a second wall for files, TCP ports and scopes, behind the namespaces. Standard library and ctypes alone."""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING, Final

from cardcage.sandbox.syscalls import call

if TYPE_CHECKING:
    from cardcage.sandbox.plan import LandlockRules

_CREATE_RULESET_VERSION: Final = 1
_RULE_PATH_BENEATH: Final = 1
_RULE_NET_PORT: Final = 2

_EXECUTE: Final = 1 << 0
_WRITE_FILE: Final = 1 << 1
_READ_FILE: Final = 1 << 2
_READ_DIR: Final = 1 << 3
_REMOVE_DIR: Final = 1 << 4
_REMOVE_FILE: Final = 1 << 5
_MAKE_DIR: Final = 1 << 7
_MAKE_REG: Final = 1 << 8
_MAKE_SOCK: Final = 1 << 9
_MAKE_FIFO: Final = 1 << 10
_MAKE_SYM: Final = 1 << 12
_REFER: Final = 1 << 13
_TRUNCATE: Final = 1 << 14
_IOCTL_DEV: Final = 1 << 15

_READ: Final = _READ_FILE | _READ_DIR
_WRITE: Final = (
    _WRITE_FILE | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG | _MAKE_SOCK | _MAKE_FIFO | _REFER | _TRUNCATE
)
_OF_FILES: Final = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
"""The rights that a rule for a single file may name."""

_BIND_TCP: Final = 1 << 0
_CONNECT_TCP: Final = 1 << 1
_SCOPE_ABSTRACT_UNIX_SOCKET: Final = 1 << 0
_SCOPE_SIGNAL: Final = 1 << 1

NETWORK_ABI: Final = 4
SCOPES_ABI: Final = 6


def abi() -> int:
    """The version of Landlock that the kernel has on, or 0."""
    try:
        return call("landlock_create_ruleset", None, 0, _CREATE_RULESET_VERSION)
    except OSError:
        return 0


def handled_file_rights(version: int) -> int:
    """Every file right that `version` knows: what is handled and not granted is refused."""
    bits = 13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16
    return (1 << bits) - 1


def restrict(rules: LandlockRules, version: int) -> None:
    """Confine this process and all that come of it to `rules`. Needs `no_new_privileges` first."""
    handled = handled_file_rights(version)
    network = _BIND_TCP | _CONNECT_TCP if version >= NETWORK_ABI else 0
    scopes = _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if version >= SCOPES_ABI else 0
    attributes = struct.pack("QQQ", handled, network, scopes)
    size = 24 if version >= SCOPES_ABI else 16 if version >= NETWORK_ABI else 8
    ruleset = call("landlock_create_ruleset", attributes, size, 0)
    try:
        for path, rights in _rights_of_paths(rules).items():
            _allow_path(ruleset, path, rights & handled)
        for right, ports in ((_CONNECT_TCP, rules.connect_ports), (_BIND_TCP, rules.bind_ports)):
            for port in ports if network else ():
                call("landlock_add_rule", ruleset, _RULE_NET_PORT, struct.pack("QQ", right, port), 0)
        call("landlock_restrict_self", ruleset, 0)
    finally:
        os.close(ruleset)


def _rights_of_paths(rules: LandlockRules) -> dict[str, int]:
    rights: dict[str, int] = {}
    device = _READ_FILE | _WRITE_FILE | _IOCTL_DEV
    kinds = (
        (rules.read, _READ),
        (rules.write, _WRITE),
        (rules.links, _MAKE_SYM),
        (rules.execute, _EXECUTE | _READ),
        (rules.devices, device),
    )
    for paths, more in kinds:
        for path in paths:
            rights[path] = rights.get(path, 0) | more
    return rights


def _allow_path(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # optional in the plan, and not on this machine
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            rights &= _OF_FILES
        call("landlock_add_rule", ruleset, _RULE_PATH_BENEATH, struct.pack("=Qi", rights, place), 0)
    finally:
        os.close(place)
