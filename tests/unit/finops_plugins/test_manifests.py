"""Every shipped plugin's package: its manifest, its files, and the promise that it uses nothing but the SDK."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from cardcage.contracts import extension_point_of
from cardcage.manifest import parse_manifest
from cardcage_finops.extension_points import EXTENSION_POINTS, PLUGIN_TYPES

ROOT = Path(__file__).resolve().parents[3] / "plugins"
PLUGINS = sorted(folder.name for folder in ROOT.iterdir() if (folder / "plugin.yaml").is_file())
LIGHT = {"bills", "focus", "hooks", "instance_types", "interfaces", "models", "optimizers"}


def test_the_shipped_plugins_are_there() -> None:
    assert {
        "aws-cur-cost-source",
        "budget-policy",
        "cost-anomaly-detector",
        "file-notifier",
        "focus-cost-source",
        "idle-resource-optimizer",
        "metrics-file-collector",
        "rightsizing-optimizer",
        "webhook-notifier",
    } <= set(PLUGINS)


@pytest.mark.parametrize("name", PLUGINS)
def test_a_manifest_is_valid_and_names_an_extension_point_that_exists(name: str) -> None:
    manifest = parse_manifest((ROOT / name / "plugin.yaml").read_bytes())
    points = {extension_point_of(point).ref for point in EXTENSION_POINTS}
    assert manifest.name == name
    assert set(manifest.provides) <= points
    assert manifest.type in PLUGIN_TYPES
    assert [str(ref) for ref in manifest.provides] == [PLUGIN_TYPES[manifest.type]]
    assert manifest.description
    assert (ROOT / name / "README.md").read_text("utf-8").startswith(f"# {name}\n")


@pytest.mark.parametrize("name", PLUGINS)
def test_a_plugin_imports_only_the_standard_library_msgspec_the_sdk_and_light_models(name: str) -> None:
    own = {path.stem for path in (ROOT / name).glob("*.py")}
    for path in (ROOT / name).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for module in names:
                top, _, rest = module.partition(".")
                assert (
                    top in {*own, "cardcage_sdk", "msgspec"}
                    or top in sys.stdlib_module_names
                    or (top == "cardcage_finops" and rest in LIGHT)
                ), f"{path.name} imports {module}"


def test_the_modules_that_plugins_may_import_bring_no_host_code_with_them() -> None:
    modules = ", ".join(f"cardcage_finops.{name}" for name in sorted(LIGHT))
    heavy = "{'cardcage', 'asyncio', 'pydantic', 'yaml', 'typer', 'rich', 'jinja2', 'sqlalchemy'}"
    program = f"import sys, {modules}; print(sorted({heavy} & {{name.partition('.')[0] for name in sys.modules}}))"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "[]"
