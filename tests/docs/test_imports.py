"""Who may import what, where import-linter cannot look: shipped plugins are no packages, and the SDK is used alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

LIGHT = frozenset({"msgspec", "cardcage_sdk"})
"""What is importable inside a plugin's walls besides the standard library and the plugin's own files."""

PACK = "cardcage_finops"


def imports_of(file: Path) -> set[str]:
    """The full names that a file imports when it runs: not those that are for type checkers only."""
    return set(_imports(ast.parse(file.read_text(), str(file))))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (name for each in child.orelse for name in _imports(each))
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "an import relative to the package"
            # Both spellings, for `from package import module` and `from package.module import name`.
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
            yield child.module or ""
        else:
            yield from _imports(child)


def top(name: str) -> str:
    return name.partition(".")[0]


def strangers(file: Path, allowed: frozenset[str]) -> set[str]:
    """The top-level packages that a file imports and may not."""
    return {top(name) for name in imports_of(file)} - allowed - sys.stdlib_module_names


def pack_files(file: Path, root: Path) -> Iterator[Path]:
    """The modules of the FinOps pack that a file imports, and those that they import in turn."""
    base = root / "packages/cardcage-finops/src"
    waiting, seen = [file], {file}
    while waiting:
        for name in imports_of(waiting.pop()):
            if top(name) != PACK:
                continue
            path = base / name.replace(".", "/")
            for candidate in (path.with_suffix(".py"), path / "__init__.py"):
                if candidate.is_file() and candidate not in seen:
                    seen.add(candidate)
                    waiting.append(candidate)
                    yield candidate


def plugin_files(root: Path) -> list[Path]:
    return sorted(path for path in (root / "plugins").glob("*/**/*.py") if "tests" not in path.parts)


def test_shipped_plugins_import_the_sdk_the_pack_and_their_own_files_only(project_root: Path) -> None:
    files = plugin_files(project_root)
    assert files
    for file in files:
        folder = project_root / "plugins" / file.relative_to(project_root / "plugins").parts[0]
        own = frozenset(path.stem for path in folder.rglob("*.py")) | {path.name for path in folder.iterdir()}
        assert strangers(file, LIGHT | own | {PACK}) == set(), file


def test_what_plugins_import_of_the_pack_stands_on_the_sdk_alone(project_root: Path) -> None:
    used = {module for file in plugin_files(project_root) for module in pack_files(file, project_root)}
    assert used, "the shipped plugins use the pack's models"
    for module in sorted(used):
        assert strangers(module, LIGHT | {PACK}) == set(), module


def test_the_sdk_stands_on_the_standard_library_and_msgspec(project_root: Path) -> None:
    files = sorted((project_root / "packages/cardcage-sdk/src").rglob("*.py"))
    assert files
    for file in files:
        assert strangers(file, LIGHT) == set(), file


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("cardcage_sdk", ("asyncio", "cardcage", "pydantic", "yaml")),
        ("cardcage.sandbox.plan", ("asyncio", "pydantic", "yaml", "sqlalchemy", "cardcage.manifest")),
        ("cardcage", ("asyncio", "pydantic", "sqlalchemy", "cardcage.manager")),
        ("cardcage_finops.models", ("asyncio", "cardcage", "jinja2", "rich", "typer")),
    ],
)
def test_importing_a_light_module_loads_nothing_heavy(module: str, heavy: tuple[str, ...]) -> None:
    program = f"import sys, {module}\nprint(*(name for name in {heavy!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
