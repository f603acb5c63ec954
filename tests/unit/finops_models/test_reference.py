"""docs/reference/finops-models.md says what the code says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cardcage.contracts import extension_point_of
from cardcage_finops import interfaces
from cardcage_finops.extension_points import CAPABILITIES, EXTENSION_POINTS, PLUGIN_TYPES
from cardcage_finops.models import CloudResource


@pytest.fixture(scope="module")
def text(project_root: Path) -> str:
    return (project_root / "docs" / "reference" / "finops-models.md").read_text("utf-8")


def rows(text: str, heading: str) -> list[list[str]]:
    """The cells of the first table under a heading."""
    section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_extension_point_is_told_with_its_base_class_methods_and_plugins(text: str, project_root: Path) -> None:
    table = {row[0].strip("`"): row for row in rows(text, "Extension points")}
    described = {str(extension_point_of(point).ref): extension_point_of(point) for point in EXTENSION_POINTS}
    assert set(table) == set(described)
    for ref, (_, base, methods, shipped) in table.items():
        assert hasattr(interfaces, re.findall(r"`(\w+)`", base)[0])
        assert set(re.findall(r"`(\w+)\(", methods)) == set(described[ref].methods)
        for name in filter(None, shipped.split(", ")):
            assert f"[{ref}]" in (project_root / "plugins" / name / "plugin.yaml").read_text("utf-8")


def test_every_capability_and_plugin_type_is_told(text: str) -> None:
    assert {row[0].strip("`"): row[1] for row in rows(text, "Capabilities")} == CAPABILITIES
    assert [name for name in PLUGIN_TYPES if f"`{name}`" not in text] == []


def test_the_optimizer_runs_as_printed(text: str) -> None:
    source = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    names: dict[str, Any] = {}
    exec(source, names)
    plugin = names["Sleepers"]()
    plugin.load({})
    (found,) = plugin.analyze(CloudResource(id="i-1"), {"cpu_usage": 3.2})
    assert found.reason == "CPU 3 % is below 25 %"
