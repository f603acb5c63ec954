"""What the platform itself offers to plugins, as typed services: a data store, the event bus, their configuration.

Each is a Protocol with the name and the capability under which plugins call it, and one implementation over a port.
Packs add theirs in the same way.
"""

from cardcage.services.configuration import Configuration, OwnConfiguration
from cardcage.services.data_store import DataStore, PluginDataStore
from cardcage.services.event_bus import BrokerEventBus, EventBus
from cardcage.services.own import offer_own
from cardcage.services.quota import DataQuota
from cardcage.services.shelf import Batch, Committed, Conflict, Item, MemoryShelf, Shelf, Usage

__all__ = [
    "Batch",
    "BrokerEventBus",
    "Committed",
    "Configuration",
    "Conflict",
    "DataQuota",
    "DataStore",
    "EventBus",
    "Item",
    "MemoryShelf",
    "OwnConfiguration",
    "PluginDataStore",
    "Shelf",
    "Usage",
    "offer_own",
]
