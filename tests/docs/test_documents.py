"""The documents against the code: links, paths, commands, and lists that must be whole."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from cardcage.manager.settings import HOST_SCHEMA
from cardcage.sandbox.report import LayerName

NOT_OURS = frozenset({".git", ".venv", "build", "dist", "node_modules", "__pycache__", ".hypothesis"}) | {
    f".{tool}_cache" for tool in ("pytest", "ruff", "mypy", "import_linter")
}

CODE_ROOTS = (
    ".",
    "packages/cardcage/src/cardcage",
    "packages/cardcage-sdk/src",
    "packages/cardcage-sdk/src/cardcage_sdk",
    "packages/cardcage-finops/src/cardcage_finops",
)


def files(root: Path) -> Iterator[Path]:
    """The files that belong to the project: not what tools leave beside them."""
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if name not in NOT_OURS)
        yield from (Path(folder) / name for name in sorted(names) if not name.endswith(".pyc"))


def documents(root: Path) -> list[Path]:
    return [path for path in files(root) if path.suffix == ".md"]


def prose(text: str) -> str:
    """A document without its code blocks."""
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as the usual renderers make them."""
    headings = re.findall(r"^#+ (.+)$", prose(text), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_link_inside_the_repository_leads_somewhere(project_root: Path) -> None:
    broken: list[str] = []
    for document in documents(project_root):
        for target in re.findall(r"\]\(([^)\s]+)\)", prose(document.read_text())):
            if re.match(r"[a-z]+:", target):
                continue
            path, _, anchor = target.partition("#")
            found = (document.parent / path).resolve() if path else document
            if not found.exists() or (anchor and anchor not in anchors(found.read_text())):
                broken.append(f"{document.relative_to(project_root)}: {target}")
    assert broken == []


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "README.md"])
def test_every_path_that_a_document_names_exists(project_root: Path, name: str) -> None:
    quoted = re.findall(r"`([^`\s]+)`", prose((project_root / name).read_text()))
    paths = [text for text in quoted if re.fullmatch(r"\.?[\w.-]+(/[\w.-]+)*/?", text) and looks_like_a_path(text)]
    missing = [text for text in paths if not any((project_root / root / text).exists() for root in CODE_ROOTS)]
    assert missing == []


def looks_like_a_path(text: str) -> bool:
    return "/" in text or text.endswith((".py", ".md", ".txt", ".toml"))


def test_the_map_of_the_code_names_every_package_and_module_at_the_top(project_root: Path) -> None:
    text = (project_root / "ARCHITECTURE.md").read_text()
    top = project_root / "packages/cardcage/src/cardcage"
    folders = [f"{path.name}/" for path in top.iterdir() if (path / "__init__.py").exists()]
    modules = [path.name for path in top.glob("*.py") if path.name != "__init__.py"]
    assert [name for name in sorted(folders + modules) if f"`{name}`" not in text] == []


def test_every_make_target_that_a_document_names_exists(project_root: Path) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", (project_root / "Makefile").read_text(), flags=re.MULTILINE))
    named = {
        (document.name, target)
        for document in documents(project_root)
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", document.read_text(), flags=re.MULTILINE)
    }
    assert {target for _, target in named} >= {"demo", "test", "check"}
    assert {pair for pair in named if pair[1] not in targets} == set()


def test_make_lists_every_target_with_one_line(project_root: Path) -> None:
    makefile = (project_root / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", makefile, flags=re.MULTILINE)
    assert phony is not None
    listed = subprocess.run(["make", "-s"], cwd=project_root, capture_output=True, text=True, check=True).stdout
    shown = {line.split()[1] for line in listed.splitlines()}
    assert shown == set(phony[1].split())
    assert all(len(line.split()) > 3 for line in listed.splitlines())


def test_the_index_lists_every_decision_and_each_is_one_page_of_four_parts(project_root: Path) -> None:
    folder = project_root / "docs" / "decisions"
    records = sorted(folder.glob("[0-9][0-9][0-9][0-9]-*.md"))
    index = (folder / "README.md").read_text()
    assert re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", index, flags=re.MULTILINE) == [path.name for path in records]
    assert len({path.name[:4] for path in records}) == len(records), "two decisions have one number"
    for record in records:
        text = record.read_text()
        assert text.startswith(f"# {record.name[:4]}: "), record.name
        wanted = ("**Context.**", "**Choice.**", "**Cost.**", "**What would change our mind.**")
        assert [part for part in wanted if part not in text] == [], record.name
        assert len(text.splitlines()) <= 60, record.name


def test_the_index_of_documents_lists_every_guide_and_every_page_of_the_reference(project_root: Path) -> None:
    docs = project_root / "docs"
    linked = set(re.findall(r"\]\(((?:guides|reference)/[^)]+)\)", (docs / "README.md").read_text()))
    pages = {str(page.relative_to(docs)) for kind in ("guides", "reference") for page in (docs / kind).glob("*.md")}
    assert linked == pages


def test_the_walls_page_has_every_layer_of_a_report(project_root: Path) -> None:
    text = (project_root / "docs/reference/walls.md").read_text()
    named = re.findall(r"^\| `(\w+)` \|", text.partition("## Layers")[2].partition("\n## ")[0], flags=re.MULTILINE)
    assert named == [str(name) for name in LayerName]


def test_the_host_configuration_has_every_key_that_is_read(project_root: Path) -> None:
    text = (project_root / "docs/reference/host-configuration.md").read_text()
    of_the_host, of_a_plugin = (
        re.findall(r"^\| `(\w+)` \|", part, flags=re.MULTILINE) for part in text.split("Of one plugin, under")
    )
    keys = HOST_SCHEMA["properties"]
    assert sorted(of_the_host) == sorted(keys)
    (plugin,) = keys["plugins"]["patternProperties"].values()
    assert sorted(of_a_plugin) == sorted(plugin["properties"])


def test_every_public_module_says_what_it_is_for(project_root: Path) -> None:
    silent = [
        str(path.relative_to(project_root))
        for path in sorted((project_root / "packages").glob("*/src/**/*.py"))
        if not path.read_text().lstrip().startswith(('"""', "'''", "r'''", 'r"""', "#!"))
    ]
    assert silent == []


def test_no_file_names_a_path_of_the_machine_it_was_written_on(project_root: Path) -> None:
    here = str(project_root.parent)
    if here == "/":
        pytest.skip("the checkout stands at the top of the file system")
    needle = f"{here}/".encode()
    assert [str(path) for path in files(project_root) if path.is_file() and needle in path.read_bytes()] == []
