"""The load/validate/capabilities/shutdown spelling of a plugin's life."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from cardcage_sdk.context import PluginContext


@runtime_checkable
class CloudMindPlugin(Protocol):
    """What a plugin of this spelling can do; a class that has the four methods needs no base class."""

    def load(self, config: dict[str, Any]) -> None:
        """Take the instance's config. Called once, before anything else."""
        ...

    def validate(self) -> bool:
        """Whether the plugin can work as configured; False refuses the start."""
        ...

    def capabilities(self) -> dict[str, Any]:
        """What the plugin can do, as plain data."""
        ...

    def shutdown(self) -> None:
        """Let go of everything. The last call."""
        ...


class CloudMindPluginBase:
    """The same with working defaults: define only what differs. `context` is set before `__init__` runs."""

    context: PluginContext

    def load(self, config: dict[str, Any]) -> None:
        """Take the instance's config; by default it is not kept here (it is in `context.config`)."""

    def validate(self) -> bool:
        """True: nothing to object to."""
        return True

    def capabilities(self) -> dict[str, Any]:
        """Nothing beyond the methods themselves."""
        return {}

    def shutdown(self) -> None:
        """Nothing to let go of."""
