"""What a plugin says of itself when it has been loaded: the answer to `cardcage.load`.

It comes from inside the walls and is believed only as far as its types go; a wrong shape is the plugin's fault.
"""

from __future__ import annotations

from typing import Any

import msgspec


class MethodMark(msgspec.Struct, frozen=True, kw_only=True):
    """A method that the host may call by name."""

    name: str
    stream: bool = False
    doc: str = ""


class HookMark(msgspec.Struct, frozen=True, kw_only=True):
    """A method that joins the chain of a hook; the lower priority runs earlier."""

    name: str
    method: str
    priority: int = 50


class ToolMark(msgspec.Struct, frozen=True, kw_only=True):
    """A function offered to agents; `parameters` is a JSON Schema."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=dict[str, Any])


class ScheduleMark(msgspec.Struct, frozen=True, kw_only=True):
    """A method to be run by the clock."""

    cron: str
    method: str


class PluginDescription(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer. `style` names the spelling of the lifecycle that the plugin was written in."""

    style: str = "plugin"
    methods: tuple[MethodMark, ...] = ()
    hooks: tuple[HookMark, ...] = ()
    events: tuple[str, ...] = ()
    tools: tuple[ToolMark, ...] = ()
    schedules: tuple[ScheduleMark, ...] = ()
    metadata: dict[str, Any] | None = None
    config_schema: dict[str, Any] | None = None
    capabilities: dict[str, Any] | None = None

    def method_names(self) -> frozenset[str]:
        """The names of all callable methods."""
        return frozenset(method.name for method in self.methods)
