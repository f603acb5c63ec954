"""Network endpoints: a host, a pattern of hosts or a range of addresses, and the ports there."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network
from typing import Final
from urllib.parse import urlsplit

PORT_MAX: Final = 65535
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_SCHEME_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A host and its ports from `port_low` to `port_high`.

    `addresses` is set where the host is an address or a range of them; otherwise `host` is a name, `*.name` or `*`.
    """

    host: str
    addresses: Network | None
    port_low: int
    port_high: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if self.addresses is not None and self.addresses.version == 6 else self.host
        return f"{host}:{_format_ports(self.port_low, self.port_high)}"

    def covers(self, other: Endpoint) -> bool:
        """Whether each connection that the other allows is allowed by this one."""
        ports = self.port_low <= other.port_low and other.port_high <= self.port_high
        return ports and self._covers_host(other)

    def overlaps(self, other: Endpoint) -> bool:
        """Whether some connection is allowed by both. A name and an address are never held to be the same."""
        ports = self.port_low <= other.port_high and other.port_low <= self.port_high
        return ports and (self._covers_host(other) or other._covers_host(self))

    @property
    def is_broad(self) -> bool:
        """Whether it stands for hosts that nobody has named one by one, or for every port of one."""
        ranged = self.addresses is not None and self.addresses.num_addresses > 1
        return self.host.startswith("*") or ranged or (self.port_low, self.port_high) == (1, PORT_MAX)

    def _covers_host(self, other: Endpoint) -> bool:
        if self.host == "*":
            return True
        if self.addresses is not None or other.addresses is not None:
            return _contains(self.addresses, other.addresses)
        if self.host.startswith("*."):
            # The dot is part of what is compared: `badexample.com` is no name beneath `example.com`.
            return other.host.removeprefix("*").endswith(self.host[1:])
        return self.host == other.host


@lru_cache(maxsize=4096)
def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that `text` spells, or a `ValueError` that says what was expected and found."""
    if "://" in text:
        return _parse_url(text)
    host_text, colon, ports_text = text.rpartition(":")
    if not colon or not host_text or ("]" in ports_text):
        raise ValueError(f"expected host:port, found {text[:80]!r}")
    port_low, port_high = _parse_ports(ports_text, text)
    host, addresses = _parse_host(host_text)
    return Endpoint(host=host, addresses=addresses, port_low=port_low, port_high=port_high)


def _parse_url(text: str) -> Endpoint:
    try:
        parts = urlsplit(text)
        port = parts.port or _SCHEME_PORTS.get(parts.scheme)
    except ValueError as error:
        raise ValueError(f"expected a URL, found {_shown(text)!r} ({error})") from None
    if parts.username is not None or parts.password is not None:
        raise ValueError(f"expected a URL without a user name, found {_shown(text)!r}")
    if port is None or not parts.hostname:
        known = ", ".join(_SCHEME_PORTS)
        raise ValueError(f"expected host:port or a URL of the schemes {known}, found {_shown(text)!r}")
    host_text = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    host, addresses = _parse_host(host_text)
    return Endpoint(host=host, addresses=addresses, port_low=port, port_high=port)


def _shown(url: str) -> str:
    """The URL without the password that may stand in it."""
    return re.sub(r"//.*@", "//...@", url)[:80]


def _parse_ports(ports: str, text: str) -> tuple[int, int]:
    if ports == "*":
        return 1, PORT_MAX
    low, dash, high = ports.partition("-")
    if not _PORT.fullmatch(low) or (dash and not _PORT.fullmatch(high)):
        raise ValueError(
            f"expected host:port, where the port is a number, a range such as 8000-8100 or *, found {text[:80]!r}"
        )
    port_low, port_high = int(low), int(high) if dash else int(low)
    if not 1 <= port_low <= port_high <= PORT_MAX:
        raise ValueError(f"expected ports from 1 to {PORT_MAX} in rising order, found {ports!r}")
    return port_low, port_high


def _format_ports(low: int, high: int) -> str:
    if (low, high) == (1, PORT_MAX):
        return "*"
    return str(low) if low == high else f"{low}-{high}"


def _parse_host(text: str) -> tuple[str, Network | None]:
    if text.startswith("[") and text.endswith("]"):
        return _parse_addresses(text[1:-1], version=6)
    if "/" in text or re.fullmatch(r"[0-9.]+", text):
        return _parse_addresses(text, version=4)
    if ":" in text:
        raise ValueError(f"expected an IPv6 address in brackets, as in [2001:db8::1]:443, found {text[:80]!r}")
    return (text if text == "*" else _parse_name(text)), None


def _parse_addresses(text: str, *, version: int) -> tuple[str, Network]:
    if "%" in text:
        raise ValueError(f"expected an address without a zone, found {text[:80]!r}")
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        raise ValueError(f"expected an IPv{version} address or range, found {text[:80]!r} ({error})") from None
    if network.version != version:
        raise ValueError(f"expected an IPv{version} address or range, found {text[:80]!r}")
    network = _unmapped(network)
    single = network.prefixlen == network.max_prefixlen
    return str(network.network_address if single else network), network


def _unmapped(network: Network) -> Network:
    """`::ffff:10.0.0.1` reaches 10.0.0.1, so it is written and compared as that."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        return IPv4Network((network.network_address.ipv4_mapped, network.prefixlen - 96))
    return network


def _parse_name(text: str) -> str:
    name = text.lower().removesuffix(".")
    labels = name.removeprefix("*.").split(".")
    if not text.isascii():
        raise ValueError(f"expected an ASCII host name (xn--... for others), found {text[:80]!r}")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"expected a host name, *.name, an address or a range of addresses, found {text[:80]!r}")
    if _NUMBER.fullmatch(labels[-1]):
        # `127.1`, `0x7f.1` and `2130706433` are addresses to some resolvers, and would pass for names here.
        raise ValueError(f"expected an address as four numbers from 0 to 255, found {text[:80]!r}")
    return name


def _contains(outer: Network | None, inner: Network | None) -> bool:
    if isinstance(outer, IPv4Network) and isinstance(inner, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(outer, IPv6Network) and isinstance(inner, IPv6Network):
        return inner.subnet_of(outer)
    return False
