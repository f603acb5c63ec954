"""The spelling with tools, resources and a status summary, one instance for each cluster."""

from collections.abc import Callable
from typing import Any

from cardcage_sdk import PluginBase, tool


class ClusterWatch(PluginBase):
    """Knows the pods of one cluster, which its config lists."""

    PLUGIN_TYPE = "cluster"
    PLUGIN_NAME = "Cluster watch"
    PLUGIN_DESCRIPTION = "Knows the pods of one cluster."
    PLUGIN_ICON = "layers"

    def initialize(self) -> bool:
        self._pods: dict[str, str] = dict(self.context.config["pods"])
        return True

    def health_check(self) -> dict[str, Any]:
        waiting = [name for name, state in self._pods.items() if state != "Running"]
        return {"status": "degraded" if waiting else "healthy", "waiting": waiting}

    def get_tools(self) -> list[Callable[..., Any]]:
        @tool
        def get_pods(state: str | None = None) -> list[str]:
            """The names of the pods, all or those in one state."""
            return [name for name, found in self._pods.items() if state in (None, found)]

        return [get_pods]

    def get_resources(self) -> list[dict[str, Any]]:
        return [{"kind": "pod", "name": name, "state": state} for name, state in self._pods.items()]
