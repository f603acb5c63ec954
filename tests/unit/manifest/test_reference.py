"""The reference pages say what the code does: their tables are written from it.

Run with `CARDCAGE_WRITE_DOCS=1` to write the tables anew.
"""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterable
from pathlib import Path

import pytest

from cardcage.foundation.limits import MANIFEST_BYTES_MAX, MANIFEST_DEPTH_MAX, MANIFEST_NODES_MAX
from cardcage.manifest import parse_manifest, resolve_entry_point, version_matches
from cardcage.manifest.config_schema import SHORT_KEYS, TYPE_NAMES
from cardcage.manifest.fields import KEYS
from cardcage.manifest.limits import LIMIT_KEYS
from cardcage.permissions import Permission, PermissionKind


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def key_rows() -> Iterable[tuple[str, ...]]:
    for key in KEYS:
        names = ", ".join(f"`{name}`" for name in key.names)
        yield f"{names}{' (required)' if key.required else ''}", key.help, key.takes, f"`{key.example}`"


def kind_rows() -> Iterable[tuple[str, ...]]:
    """The kinds with the sentences that stand beneath them in the code."""
    source = inspect.getsource(PermissionKind)
    for kind in PermissionKind:
        match = re.search(rf'{kind.name} = [^\n]*\n\s+"""(.*?)"""', source, re.DOTALL)
        assert match is not None, kind
        yield f"`{kind}`", match[1]


TABLES = {
    ("manifest.md", "keys"): table(("key", "what it is for", "takes", "example"), key_rows()),
    ("manifest.md", "limits"): table(
        ("key", "limits", "takes"), ((f"`{name}`", key.help, key.expected) for name, key in LIMIT_KEYS.items())
    ),
    ("manifest.md", "short form"): ", ".join(f"`{word}`" for word in sorted(SHORT_KEYS, key=str.lower)) + ".",
    ("permissions.md", "kinds"): table(("kind", "allows"), kind_rows()),
}


@pytest.mark.parametrize(("page", "name"), TABLES)
def test_the_tables_of_the_reference_pages_are_those_of_the_code(project_root: Path, page: str, name: str) -> None:
    path = project_root / "docs" / "reference" / page
    pattern = re.compile(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
    text = path.read_text()
    wanted = TABLES[page, name] + "\n"
    if os.environ.get("CARDCAGE_WRITE_DOCS"):
        text = pattern.sub(lambda match: match[1] + wanted + match[3], text)
        path.write_text(text)
    found = pattern.search(text)
    assert found is not None
    assert found[2] == wanted, "run: CARDCAGE_WRITE_DOCS=1 pytest tests/unit/manifest/test_reference.py"


@pytest.mark.parametrize("key", KEYS, ids=lambda key: key.name)
def test_the_example_of_each_key_is_accepted(key: object) -> None:
    lines = {"name": "name: sample", "version": "version: 1.0.0", "entrypoint": "entrypoint: a:B"}
    (field,) = [field for field in KEYS if field is key]
    lines[field.name] = f"{field.name}: {field.example}"
    assert parse_manifest("\n".join(lines.values()))


def page_rows(project_root: Path, page: str, heading: str) -> list[list[str]]:
    """The cells of the table beneath a heading."""
    section = (project_root / "docs" / "reference" / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_value_in_the_permission_page_is_one(project_root: Path) -> None:
    kinds = ""
    for kind, values, _ in page_rows(project_root, "permissions.md", "Values"):
        kinds = kind or kinds
        for one in kinds.split(", "):
            for value in re.findall(r"`([^`]+)`", values):
                assert Permission(PermissionKind(one), value)


def test_every_entry_point_in_the_manifest_page_is_what_it_says(project_root: Path) -> None:
    for texts, runtime in page_rows(project_root, "manifest.md", "Entry points"):
        for text in re.findall(r"`([^`]+)`", texts):
            if not text.startswith(("#", ":")):
                assert resolve_entry_point(text).kind == runtime


def test_every_range_in_the_manifest_page_holds_some_version(project_root: Path) -> None:
    for ranges, _ in page_rows(project_root, "manifest.md", "Versions and ranges"):
        for text in re.findall(r"`([^`]+)`", ranges):
            assert any(version_matches(text, version) for version in ("1.2.3", "1.2.0", "1.3.0")), text


def test_the_types_of_the_short_form_and_the_limits_of_the_text_are_named(project_root: Path) -> None:
    page = (project_root / "docs" / "reference" / "manifest.md").read_text()
    assert [name for name in TYPE_NAMES if name != TYPE_NAMES[name] and f"`{name}`" not in page] == []
    assert f"{MANIFEST_BYTES_MAX // 1024} KiB" in page
    assert f"{MANIFEST_DEPTH_MAX} levels" in page
    assert f"{MANIFEST_NODES_MAX:,}" in page
