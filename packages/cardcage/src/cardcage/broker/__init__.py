"""Who may speak to whom: typed calls, hooks, events, and the services that plugins may ask of the host."""

from cardcage.broker.broker import Broker, HookOutcome, HookStep, Outcome, Tool
from cardcage.broker.events import Event, EventBus
from cardcage.broker.providers import PluginInfo
from cardcage.broker.rates import CallRate
from cardcage.broker.services import Service, ServiceTable

__all__ = [
    "Broker",
    "CallRate",
    "Event",
    "EventBus",
    "HookOutcome",
    "HookStep",
    "Outcome",
    "PluginInfo",
    "Service",
    "ServiceTable",
    "Tool",
]
