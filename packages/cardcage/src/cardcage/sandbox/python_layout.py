"""Which parts of the host's Python and C library a plugin needs, wherever they are installed."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from cardcage.foundation.errors import Unavailable
from cardcage.sandbox.plan import PythonLayout

CORE_LIBRARIES: Final = ("cardcage_sdk", "msgspec")
"""What the plugin side of the wire is made of."""

_SYSTEM_DIRS: Final = (
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libx32",
    "/usr/share/zoneinfo",
    "/usr/share/ca-certificates",
    "/etc/ld.so.cache",
    "/etc/ssl/certs",
    "/etc/pki/tls/certs",
    "/etc/localtime",
    "/nix/store",
    "/gnu/store",
)


@cache
def find_python_layout() -> PythonLayout:
    """The layout of the interpreter that runs this. In a virtual environment: of the one it was made from."""
    stdlib = Path(sysconfig.get_path("stdlib", vars={"installed_base": sys.base_prefix, "base": sys.base_prefix}))
    return PythonLayout(
        executable=_base_executable(),
        version=f"{sys.version_info.major}.{sys.version_info.minor}",
        stdlib=str(stdlib.resolve()),
        hidden=tuple(name for name in ("site-packages", "dist-packages") if (stdlib / name).is_dir()),
        system_dirs=tuple(path for path in _SYSTEM_DIRS if Path(path).exists() and not _is_root_link(path)),
        system_links=_root_links(),
        libraries=_own_libraries(),
    )


def _own_libraries() -> tuple[str, ...]:
    """The shared library that the interpreter is made of, where it does not stand among the system's."""
    name, folder = sysconfig.get_config_var("INSTSONAME"), sysconfig.get_config_var("LIBDIR")
    if not sysconfig.get_config_var("Py_ENABLE_SHARED") or not isinstance(name, str):
        return ()
    for place in (Path(str(folder)), Path(sys.base_prefix, "lib")):
        if (place / name).is_file():
            among = any(place == Path(one) or Path(one) in place.parents for one in _SYSTEM_DIRS)
            return () if among else (str((place / name).resolve()),)
    return ()


def _base_executable() -> str:
    """The real interpreter: one in a virtual environment would look for that environment's packages."""
    return os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)


def _is_root_link(path: str) -> bool:
    return path.count("/") == 1 and Path(path).is_symlink()


def _root_links() -> Mapping[str, str]:
    return {path: os.readlink(path) for path in _SYSTEM_DIRS if _is_root_link(path)}


@cache  # a package does not move while this process runs, and every start asks
def find_library(name: str) -> tuple[str, Path]:
    """The Python package `name` as the host would import it: its name and its folder, or its file where it is one.

    Raises `Unavailable` where it is not installed.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or not (spec.submodule_search_locations or spec.origin):
        raise Unavailable(
            f"the Python package {name!r} is needed inside plugins, but it is not installed here",
            code="library_missing",
            hint=f"install it into the environment of {sys.executable}",
            library=name,
        )
    if spec.submodule_search_locations:
        return name, Path(next(iter(spec.submodule_search_locations))).resolve()
    return name, Path(str(spec.origin)).resolve()


def core_libraries() -> tuple[tuple[str, Path], ...]:
    """The packages that every Python plugin needs, for `PlanRequest.library_dirs`."""
    return tuple(find_library(name) for name in CORE_LIBRARIES)
