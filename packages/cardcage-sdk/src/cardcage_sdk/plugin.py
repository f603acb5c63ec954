"""`Plugin`, the base class of Cardcage's own spelling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

    from cardcage_sdk.context import PluginContext


class Plugin:
    """A plugin: its public methods are what the host can call.

    These may be defined, plain or `async`, and are called when their time comes: `initialize()`, `start()`, `stop()`,
    `cleanup()` (False means failure), `health_check()` (a mapping), `handle_event(event_type, data)`,
    `get_config_schema()`. `context` and `config` are set before `__init__` runs.
    """

    context: PluginContext
    config: dict[str, Any]

    @property
    def logger(self) -> logging.Logger:
        """The plugin's own logger; its lines reach the host's log."""
        return self.context.logger
