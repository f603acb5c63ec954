"""The host configuration of commands: `host.yaml` in the state folder, where there is one.

It is what an embedding program passes to `PluginManager`: where secrets are, which names lead where, what is added to a
plugin's requests. Whoever can write it gives plugins what they like, so it is heeded only where nobody else can.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, cast

from cardcage.foundation.errors import Fault, InvalidDocument, Misuse
from cardcage.foundation.limits import MANIFEST_BYTES_MAX

HOST_FILE: Final = "host.yaml"

_NOT_FOR_COMMANDS: Final = ("plugin_paths", "auto_load", "health_check_interval")
"""What says how a host runs on; a command starts what it is told to, once."""


def read_host_file(state_dir: Path) -> dict[str, Any]:
    """The configuration in the file, or an empty one where there is none. Raises `Misuse` and `InvalidDocument`."""
    path = state_dir / HOST_FILE
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise _unusable(path, error.strerror or "it cannot be read") from error
    try:
        _check_owner(path, os.fstat(descriptor))
        data = os.read(descriptor, MANIFEST_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    document = _parse(path, data)
    return {key: value for key, value in document.items() if key not in _NOT_FOR_COMMANDS}


def with_isolation(document: Mapping[str, Any], plugin: str, isolation: str) -> dict[str, Any]:
    """The configuration with one plugin in another isolation: what that plugin depends on keeps its own."""
    plugins = dict(document.get("plugins") or {})
    plugins[plugin] = {**plugins.get(plugin, {}), "enabled": True, "isolation": isolation}
    return {**document, "plugins": plugins}


def _check_owner(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _unusable(path, "it is no file")
    if found.st_uid not in (0, os.geteuid()):
        raise _unusable(path, f"it belongs to uid {found.st_uid}", hint=f"chown {os.geteuid()} {path}")
    if found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        raise _unusable(path, f"it may be written by others (mode {mode:04o})", hint=f"chmod go-w {path}")


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    from cardcage.manifest.document import read_document

    if len(data) > MANIFEST_BYTES_MAX:
        raise _unusable(path, f"it holds more than {MANIFEST_BYTES_MAX} bytes")
    document, faults = read_document(data, "yaml")
    if faults or document is None:
        raise InvalidDocument(str(path), faults, code="config_invalid")
    tree: object = document.tree
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        fault = Fault(path="", message=f"expected a mapping, found {type(tree).__name__}")
        raise InvalidDocument(str(path), [fault], code="config_invalid")
    return cast(dict[str, Any], tree)


def _unusable(path: Path, why: str, hint: str | None = None) -> Misuse:
    return Misuse(f"the host configuration {path} cannot be used: {why}", code="config_unsafe", hint=hint)
