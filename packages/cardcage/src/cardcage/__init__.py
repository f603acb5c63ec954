"""Cardcage: third-party plugins, verified, walled, supervised and called through typed interfaces.

The public face of the library. Names are loaded when they are first used, so that the fork server, which imports
`cardcage.sandbox` alone, stays small.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cardcage.contracts import extension_point as extension_point
    from cardcage.foundation.errors import CardcageError as CardcageError
    from cardcage.foundation.errors import InvalidDocument as InvalidDocument
    from cardcage.foundation.errors import Misuse as Misuse
    from cardcage.foundation.errors import PluginFault as PluginFault
    from cardcage.foundation.errors import Refused as Refused
    from cardcage.foundation.errors import Unavailable as Unavailable
    from cardcage.manager import PluginManager as PluginManager
    from cardcage_sdk.status import PluginStatus as PluginStatus

_HOME = {
    "CardcageError": "cardcage.foundation.errors",
    "InvalidDocument": "cardcage.foundation.errors",
    "Misuse": "cardcage.foundation.errors",
    "PluginFault": "cardcage.foundation.errors",
    "PluginManager": "cardcage.manager",
    "PluginStatus": "cardcage_sdk.status",
    "Refused": "cardcage.foundation.errors",
    "Unavailable": "cardcage.foundation.errors",
    "extension_point": "cardcage.contracts",
}

__all__ = [*sorted(_HOME), "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'cardcage' has no attribute {name!r}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
