"""From an entry point to the thing that is the plugin: a class, an object, or a module.

Raises `LoadFault`: `entrypoint_not_found` where the module, file or attribute is not there, `import_failed` where the
plugin's own code failed to import.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from enum import StrEnum
from types import ModuleType
from typing import Any, Final

import msgspec

from cardcage_sdk.decorators import marks_of
from cardcage_sdk.faults import LoadFault, summary, traceback_text
from cardcage_sdk.signature import plain_function
from cardcage_sdk.sources import SourceLoader, import_from_sources

_LISTED_MAX: Final = 20


class EntryPoint(msgspec.Struct, kw_only=True, frozen=True):
    """Where the plugin is: a module or a file in `package_dir` (by default the working folder), and a name in it."""

    module: str | None = None
    file: str | None = None
    attribute: str | None = None
    manifest_name: str = "plugin"
    version: str = ""
    package_dir: str | None = None

    @property
    def who(self) -> str:
        """The plugin, as an error names it."""
        return f'plugin "{self.manifest_name}"' + (f" {self.version}" if self.version else "")

    @property
    def place(self) -> str:
        """The module or file, as an error names it."""
        return f'module "{self.module}"' if self.module else f'file "{self.file}"'


class Style(StrEnum):
    """Which spelling of the lifecycle a plugin uses."""

    PLUGIN = "plugin"
    BASE_PLUGIN = "base_plugin"
    CLOUDMIND = "cloudmind_plugin"
    PLUGIN_BASE = "plugin_base"
    CLASS = "class"
    MODULE = "module"


_BASES: Final = {
    "cardcage_sdk.base_plugin": ("BasePlugin", Style.BASE_PLUGIN),
    "cardcage_sdk.cloudmind": ("CloudMindPluginBase", Style.CLOUDMIND),
    "cardcage_sdk.plugin_base": ("PluginBase", Style.PLUGIN_BASE),
    "cardcage_sdk.plugin": ("Plugin", Style.PLUGIN),
}


def find_plugin(entry: EntryPoint) -> Any:
    """Import the plugin and return its class, its module, or the object that its entry point names."""
    module = _import(entry)
    if entry.attribute is None:
        return _only_plugin_in(module, entry)
    found: Any = module
    for part in entry.attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise LoadFault(
                "entrypoint_not_found",
                f'{entry.who}: expected {entry.place} to have "{entry.attribute}", found {_contents(module)}',
                expected=entry.attribute,
                found=_class_names(module) + _function_names(module),
            ) from None
    if plain_function(found) is found or isinstance(found, ModuleType):
        raise LoadFault(
            "entrypoint_not_found",
            f'{entry.who}: expected "{entry.attribute}" in {entry.place} to be a class, found a {type(found).__name__}',
            expected="class",
            found=type(found).__name__,
        )
    return found


def style_of(found: Any) -> Style:
    """The spelling that a class, object or module uses. A base class that was not imported is nobody's base."""
    if isinstance(found, ModuleType):
        return Style.MODULE
    cls: type = found if isinstance(found, type) else type(found)
    for module_name, (base_name, style) in _BASES.items():
        module = sys.modules.get(module_name)
        if module is not None and issubclass(cls, getattr(module, base_name)):
            return style
    if all(callable(getattr(cls, name, None)) for name in ("load", "validate", "capabilities", "shutdown")):
        return Style.CLOUDMIND
    return Style.CLASS


def own_functions(module: ModuleType) -> dict[str, Callable[..., Any]]:
    """The functions that a module defines itself, public or marked, in the order of their definition."""
    return {
        name: value
        for name, value in vars(module).items()
        if plain_function(value) is not None
        and not isinstance(value, type)
        and getattr(value, "__module__", None) == module.__name__
        and (not name.startswith("_") or marks_of(value))
    }


def _import(entry: EntryPoint) -> ModuleType:
    package_dir = os.path.abspath(entry.package_dir or os.getcwd())
    import_from_sources(package_dir)
    if package_dir not in sys.path:
        sys.path.insert(0, package_dir)
    name, path = _located(entry, package_dir)
    try:
        try:
            return _import_file(name, path) if path is not None else _import_name(name)
        except ImportError as fault:
            if not _wants_a_parent(fault, package_dir):
                raise
            return _import_in_package(entry, name, package_dir)
    except ModuleNotFoundError as fault:
        if entry.module and fault.name and (entry.module == fault.name or entry.module.startswith(fault.name + ".")):
            raise _no_module(entry, package_dir) from None
        raise _import_failed(entry, fault) from fault
    except BaseException as fault:  # SystemExit and KeyboardInterrupt too: importing must not end the process
        raise _import_failed(entry, fault) from fault


def _located(entry: EntryPoint, package_dir: str) -> tuple[str, str | None]:
    """The module's name, and its file where it must be loaded by that rather than by name."""
    if entry.module:
        loaded = sys.modules.get(entry.module)
        path = os.path.join(package_dir, *entry.module.split(".")) + ".py"
        if loaded is not None and getattr(loaded, "__file__", None) != path and os.path.isfile(path):
            # The package's `platform.py` is meant, not the standard library's, which is imported already.
            return f"_plugin_{entry.module}", path
        return entry.module, None
    file = entry.file or ""
    path = os.path.join(package_dir, file)
    if not os.path.isfile(path):
        raise LoadFault(
            "entrypoint_not_found",
            f'{entry.who}: expected the file "{file}" in the package, found {_listing(package_dir)}',
            expected=file,
            found=_python_files(package_dir),
        )
    stem = os.path.splitext(os.path.normpath(file))[0].replace(os.sep, ".")
    importable = all(part.isidentifier() for part in stem.split(".")) and file.endswith(".py")
    if importable and stem not in sys.modules:
        return stem, None
    return "_plugin_" + stem.replace("-", "_"), path


def _import_name(name: str) -> ModuleType:
    __import__(name)
    return sys.modules[name]


def _wants_a_parent(fault: ImportError, package_dir: str) -> bool:
    """Whether a module in a folder with `__init__.py` failed for `from . import`: the folder is its package, then."""
    return "no known parent package" in str(fault) and os.path.isfile(os.path.join(package_dir, "__init__.py"))


def _import_in_package(entry: EntryPoint, name: str, package_dir: str) -> ModuleType:
    """Import a module as part of its folder, which goes by the plugin's name."""
    package = "".join(char if char.isalnum() else "_" for char in entry.manifest_name)
    if package in sys.modules:
        package = f"_plugin_{package}"
    _import_file(package, os.path.join(package_dir, "__init__.py"))
    return _import_name(f"{package}.{name}")


def _import_file(name: str, path: str) -> ModuleType:
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location(name, path, loader=SourceLoader(name, path))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _only_plugin_in(module: ModuleType, entry: EntryPoint) -> Any:
    """The one class that is a plugin; else the module itself where it has functions; else its only class."""
    classes = [value for value in vars(module).values() if _is_own_class(value, module)]
    plugins = [cls for cls in classes if style_of(cls) is not Style.CLASS]
    leaves = [cls for cls in plugins if not any(other is not cls and issubclass(other, cls) for other in plugins)]
    if len(leaves) == 1:
        return leaves[0]
    if len(leaves) > 1:
        names = sorted(cls.__name__ for cls in leaves)
        raise LoadFault(
            "entrypoint_not_found",
            f"{entry.who}: expected one plugin class in {entry.place}, found {len(leaves)}: {', '.join(names)}",
            expected="one plugin class",
            found=names,
        )
    if own_functions(module):
        return module
    public = [cls for cls in classes if not cls.__name__.startswith("_")]
    if len(public) == 1:
        return public[0]
    raise LoadFault(
        "entrypoint_not_found",
        f"{entry.who}: expected a plugin class or functions in {entry.place}, found {_contents(module)}",
        expected="a plugin class or functions",
        found=_class_names(module),
    )


def _is_own_class(value: Any, module: ModuleType) -> bool:
    return isinstance(value, type) and value.__module__ == module.__name__


def _class_names(module: ModuleType) -> list[str]:
    own = [name for name, value in vars(module).items() if _is_own_class(value, module)]
    return own[:_LISTED_MAX]


def _function_names(module: ModuleType) -> list[str]:
    return list(own_functions(module))[:_LISTED_MAX]


def _contents(module: ModuleType) -> str:
    classes, functions = _class_names(module), _function_names(module)
    told = [f"the classes {', '.join(classes)}"] if classes else []
    told += [f"the functions {', '.join(functions)}"] if functions else []
    return " and ".join(told) or "no classes and no functions"


def _import_failed(entry: EntryPoint, fault: BaseException) -> LoadFault:
    what = f"exited with sys.exit({fault.code!r})" if isinstance(fault, SystemExit) else f"raised {summary(fault)}"
    return LoadFault(
        "import_failed",
        f"{entry.who}: expected {entry.place} to import, but it {what}",
        expected="a module that imports",
        found=summary(fault),
        type=type(fault).__name__,
        traceback=traceback_text(fault),
    )


def _no_module(entry: EntryPoint, package_dir: str) -> LoadFault:
    return LoadFault(
        "entrypoint_not_found",
        f"{entry.who}: expected {entry.place} in the package, found {_listing(package_dir)}",
        expected=entry.module,
        found=_python_files(package_dir),
    )


def _listing(package_dir: str) -> str:
    files = _python_files(package_dir)
    return f"the files {', '.join(files)}" if files else "no Python files"


def _python_files(package_dir: str) -> list[str]:
    try:
        names = sorted(os.listdir(package_dir))
    except OSError:
        return []
    return [name for name in names if name.endswith(".py")][:_LISTED_MAX]
