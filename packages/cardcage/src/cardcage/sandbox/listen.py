"""Opening a plan's listeners inside the network namespace that the calling process is in. Standard library alone.

Done while the process may still add addresses and bind low ports. The sockets go to the host, never to the plugin.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cardcage.sandbox.network import Listener

BACKLOG: Final = 64
"""Connections that wait for the host to take them; it takes what is there at once, so this bridges a busy moment."""

_RTM_NEWROUTE: Final = 24
_REQUEST_ACK_CREATE: Final = 0x1 | 0x4 | 0x400
_NLMSG_ERROR: Final = 2
_TABLE_LOCAL, _PROTOCOL_BOOT, _SCOPE_HOST, _ROUTE_LOCAL = 255, 3, 254, 2
_RTA_DESTINATION, _RTA_INTERFACE = 1, 4
_IP_FREEBIND: Final = 15
_LOOPBACK_INDEX: Final = 1
"""The loopback interface is the first of every network namespace."""

_EEXIST: Final = 17

Failure = tuple[int, str]
"""The place of a listener in the plan, and why it could not be opened."""


def open_listeners(listeners: Iterable[Listener]) -> tuple[list[tuple[int, socket.socket]], list[Failure]]:
    """The listening sockets with their places in the plan, and those that could not be had (no IPv6, say)."""
    opened: list[tuple[int, socket.socket]] = []
    failed: list[Failure] = []
    added: set[str] = set()
    for place, listener in enumerate(listeners):
        try:
            if not _is_loopback(listener.address) and listener.address not in added:
                _add_address(listener.address)
                added.add(listener.address)
            opened.append((place, _listen(listener.address, listener.port)))
        except OSError as error:
            failed.append((place, f"{listener}: {error.strerror or error}"))
    return opened, failed


def _is_loopback(address: str) -> bool:
    """Whether the interface has it already: all of 127.0.0.0/8, and ::1."""
    return address.startswith("127.") or address == "::1"


def _listen(address: str, port: int) -> socket.socket:
    sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if not _is_loopback(address):
            sock.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # for both families: no interface has the address
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _add_address(address: str) -> None:
    """Make an address the machine's own, by a route to itself in the table of local ones (`rtnetlink(7)`).

    Not by giving it to the interface: the kernel does that for IPv6 in the background, and a plugin that connects at
    once would be refused now and then.
    """
    family = _family(address)
    packed = socket.inet_pton(family, address)
    body = struct.pack(
        "BBBBBBBBI", family, len(packed) * 8, 0, 0, _TABLE_LOCAL, _PROTOCOL_BOOT, _scope(family), _ROUTE_LOCAL, 0
    )
    body += struct.pack("HH", 4 + len(packed), _RTA_DESTINATION) + packed
    body += struct.pack("HHI", 8, _RTA_INTERFACE, _LOOPBACK_INDEX)
    header = struct.pack("IHHII", 16 + len(body), _RTM_NEWROUTE, _REQUEST_ACK_CREATE, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.sendto(header + body, (0, 0))
        reply = netlink.recv(4096)
    _, kind, _, _, _, number = struct.unpack_from("IHHIIi", reply)
    if kind != _NLMSG_ERROR or number not in (0, -_EEXIST):
        raise OSError(-number, os.strerror(-number))


def _scope(family: int) -> int:
    return _SCOPE_HOST if family == socket.AF_INET else 0  # IPv6 has no scopes of routes
