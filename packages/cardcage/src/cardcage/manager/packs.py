"""Installed packs, and where the Python packages stand that plugins may import."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from cardcage.contracts.pack import ENTRY_POINT_GROUP, Pack
from cardcage.foundation.errors import Misuse

SDK_LIBRARIES: Final = ("cardcage_sdk", "msgspec")
"""What every Python plugin can import besides the standard library: the SDK and the one library that it stands on."""


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
    names = dict.fromkeys([*SDK_LIBRARIES, *(name for pack in packs for name in pack.libraries)])
    return tuple((name, _package_dir(name)) for name in names)


def _package_dir(name: str) -> Path:
    spec = find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise Misuse(
            f"plugins are to import the Python package {name!r}, but it is not installed beside the host",
            code="library_missing",
        )
    return Path(places[0]).resolve()
