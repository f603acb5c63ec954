"""Learnt permissions made to fit more than the one run that they were learnt from: only where that is asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from cardcage.foundation.errors import Misuse
from cardcage.permissions import Permission, PermissionKind

_FILES_OF_A_FOLDER: Final = 3
_FILE_KINDS: Final = (PermissionKind.READ, PermissionKind.WRITE)


def generalise(permissions: Sequence[Permission], config: Mapping[str, Any]) -> tuple[Permission, ...]:
    """The permissions with `${config.KEY}` for what the config names, and a folder for three or more files of it.

    The root and the folders directly beneath it are never made of files.
    """
    placed = [_placed(permission, config) for permission in permissions]
    folders = Counter(folder for permission in placed if (folder := _folder(permission)) is not None)
    wide = {folder for folder, count in folders.items() if count >= _FILES_OF_A_FOLDER}
    made = (_folder(permission) if _folder(permission) in wide else permission for permission in placed)
    return tuple(sorted({permission for permission in made if permission is not None}))


def _placed(permission: Permission, config: Mapping[str, Any]) -> Permission:
    for key, value in _texts(config):
        asked = Permission(permission.kind, f"${{config.{key}}}")
        if permission.value in _spellings(permission.kind, value):
            return asked
    return permission


def _spellings(kind: PermissionKind, value: str) -> set[str]:
    """What the value means as a permission of that kind; nothing where it means none."""
    try:
        return {Permission(kind, value).value}
    except Misuse:
        return set()


def _texts(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _texts(cast("Mapping[str, Any]", value), f"{prefix}{key}.")
        elif isinstance(value, str) and "${" not in value:
            yield f"{prefix}{key}", value


def _folder(permission: Permission) -> Permission | None:
    if permission.kind not in _FILE_KINDS or permission.has_placeholders or permission.value.endswith("/"):
        return None
    folder = permission.value.rpartition("/")[0]
    return replace(permission, value=f"{folder}/") if folder.count("/") >= 2 else None
