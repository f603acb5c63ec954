"""What of the network a plugin sees: listeners inside its own namespace, one for each granted endpoint. Pure.

Each granted endpoint stands inside at an address of the plugin's own loopback interface. A name gets an address from
127.100.0.0/24 and a line in the hosts file; a granted address is listened on as it is. What cannot be listed, because
it is a pattern of names, a range of addresses or too many ports, goes by a proxy on one more such listener.

The fork server reads these types too, so this module imports msgspec alone; the grammar of endpoints is imported where
a plan is made.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from cardcage.permissions.network import Endpoint

LISTENERS_MAX: Final = 64
"""What is listed one by one. A listener is a descriptor and a task of the host; a plugin that needs more ports than
this asks for a range, which the proxy serves with one."""

PROXY_ADDRESS: Final = "127.100.0.1"
PROXY_PORT: Final = 3128
_NAMES_PREFIX: Final = "127.100.0."
_FIRST_NAME, _LAST_NAME = 2, 254

_LOCALHOST: Final = ("127.0.0.1", "::1")

HTTP_PORT: Final = 80


class Listener(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An address and port inside, and the endpoint outside that a connection there is meant for."""

    address: str
    port: int
    endpoint: str
    """`api.example.com:443`, `10.0.0.5:5432`, `[::1]:80`; empty for the proxy."""
    upgraded: bool = False
    """Plain HTTP inside, for an endpoint that is TLS outside: only where the host adds a credential."""

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


class NetworkPlan(msgspec.Struct, frozen=True, kw_only=True):
    """The reachable endpoints. The network namespace holds nothing but its own loopback and these listeners."""

    endpoints: tuple[str, ...] = ()
    """What was granted, as it was written."""
    listeners: tuple[Listener, ...] = ()
    proxy: Listener | None = None
    """The listener of the CONNECT proxy, where something is reached by it alone."""
    proxied: tuple[str, ...] = ()
    """The grants that only the proxy serves."""
    unreachable: tuple[str, ...] = ()
    """Grants of addresses that nothing can be connected to, such as 0.0.0.0."""
    hosts: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    """Name to address, for the hosts file inside."""

    @property
    def all_listeners(self) -> tuple[Listener, ...]:
        """Every listener, the proxy's last."""
        return self.listeners if self.proxy is None else (*self.listeners, self.proxy)

    @property
    def ports(self) -> tuple[int, ...]:
        """The ports that a plugin has a reason to connect to."""
        return tuple(sorted({listener.port for listener in self.all_listeners}))

    def hosts_text(self) -> str:
        """The lines of the hosts file for the granted names."""
        return "".join(f"{address} {name}\n" for name, address in self.hosts.items())

    def environment(self) -> dict[str, str]:
        """The variables by which clients find the proxy; none where there is no proxy."""
        if self.proxy is None:
            return {}
        address = f"http://{self.proxy}"
        direct = ",".join(self._direct())
        return {
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), address),
            **dict.fromkeys(("NO_PROXY", "no_proxy"), direct),
        }

    def _direct(self) -> list[str]:
        """What clients are told not to use the proxy for.

        A name there speaks for all names beneath it as well, so one with proxied names beneath it is left to the proxy,
        which serves it too.
        """
        hosts = [grant.rpartition(":")[0] for grant in self.proxied]
        if "*" in hosts:
            names: list[str] = []
        else:
            beneath = ["." + host.removeprefix("*.") for host in hosts]
            names = [name for name in self.hosts if not any(host.endswith(f".{name}") for host in beneath)]
        literals = {listener.address for listener in self.listeners if not listener.address.startswith(_NAMES_PREFIX)}
        return ["localhost", *_LOCALHOST, *sorted(literals - set(_LOCALHOST)), *names]


def plan_network(granted: Iterable[str], *, injected: Iterable[str] = ()) -> NetworkPlan:
    """Where each granted endpoint stands inside.

    `injected` are the granted endpoints to which the host adds a credential: on port 80 they can be spoken to in plain
    HTTP as well.
    """
    from cardcage.permissions.network import parse_endpoint

    texts = tuple(sorted(set(granted)))
    if not texts:
        return NetworkPlan()
    endpoints = sorted(map(parse_endpoint, texts), key=_narrow_first)
    listed, proxied, unreachable = _divide(endpoints)
    hosts = _place_names(listed)
    listeners: dict[tuple[str, int], Listener] = {}
    for endpoint in listed:
        for listener in _listeners_of(endpoint, hosts):
            listeners.setdefault((listener.address, listener.port), listener)
    upgraded = set(injected)
    for listener in tuple(listeners.values()):
        if listener.endpoint in upgraded:
            plain = Listener(address=listener.address, port=HTTP_PORT, endpoint=listener.endpoint, upgraded=True)
            listeners.setdefault((plain.address, plain.port), plain)
    return NetworkPlan(
        endpoints=texts,
        listeners=tuple(listeners.values()),
        proxy=Listener(address=PROXY_ADDRESS, port=PROXY_PORT, endpoint="") if proxied else None,
        proxied=tuple(map(str, proxied)),
        unreachable=tuple(map(str, unreachable)),
        hosts={name: address for name, address in hosts.items() if name != "localhost"},
    )


def _narrow_first(endpoint: Endpoint) -> tuple[int, str, int]:
    return endpoint.port_high - endpoint.port_low, endpoint.host, endpoint.port_low


def _divide(endpoints: Sequence[Endpoint]) -> tuple[list[Endpoint], list[Endpoint], list[Endpoint]]:
    """Those that are listed one by one, those left to the proxy, and those that nothing can connect to."""
    listed: list[Endpoint] = []
    proxied: list[Endpoint] = []
    unreachable: list[Endpoint] = []
    left = LISTENERS_MAX
    for endpoint in endpoints:
        count = (endpoint.port_high - endpoint.port_low + 1) * (2 if endpoint.host == "localhost" else 1)
        if _names_nothing(endpoint):
            unreachable.append(endpoint)
        elif _is_pattern(endpoint) or count > left:
            proxied.append(endpoint)
        else:
            listed.append(endpoint)
            left -= count
    return listed, proxied, unreachable


def _is_pattern(endpoint: Endpoint) -> bool:
    if endpoint.addresses is not None:
        return endpoint.addresses.prefixlen != endpoint.addresses.max_prefixlen or endpoint.host == PROXY_ADDRESS
    return endpoint.host.startswith("*")


def _names_nothing(endpoint: Endpoint) -> bool:
    """Whether it is a single address that is no destination of TCP, or that has no meaning without an interface."""
    if endpoint.addresses is None or _is_pattern(endpoint):
        return False
    address = endpoint.addresses.network_address
    broadcast = str(address) == "255.255.255.255"
    return (
        address.is_unspecified or address.is_multicast or broadcast or (address.version == 6 and address.is_link_local)
    )


def _place_names(endpoints: Iterable[Endpoint]) -> dict[str, str]:
    """An address for each name, in order; the addresses that are granted as such are left out."""
    taken = {endpoint.host for endpoint in endpoints}
    free = (
        address for number in range(_FIRST_NAME, _LAST_NAME + 1) if (address := f"{_NAMES_PREFIX}{number}") not in taken
    )
    placed: dict[str, str] = {}
    for endpoint in sorted(endpoints, key=lambda endpoint: endpoint.host):
        if endpoint.addresses is None and endpoint.host not in placed:
            placed[endpoint.host] = _LOCALHOST[0] if endpoint.host == "localhost" else next(free)
    return placed


def _listeners_of(endpoint: Endpoint, hosts: Mapping[str, str]) -> list[Listener]:
    if endpoint.host == "localhost":
        addresses: tuple[str, ...] = _LOCALHOST
    else:
        addresses = (hosts.get(endpoint.host, endpoint.host),)
    shown = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    return [
        Listener(address=address, port=port, endpoint=f"{shown}:{port}")
        for port in range(endpoint.port_low, endpoint.port_high + 1)
        for address in addresses
    ]
