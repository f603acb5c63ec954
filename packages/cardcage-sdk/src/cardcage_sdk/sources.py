"""Imports a plugin's own modules from their sources, whatever lies in `__pycache__` beside them.

The host verified the sources. A cache file is no part of that digest, and Python would run it in place of the source as
long as the source's size and time fit.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from types import CodeType


class SourceLoader(SourceFileLoader):
    """Compiles the source each time; neither reads nor writes a cache file."""

    def get_code(self, fullname: str) -> CodeType:
        """The code of the module as its source says it."""
        path = self.get_filename(fullname)
        return self.source_to_code(self.get_data(path), path)


_LOADERS: Final = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)
"""Python's own order. Byte code that stands beside the sources, outside `__pycache__`, is verified as they are."""


def import_from_sources(package_dir: str) -> None:
    """From now on, import modules in this folder and beneath it from their sources only."""
    beneath = package_dir.rstrip(os.sep) + os.sep

    def finder(path: str) -> FileFinder:
        if not (os.path.abspath(path) + os.sep).startswith(beneath):
            raise ImportError(f"{path} is not the plugin's", path=path)
        return FileFinder(path, *_LOADERS)

    sys.path_hooks.insert(0, finder)
    # A finder of the usual kind may have been made for the folder while something else was looked for.
    for path in [path for path in sys.path_importer_cache if (os.path.abspath(path) + os.sep).startswith(beneath)]:
        del sys.path_importer_cache[path]
