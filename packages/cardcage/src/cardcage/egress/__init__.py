"""The way out of the walls: granted connections of a plugin, made by the host, checked, counted and bounded."""

from cardcage.egress.events import EgressCount, EgressEvent, Tell, Verdict
from cardcage.egress.gateway import Gateway
from cardcage.egress.injection import Injection
from cardcage.egress.ledger import Ledger
from cardcage.egress.relay import Relay
from cardcage.egress.resolver import Resolver, SystemResolver
from cardcage.egress.rules import EgressRules

__all__ = [
    "EgressCount",
    "EgressEvent",
    "EgressRules",
    "Gateway",
    "Injection",
    "Ledger",
    "Relay",
    "Resolver",
    "SystemResolver",
    "Tell",
    "Verdict",
]
