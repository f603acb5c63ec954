"""What instances need from whoever keeps them: a Protocol, which the manager answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from cardcage.egress import EgressEvent

if TYPE_CHECKING:
    from cardcage.runtime.instance import Instance


class InstanceHost(Protocol):
    """What an instance needs from whoever keeps it."""

    async def call_from(self, instance: Instance, method: str, args: Any) -> Any:
        """A call that the plugin makes into the host."""
        ...

    def event_from(self, instance: Instance, name: str, data: Any) -> None:
        """An event that the plugin publishes."""
        ...

    def metric_from(self, instance: Instance, name: str, kind: str, value: float, tags: Mapping[str, str]) -> None:
        """A measurement that the plugin reports."""
        ...

    def lifecycle_event(self, instance: Instance, name: str, data: Mapping[str, Any]) -> None:
        """Something happened to the instance: `plugin.started`, `plugin.crashed`, ..."""
        ...

    def egress_event(self, instance: Instance, event: EgressEvent) -> None:
        """A connection of the plugin was made, refused, or has ended."""
        ...
