"""What is built is what works: wheels in an empty environment, outside the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest


def run(command: list[str | Path], *, cwd: Path, **environment: str) -> str:
    """Run it with an environment that points to neither the checkout nor its .venv; its output."""
    outside = ("PYTHON", "VIRTUAL_ENV", "PYTEST")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(outside)}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command[0]} failed\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def dist(project_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run([project_root / "scripts" / "build-dist", folder], cwd=project_root)
    return folder


def test_three_wheels_and_three_source_archives_are_built_each_with_its_licence(dist: Path) -> None:
    wheels, archives = sorted(dist.glob("*.whl")), sorted(dist.glob("*.tar.gz"))
    names = ["cardcage", "cardcage_finops", "cardcage_sdk"]
    assert [path.name.split("-")[0] for path in wheels] == names
    assert [path.name.split("-")[0] for path in archives] == names
    for wheel in wheels:
        assert any(name.endswith("licenses/LICENSE") for name in zipfile.ZipFile(wheel).namelist()), wheel.name
    for archive in archives:
        with tarfile.open(archive) as opened:
            assert any(name.endswith("/LICENSE") for name in opened.getnames()), archive.name


def test_the_packages_carry_the_projects_licence(project_root: Path) -> None:
    texts = {path.read_text() for path in [project_root / "LICENSE", *project_root.glob("packages/*/LICENSE")]}
    assert len(texts) == 1


def test_the_pack_carries_every_shipped_plugin_and_no_leftovers(dist: Path, project_root: Path) -> None:
    [wheel] = dist.glob("cardcage_finops-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    manifests = {name.split("/")[2] for name in names if name.endswith("/plugin.yaml")}
    assert manifests == {path.parent.name for path in (project_root / "plugins").glob("*/plugin.yaml")}
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


@pytest.mark.timeout(600)
def test_the_wheels_and_the_locked_dependencies_run_the_readmes_program_in_an_empty_environment(
    dist: Path, project_root: Path, tmp_path: Path, write_readme_program: Callable[[Path], Path]
) -> None:
    python = tmp_path / "env" / "bin" / "python"
    run([sys.executable, "-m", "venv", python.parent.parent], cwd=tmp_path)
    pip: list[str | Path] = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    run([*pip, "--require-hashes", "-r", project_root / "requirements" / "runtime.txt"], cwd=tmp_path)
    run([*pip, "--no-index", "--no-deps", *sorted(dist.glob("*.whl"))], cwd=tmp_path)
    run([python, "-m", "pip", "check"], cwd=tmp_path)
    program = write_readme_program(tmp_path / "program")
    home = str(tmp_path / "state")
    assert run([python, program.name], cwd=program.parent, CARDCAGE_HOME=home) == "polite says: Good day, Ada.\n"
    where = run([python, "-c", "import cardcage; print(cardcage.__file__)"], cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(tmp_path / "env")
    command = python.with_name("cardcage")
    assert "polite" in run([command, "plugin", "list"], cwd=tmp_path, CARDCAGE_HOME=home)
