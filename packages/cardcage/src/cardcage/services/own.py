"""The platform's own services, put on a host's table of services."""

from __future__ import annotations

from collections.abc import Callable

from cardcage.broker import Broker, ServiceTable
from cardcage.runtime import Instance
from cardcage.services.configuration import Configuration, OwnConfiguration
from cardcage.services.data_store import DataStore, PluginDataStore
from cardcage.services.event_bus import BrokerEventBus, EventBus


def offer_own(
    table: ServiceTable, broker: Broker, data_store: PluginDataStore, instance_of: Callable[[str], Instance]
) -> None:
    """Offer the data store, the event bus and the configuration; `instance_of` finds the instance behind an id."""
    table.offer(DataStore, data_store)
    table.offer(EventBus, BrokerEventBus(broker, instance_of))
    table.offer(Configuration, OwnConfiguration(lambda instance: instance_of(instance).blueprint.config))
