"""The FinOps pack as the platform finds it: extension points, plugin types, capabilities, shipped plugins, commands."""

from __future__ import annotations

from typing import Final

from cardcage.contracts.pack import Pack
from cardcage_finops.extension_points import CAPABILITIES, EXTENSION_POINTS, LIBRARIES, PLUGIN_TYPES
from cardcage_finops.places import plugin_dirs
from cardcage_finops.services import SERVICES

PACK: Final = Pack(
    name="finops",
    extension_points=EXTENSION_POINTS,
    plugin_types=PLUGIN_TYPES,
    libraries=LIBRARIES,
    capabilities=CAPABILITIES,
    services=SERVICES,
    plugin_dirs=plugin_dirs(),
    cli="cardcage_finops.cli:app",
)
