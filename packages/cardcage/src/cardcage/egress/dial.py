"""From a wanted endpoint to a connected socket: resolve once, check every address, dial those very addresses."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import dataclass

from cardcage.egress.addresses import Address, parse_address
from cardcage.egress.resolver import Resolver
from cardcage.egress.rules import EgressRules, Target


class DialRefused(Exception):
    """A rule forbids the connection. The text says which."""


class DialFailed(Exception):
    """The connection is allowed, and could not be made."""


@dataclass(frozen=True, slots=True)
class Dialled:
    """A connected socket and the address that it goes to."""

    sock: socket.socket
    address: str


async def dial(rules: EgressRules, resolver: Resolver, target: Target) -> Dialled:
    """Connect to `target`. Raises `DialRefused` or `DialFailed`.

    The name is looked up once. Where a single address of the answer is not allowed the whole answer is refused: a
    server that mixes them is trying something.
    """
    host, port = target.host, target.port
    addresses = await _addresses(rules, resolver, target)
    for address in addresses:
        reason = rules.refuses(host, address, port)
        if reason is not None:
            raise DialRefused(reason)
    failures: list[str] = []
    for address in addresses:
        try:
            return Dialled(await _connect(address, port, rules.connect_timeout_s), str(address))
        except TimeoutError:
            failures.append(f"{address} did not answer within {rules.connect_timeout_s:g} s")
        except OSError as error:
            # The loop puts words of its own into `strerror`, with the address once more.
            failures.append(f"{address}: {os.strerror(error.errno) if error.errno else error}")
    raise DialFailed("; ".join(failures))


async def _addresses(rules: EgressRules, resolver: Resolver, target: Target) -> list[Address]:
    host, port = target.host, target.port
    fixed = rules.fixed_addresses(host)
    if fixed is not None:
        return [parse_address(text) for text in fixed]
    try:
        async with asyncio.timeout(rules.connect_timeout_s):
            found = await resolver.resolve(host, port)
    except TimeoutError:
        raise DialFailed(f"{host} was not resolved within {rules.connect_timeout_s:g} s") from None
    except (OSError, UnicodeError) as error:
        raise DialFailed(f"{host} cannot be resolved: {getattr(error, 'strerror', None) or error}") from None
    if not found:
        raise DialFailed(f"{host} has no address")
    return [parse_address(text) for text in found[:_ADDRESSES_TRIED_MAX]]


_ADDRESSES_TRIED_MAX = 8


async def _connect(address: Address, port: int, timeout_s: float) -> socket.socket:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().sock_connect(sock, (str(address), port))
    except BaseException:
        sock.close()
        raise
    return sock
