"""A pack: what an installed product adds to the platform. The core knows none of them by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ENTRY_POINT_GROUP: Final = "cardcage.packs"
"""The group of packaging entry points under which installed packs are found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pack:
    """Extension points, plugin types, libraries, capabilities and plugins that come together.

    `plugin_types` maps a manifest's `type` (such as `optimizer`) to the reference of the extension point that plugins
    of this type provide (such as `optimizer@1`). `libraries` are names of Python packages that plugins may import.
    `capabilities` are the names that a manifest may ask for, each with a sentence of help; `services` are Protocol
    classes declared with `@service`, which the pack's own code offers (`PluginManager.offer_service`). `plugin_dirs`
    hold the plugins that come with the pack. `cli` names a typer app as `module:attribute`; its commands stand under
    the pack's name (`cardcage finops ...`), and the module is imported only when one of them is used.
    """

    name: str
    extension_points: tuple[type, ...] = ()
    plugin_types: Mapping[str, str] = field(default_factory=dict[str, str])
    libraries: tuple[str, ...] = ()
    capabilities: Mapping[str, str] = field(default_factory=dict[str, str])
    services: tuple[type, ...] = ()
    plugin_dirs: tuple[Path, ...] = ()
    cli: str | None = None
