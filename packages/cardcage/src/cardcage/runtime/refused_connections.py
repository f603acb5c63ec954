"""Connections that a supervisor refused before they came to a relay, put into the same books as a relay's refusals."""

from __future__ import annotations

import asyncio
from typing import Final

from cardcage.egress import EgressRules, Ledger, Relay, Tell
from cardcage.launch.refusals import TOO_MANY, UNIX_SOCKET, Refusal
from cardcage.launch.runner import Process
from cardcage.runtime.blueprint import Blueprint

_PATH_CHARS_MAX: Final = 512
_REASONS: Final = {
    UNIX_SOCKET: "sockets of the host's services are out of reach",
    TOO_MANY: "too many connections wait to be made",
}


def hear_refusals(blueprint: Blueprint, process: Process, relay: Relay | None, tell: Tell) -> None:
    """Have what `process` is refused without the relay's doing counted and told, at the rate of the relay's books."""
    if process.refusals is None:
        return
    ledger = relay.ledger if relay is not None else _own_ledger(blueprint, tell)
    names = {address: name for name, address in blueprint.spec.plan.network.hosts.items()}

    def note(refusal: Refusal) -> None:
        reason = _REASONS.get(refusal.why, "no grant covers it")
        ledger.refused("", _shown(refusal, names), reason, more=refusal.more)

    process.refusals.hear(note)


def _own_ledger(blueprint: Blueprint, tell: Tell) -> Ledger:
    rules = EgressRules(plugin=blueprint.plugin, instance=str(blueprint.instance))
    return Ledger(rules, tell, asyncio.get_running_loop().time)


def _shown(refusal: Refusal, names: dict[str, str]) -> str:
    """What the plugin wanted, by the name that stands for the address inside where one does."""
    if refusal.why == UNIX_SOCKET:
        return refusal.address[:_PATH_CHARS_MAX]
    host = names.get(refusal.address, refusal.address)
    return f"[{host}]:{refusal.port}" if ":" in host else f"{host}:{refusal.port}"
