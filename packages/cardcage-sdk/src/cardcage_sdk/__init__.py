"""What a Python plugin for Cardcage imports: base classes, decorators, and the way to its context.

Names are loaded when they are first used, so that the fork server, which imports `cardcage_sdk.serve`, stays small.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cardcage_sdk.base_plugin import AIPlugin as AIPlugin
    from cardcage_sdk.base_plugin import BasePlugin as BasePlugin
    from cardcage_sdk.base_plugin import BlockchainPlugin as BlockchainPlugin
    from cardcage_sdk.base_plugin import CLIPlugin as CLIPlugin
    from cardcage_sdk.base_plugin import PluginMetadata as PluginMetadata
    from cardcage_sdk.cloudmind import CloudMindPlugin as CloudMindPlugin
    from cardcage_sdk.cloudmind import CloudMindPluginBase as CloudMindPluginBase
    from cardcage_sdk.context import ApiClient as ApiClient
    from cardcage_sdk.context import CallCancelled as CallCancelled
    from cardcage_sdk.context import CurrentCall as CurrentCall
    from cardcage_sdk.context import EventBus as EventBus
    from cardcage_sdk.context import HostError as HostError
    from cardcage_sdk.context import Metrics as Metrics
    from cardcage_sdk.context import PluginContext as PluginContext
    from cardcage_sdk.context import current_call as current_call
    from cardcage_sdk.context import current_context as current_context
    from cardcage_sdk.decorators import hook as hook
    from cardcage_sdk.decorators import on_event as on_event
    from cardcage_sdk.decorators import schedule as schedule
    from cardcage_sdk.decorators import tool as tool
    from cardcage_sdk.plugin import Plugin as Plugin
    from cardcage_sdk.plugin_base import ClusterConfig as ClusterConfig
    from cardcage_sdk.plugin_base import PluginBase as PluginBase
    from cardcage_sdk.status import PluginStatus as PluginStatus

_HOME = {
    "AIPlugin": "base_plugin",
    "ApiClient": "context",
    "BasePlugin": "base_plugin",
    "BlockchainPlugin": "base_plugin",
    "CLIPlugin": "base_plugin",
    "CallCancelled": "context",
    "CloudMindPlugin": "cloudmind",
    "CloudMindPluginBase": "cloudmind",
    "ClusterConfig": "plugin_base",
    "CurrentCall": "context",
    "EventBus": "context",
    "HostError": "context",
    "Metrics": "context",
    "Plugin": "plugin",
    "PluginBase": "plugin_base",
    "PluginContext": "context",
    "PluginMetadata": "base_plugin",
    "PluginStatus": "status",
    "current_call": "context",
    "current_context": "context",
    "hook": "decorators",
    "on_event": "decorators",
    "schedule": "decorators",
    "tool": "decorators",
}

__all__ = [*sorted(_HOME), "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'cardcage_sdk' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"cardcage_sdk.{home}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
