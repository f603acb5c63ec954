"""The base classes in one place: `from cardcage_sdk.plugins import BasePlugin, PluginMetadata, PluginContext`."""

from __future__ import annotations

from cardcage_sdk.base_plugin import AIPlugin, BasePlugin, BlockchainPlugin, CLIPlugin, PluginMetadata
from cardcage_sdk.cloudmind import CloudMindPlugin, CloudMindPluginBase
from cardcage_sdk.context import PluginContext
from cardcage_sdk.plugin import Plugin
from cardcage_sdk.plugin_base import ClusterConfig, PluginBase
from cardcage_sdk.status import PluginStatus

__all__ = [
    "AIPlugin",
    "BasePlugin",
    "BlockchainPlugin",
    "CLIPlugin",
    "CloudMindPlugin",
    "CloudMindPluginBase",
    "ClusterConfig",
    "Plugin",
    "PluginBase",
    "PluginContext",
    "PluginMetadata",
    "PluginStatus",
]
