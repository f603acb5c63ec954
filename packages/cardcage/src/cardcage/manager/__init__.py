"""The facade that embedders import."""

from cardcage.broker import Event, HookOutcome, Outcome, PluginInfo
from cardcage.manager.live_instances import PolicyWarning, UnconfinedWarning
from cardcage.manager.manager import PluginManager
from cardcage.manager.views import PluginView, Problem

__all__ = [
    "Event",
    "HookOutcome",
    "Outcome",
    "PluginInfo",
    "PluginManager",
    "PluginView",
    "PolicyWarning",
    "Problem",
    "UnconfinedWarning",
]
