"""What a plugin is given for one analysis: the config keys that it knows, and no permission that it did not ask for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cardcage.manager import PluginView
from cardcage.permissions import PermissionKind
from cardcage_finops.extension_points import CAPABILITIES
from cardcage_finops.places import plugin_dirs


def fitted_config(plugin: PluginView, offered: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `offered` that the plugin's config schema has a property for."""
    schema = plugin.manifest.config_schema or {}
    known: Mapping[str, Any] = schema.get("properties", {})
    return {key: value for key, value in offered.items() if key in known}


def capability_grants(plugin: PluginView) -> list[str]:
    """The capabilities of this pack that a plugin shipped with it asks for. Others get theirs from the operator."""
    if not is_shipped(plugin.package_dir):
        return []
    asked = (request.permission for request in plugin.manifest.permissions)
    return [str(one) for one in asked if one.kind is PermissionKind.CAPABILITY and one.value in CAPABILITIES]


def is_shipped(package_dir: Path) -> bool:
    """Whether a plugin stands in a folder of this pack."""
    return any(folder.resolve() in package_dir.resolve().parents for folder in plugin_dirs())
