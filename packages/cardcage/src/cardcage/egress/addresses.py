"""What kind of place an address is: public, or one of those that nobody outside should be led to. Pure.

The ranges are those of the IANA special-purpose registries for IPv4 and IPv6. An address that carries another inside
(IPv4-mapped, NAT64, 6to4) is as private as the one that it carries.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_SPECIAL: Final[tuple[tuple[str, str], ...]] = (
    ("0.0.0.0/8", "unspecified"),
    ("10.0.0.0/8", "private"),
    ("100.64.0.0/10", "shared (carrier-grade NAT)"),
    ("127.0.0.0/8", "loopback"),
    ("168.63.129.16/32", "cloud platform"),
    ("169.254.0.0/16", "link-local"),
    ("172.16.0.0/12", "private"),
    ("192.0.0.0/24", "reserved"),
    ("192.0.2.0/24", "documentation"),
    ("192.88.99.0/24", "reserved"),
    ("192.168.0.0/16", "private"),
    ("198.18.0.0/15", "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24", "documentation"),
    ("224.0.0.0/4", "multicast"),
    ("240.0.0.0/4", "reserved"),
    ("::/128", "unspecified"),
    ("::1/128", "loopback"),
    ("64:ff9b:1::/48", "private NAT64"),
    ("100::/64", "discard"),
    ("2001::/23", "reserved"),
    ("2001:db8::/32", "documentation"),
    ("3fff::/20", "documentation"),
    ("fc00::/7", "private"),
    ("fe80::/10", "link-local"),
    ("fec0::/10", "site-local"),
    ("ff00::/8", "multicast"),
)
"""168.63.129.16 is a public number, behind which Azure answers every virtual machine with what is the machine's own."""

_KINDS: Final = tuple((ip_network(text), kind) for text, kind in _SPECIAL)
_GLOBAL_UNICAST: Final = ip_network("2000::/3")
_MAPPED: Final = ip_network("::ffff:0:0/96")
_COMPATIBLE: Final = ip_network("::/96")
_NAT64: Final = ip_network("64:ff9b::/96")
_SIX_TO_FOUR: Final = ip_network("2002::/16")

PUBLIC: Final = "public"

NEVER: Final = frozenset({"unspecified", "multicast"})
"""Kinds that no grant opens: nothing there is a destination of its own."""


def parse_address(text: str) -> Address:
    """The address that `text` is, without a zone. Raises `ValueError`."""
    return unwrap(ip_address(text.partition("%")[0]))


def unwrap(address: Address) -> Address:
    """An IPv4-mapped address as the IPv4 address that a connection to it reaches."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=4096)
def kind_of(address: Address) -> str:
    """`public`, or the word for what else it is: `private`, `loopback`, `link-local`, ..."""
    inner = _carried(address)
    if inner is not None:
        kind = kind_of(inner)
        return kind if kind == PUBLIC else f"{kind} in another form"
    special = next((kind for network, kind in _KINDS if address in network), None)
    if special is not None:
        return special
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return "reserved"
    return PUBLIC


def _carried(address: Address) -> IPv4Address | None:
    """The IPv4 address inside an IPv6 one, where packets to the one may end at the other."""
    if not isinstance(address, IPv6Address):
        return None
    number = int(address)
    if address in _MAPPED or address in _NAT64 or (address in _COMPATIBLE and number > 0xFFFF):
        return IPv4Address(number & 0xFFFFFFFF)
    if address in _SIX_TO_FOUR:
        return IPv4Address(number >> 80 & 0xFFFFFFFF)
    return None


@lru_cache(maxsize=4096)
def is_special_range(network: Network) -> bool:
    """Whether all of a range lies within one special range: only then does a grant of it name special addresses.

    0.0.0.0/0 is the internet to whoever writes it; it is not meant to open the machine's own loopback.
    """
    if network.prefixlen == network.max_prefixlen:
        return True
    for special, _ in _KINDS:
        if isinstance(network, IPv4Network) and isinstance(special, IPv4Network) and network.subnet_of(special):
            return True
        if isinstance(network, IPv6Network) and isinstance(special, IPv6Network) and network.subnet_of(special):
            return True
    return False
