"""The tools/resources/status spelling of a plugin's life, one instance for each cluster."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardcage_sdk.context import PluginContext


@dataclass
class ClusterConfig:
    """One cluster that a plugin looks after: an instance's config, under the names of this spelling."""

    cluster_id: str
    name: str
    region: str
    plugin_type: str
    config: dict[str, Any] = field(default_factory=dict[str, Any])


class PluginBase(ABC):
    """A plugin that offers tools to agents and reports on resources. `context` is set before `__init__` runs.

    Everything has a working default; define what the plugin has. `PLUGIN_TYPE` and its neighbours describe it.
    """

    PLUGIN_TYPE: str = ""
    PLUGIN_NAME: str = ""
    PLUGIN_DESCRIPTION: str = ""
    PLUGIN_ICON: str = ""

    context: PluginContext
    config: ClusterConfig | None = None

    def __init__(self, config: ClusterConfig | None = None) -> None:
        self.config = config

    def initialize(self) -> bool:
        """Make ready for work; False refuses the start."""
        return True

    def health_check(self) -> dict[str, Any]:
        """How the plugin is; `status` is `healthy` unless a subclass knows better."""
        return {"status": "healthy"}

    def get_tools(self) -> list[Callable[..., Any]]:
        """The functions offered to agents, marked with `@tool` or plain."""
        return []

    def get_resources(self) -> list[dict[str, Any]]:
        """What the plugin looks after, one mapping for each."""
        return []

    def get_status_summary(self) -> dict[str, Any]:
        """A few facts for an overview."""
        return {
            "type": self.PLUGIN_TYPE,
            "name": self.PLUGIN_NAME,
            "cluster": self.config.name if self.config else None,
            "resources": len(self.get_resources()),
            "status": self.health_check().get("status"),
        }
