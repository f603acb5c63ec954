"""Puts the shipped plugins into what is built: beside the packages in a checkout, inside the package once installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ShippedPlugins(BuildHookInterface[Any]):
    """Takes `plugins/` from the checkout, or from the source archive that one was built into."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the folder to what is built; an editable install finds it in the checkout."""
        if version == "editable":
            return
        root = Path(self.root)
        places = [folder for folder in (root / "plugins", root.parents[1] / "plugins") if folder.is_dir()]
        if not places:
            raise FileNotFoundError(f"the shipped plugins stand neither in {root} nor beside the packages")
        target = "plugins" if self.target_name == "sdist" else "cardcage_finops/plugins"
        build_data["force_include"][str(places[0])] = target
