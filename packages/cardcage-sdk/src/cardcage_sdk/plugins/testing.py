"""The test kit under the name that goes with `cardcage_sdk.plugins`."""

from __future__ import annotations

from cardcage_sdk.testing import CallFault, LocalHost, PluginTestCase

__all__ = ["CallFault", "LocalHost", "PluginTestCase"]
