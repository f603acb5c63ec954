"""The states that a plugin passes through. The host's lifecycle table is written in the same words."""

from __future__ import annotations

from enum import StrEnum


class PluginStatus(StrEnum):
    """Where a plugin stands in its life, from being found to being forgotten."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    LOADED = "loaded"
    ACTIVE = "active"
    INACTIVE = "inactive"
    ERROR = "error"
    UNLOADING = "unloading"
