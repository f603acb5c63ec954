"""The facade that embedders import."""

from cardcage.broker import Event, HookOutcome, Outcome, PluginInfo
from cardcage.manager.manager import PluginManager, UnconfinedWarning
from cardcage.manager.views import PluginView, Problem

__all__ = [
    "Event",
    "HookOutcome",
    "Outcome",
    "PluginInfo",
    "PluginManager",
    "PluginView",
    "Problem",
    "UnconfinedWarning",
]
