"""Adapters that remember: the registry and what plugins keep, in one SQLite file, or in memory.

The names are loaded when first used, so that a program with `MemoryStore` never loads SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cardcage.storage.memory import MemoryStore as MemoryStore
    from cardcage.storage.sql import SqlStore as SqlStore
    from cardcage.storage.sql_shelf import SqlShelf as SqlShelf

_HOME = {
    "MemoryStore": "cardcage.storage.memory",
    "SqlShelf": "cardcage.storage.sql_shelf",
    "SqlStore": "cardcage.storage.sql",
}

__all__ = ["MemoryStore", "SqlShelf", "SqlStore"]


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'cardcage.storage' has no attribute {name!r}")
    return getattr(import_module(home), name)
