"""Names of granted endpoints, where there is no hosts file of the plugin's own to look them up in.

Behind full walls a private hosts file holds them and nothing of this is used. Without, the same addresses are answered
by `socket.getaddrinfo` and its siblings, which urllib, http.client, requests, httpx, asyncio, aiohttp and trio all ask.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, cast

_installed: dict[str, str] = {}


def install(hosts: Mapping[str, str]) -> None:
    """Answer for these names (to address) from now on, and for no others but `localhost`.

    A name that is not among them is looked up as before, and not found.
    """
    first = not _installed
    _installed.update({name.lower(): address for name, address in hosts.items()})
    _installed.setdefault("localhost", "127.0.0.1")
    if first:
        _take_over()


def _address_of(host: Any) -> Any:
    """The address for a granted name; anything else as it is."""
    if isinstance(host, bytes | bytearray):
        try:
            host = bytes(host).decode("idna")
        except UnicodeError:
            return host
    return _installed.get(host.rstrip(".").lower(), host) if isinstance(host, str) else host


def _take_over() -> None:
    getaddrinfo, gethostbyname, gethostbyname_ex = (
        socket.getaddrinfo,
        socket.gethostbyname,
        socket.gethostbyname_ex,
    )
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def find_addresses(host: Any, port: Any, *arguments: Any, **named: Any) -> Any:
        return getaddrinfo(_address_of(host), port, *arguments, **named)

    def find_address(host: Any) -> str:
        return gethostbyname(_address_of(host))

    def find_address_in_full(host: Any) -> Any:
        return gethostbyname_ex(_address_of(host))

    def connect_to(self: socket.socket, address: Any) -> None:
        connect(self, _with_address(address))

    def try_to_connect(self: socket.socket, address: Any) -> int:
        return connect_ex(self, _with_address(address))

    socket.getaddrinfo = find_addresses
    socket.gethostbyname = find_address
    socket.gethostbyname_ex = find_address_in_full
    socket.socket.connect = connect_to  # its C code would look a name up by itself
    socket.socket.connect_ex = try_to_connect


def _with_address(address: Any) -> Any:
    if not isinstance(address, tuple) or not address:
        return cast(Any, address)
    host, *rest = cast("tuple[Any, ...]", address)
    return (_address_of(host), *rest)
