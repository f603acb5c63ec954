"""The event bus as a service, for plugins that rather call than speak in events. The guard is the broker's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from cardcage.broker import Broker, PluginInfo
from cardcage.contracts import service
from cardcage.runtime import Instance


@service("event_bus", capability=None)
class EventBus(Protocol):
    """Facts, published once and handed to everyone whose pattern matches and who may hear them."""

    async def publish(self, event_type: str, data: Any = None) -> bool:
        """Publish a fact; False where its name is none that a plugin may publish."""
        ...

    async def subscribe(self, pattern: str) -> None:
        """Have matching events delivered to `handle_event`."""
        ...


class BrokerEventBus:
    """`EventBus` over the broker; `instance_of` finds the instance behind an id."""

    def __init__(self, broker: Broker, instance_of: Callable[[str], Instance]) -> None:
        self._broker = broker
        self._instance_of = instance_of

    async def publish(self, caller: PluginInfo, event_type: str, data: Any) -> bool:
        """Publish a fact."""
        return self._broker.publish_from(self._instance_of(caller.instance), event_type, data)

    async def subscribe(self, caller: PluginInfo, pattern: str) -> None:
        """Have matching events delivered."""
        self._broker.subscribe_instance(self._instance_of(caller.instance), pattern)
