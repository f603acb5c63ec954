"""What one instance may reach, and the check that every address goes through before it is dialled. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from cardcage.egress.addresses import NEVER, PUBLIC, Address, is_special_range, kind_of, parse_address
from cardcage.permissions.credentials import Credential
from cardcage.permissions.network import Endpoint, parse_endpoint

CONNECTIONS_MAX: Final = 128
"""Open at once for one instance. A client keeps a handful for each endpoint; hundreds are a leak or an attack."""

CONNECT_TIMEOUT_S: Final = 10.0
"""For finding an address, and again for each address that is tried."""

IDLE_TIMEOUT_S: Final = 900.0
"""Without a byte either way. Pools of databases keep connections idle for minutes, and seldom for more."""

_LOCALHOST: Final = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One host and port that some grant covers."""

    host: str
    port: int
    endpoint: str
    """Both together, in the one spelling that grants and credentials are compared by."""
    grant: str
    """The narrowest grant that covers it: what its bytes are counted under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EgressRules:
    """Everything that decides where the connections of one instance may go."""

    plugin: str
    instance: str
    endpoints: tuple[Endpoint, ...] = ()
    """What the instance asked for and was granted."""
    granted: tuple[Endpoint, ...] = ()
    """All of the operator's network grants: only an address or range among them opens what is not public."""
    hosts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names that the operator maps to an address himself; the mapping is the grant of that address."""
    credentials: tuple[Credential, ...] = ()
    bytes_per_s: int | None = None
    """In each direction, for all connections together."""
    connections_max: int = CONNECTIONS_MAX
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    idle_timeout_s: float = IDLE_TIMEOUT_S

    def target(self, host: str, port: int) -> Target | None:
        """Where a connection to `host` (a name or an address) and `port` goes; None where no grant covers it."""
        try:
            asked = parse_endpoint(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except ValueError:
            return None
        if asked.host.startswith("*") or "/" in asked.host or asked.port_low != asked.port_high:
            return None
        covering = [endpoint for endpoint in self.endpoints if endpoint.covers(asked)]
        if not covering:
            return None
        return Target(host=asked.host, port=asked.port_low, endpoint=str(asked), grant=str(min(covering, key=_width)))

    def listed_target(self, endpoint: str) -> Target | None:
        """The same for an endpoint of the plan, as `host:port`."""
        asked = parse_endpoint(endpoint)
        return self.target(asked.host, asked.port_low)

    def fixed_addresses(self, host: str) -> tuple[str, ...] | None:
        """The addresses of a host that is not to be looked up: an address, `localhost`, or a name of the operator's."""
        if host in self.hosts:
            return (self.hosts[host],)
        if host == "localhost" or host.endswith(".localhost"):
            return _LOCALHOST
        try:
            return (str(parse_address(host)),)
        except ValueError:
            return None

    def refuses(self, host: str, address: Address, port: int) -> str | None:
        """Why `address`, which stands for `host`, may not be dialled; None where it may."""
        kind = kind_of(address)
        if kind in NEVER:
            return f"{address} is {_article(kind)} {kind} address, which is no destination"
        if kind == PUBLIC or self._operator_chose(host, address) or self._names(address, port):
            return None
        what = f"{host} is" if host == str(address) else f"{host} is {address},"
        return f"{what} {_article(kind)} {kind} address that no grant names"

    def credential(self, endpoint: str) -> Credential | None:
        """The credential that the host adds to requests to `endpoint` (`host:port`)."""
        return next((each for each in self.credentials if each.endpoint == endpoint), None)

    def _operator_chose(self, host: str, address: Address) -> bool:
        if host in self.hosts:
            return parse_address(self.hosts[host]) == address
        # By the standard (RFC 6761) the name is the machine itself, and whoever grants it means that.
        return (host == "localhost" or host.endswith(".localhost")) and str(address) in _LOCALHOST

    def _names(self, address: Address, port: int) -> bool:
        asked = Endpoint(host=str(address), addresses=_single(address), port_low=port, port_high=port)
        return any(
            grant.addresses is not None and is_special_range(grant.addresses) and grant.covers(asked)
            for grant in self.granted
        )


def _single(address: Address) -> IPv4Network | IPv6Network:
    return IPv4Network(address) if address.version == 4 else IPv6Network(address)


def _width(endpoint: Endpoint) -> tuple[int, int, int]:
    if endpoint.addresses is not None:
        hosts = endpoint.addresses.max_prefixlen - endpoint.addresses.prefixlen
    else:
        hosts = 1000 if endpoint.host == "*" else 500 - len(endpoint.host) if endpoint.host[0] == "*" else 0
    return hosts, endpoint.port_high - endpoint.port_low, endpoint.port_low


def _article(kind: str) -> str:
    return "an" if kind[0] in "aeiou" else "a"
