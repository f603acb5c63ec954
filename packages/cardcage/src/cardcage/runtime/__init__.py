"""One instance of a plugin, alive: its process, its channel, its lifecycle and what happens when it dies."""

from cardcage.runtime.blueprint import Blueprint, RuntimePolicy
from cardcage.runtime.description import HookMark, PluginDescription, ToolMark
from cardcage.runtime.health import InstanceHealth
from cardcage.runtime.instance import Instance
from cardcage.runtime.logbook import LogBook, LogLine
from cardcage.runtime.systemclock import SystemClock

__all__ = [
    "Blueprint",
    "HookMark",
    "Instance",
    "InstanceHealth",
    "LogBook",
    "LogLine",
    "PluginDescription",
    "RuntimePolicy",
    "SystemClock",
    "ToolMark",
]
