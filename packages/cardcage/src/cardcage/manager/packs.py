"""Installed packs, and where the Python packages stand that plugins may import."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from cardcage.contracts.pack import ENTRY_POINT_GROUP, Pack
from cardcage.foundation.errors import Misuse
from cardcage.sandbox.python_layout import core_libraries, find_library


def installed_packs() -> tuple[Pack, ...]:
    """The packs of this Python environment, ordered by name. Raises `Misuse` for one that cannot be loaded."""
    packs: list[Pack] = []
    for entry in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda one: one.name):
        try:
            pack = entry.load()
        except Exception as error:
            raise Misuse(
                f"the pack {entry.name!r} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}",
                code="pack_broken",
            ) from error
        if not isinstance(pack, Pack):
            raise Misuse(
                f"the pack {entry.name!r} ({entry.value}) is a {type(pack).__name__}, expected a Pack",
                code="pack_broken",
            )
        packs.append(pack)
    return tuple(packs)


def library_dirs(packs: Iterable[Pack]) -> Sequence[tuple[str, Path]]:
    """Name and folder of every Python package that plugins may import: the SDK's own and those of the packs."""
    return (*core_libraries(), *map(find_library, dict.fromkeys(name for pack in packs for name in pack.libraries)))
