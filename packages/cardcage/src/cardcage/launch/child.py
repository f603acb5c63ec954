"""The first steps of a plugin's process: find the packages it may import, and call its main function.

Runs in the fork server's children, and as a script where a plugin is started without walls:
`python -I -S -B child.py '{"fd": 3, "main": "cardcage_sdk.serve:serve", ...}'`. It imports the standard library alone.
"""

import importlib
import os
import sys
from importlib.util import spec_from_file_location

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from socket import socket
    from types import ModuleType


class PackageFinder:
    """Finds the named packages in their own folders, and nothing that lies beside them.

    Putting `site-packages` on the path would let a process import everything that the host has installed.
    """

    def __init__(self, homes: "Mapping[str, str]") -> None:
        self._homes = dict(homes)

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        """The import system's own hook; answers for top-level names alone."""
        home = self._homes.get(name) if path is None else None
        if home is None:
            return None
        if home.endswith((".py", ".so")):
            return spec_from_file_location(name, home)
        return spec_from_file_location(name, f"{home}/__init__.py", submodule_search_locations=[home])


def package_name(home: str) -> str:
    """The import name of the package at `home`: `six` for `/x/six.py`, `msgspec` for `/x/msgspec`."""
    return home.rpartition("/")[2].split(".")[0]


def add_packages(homes: "Sequence[str]") -> PackageFinder:
    """Make the packages at `homes` importable, and hand back the finder so that it can be taken off again."""
    finder = PackageFinder({package_name(home): home for home in homes})
    sys.meta_path.append(finder)
    return finder


def enter_groups(entries: "Sequence[int]") -> None:
    """Put the calling process, which must have one thread, into the control groups behind these descriptors."""
    for entry in entries:
        os.write(entry, b"0")
        os.close(entry)


def call_main(main: str, sock: "socket") -> None:
    """Call `module:function` with the plugin's end of the wire."""
    module, _, function = main.partition(":")
    getattr(importlib.import_module(module), function)(sock)


def _run(arguments: str) -> None:
    import json
    import socket

    order = json.loads(arguments)
    enter_groups(order["groups"])
    add_packages(order["packages"])
    sys.path.append(order["package_dir"])
    call_main(order["main"], socket.socket(fileno=order["fd"]))


if __name__ == "__main__":
    _run(sys.argv[1])
