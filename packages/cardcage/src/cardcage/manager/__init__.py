"""The facade that embedders import."""

from cardcage.broker import Event, HookOutcome, Outcome, PluginInfo
from cardcage.manager.live_instances import PolicyWarning, UnconfinedWarning
from cardcage.manager.manager import PluginManager
from cardcage.manager.views import PluginView, Problem
from cardcage.runtime.warden import InstanceUsage

__all__ = [
    "Event",
    "HookOutcome",
    "InstanceUsage",
    "Outcome",
    "PluginInfo",
    "PluginManager",
    "PluginView",
    "PolicyWarning",
    "Problem",
    "UnconfinedWarning",
]
