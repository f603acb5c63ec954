"""The scripts that CI and `make test` stand on, with stand-ins for what they call."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def tool(folder: Path, name: str, script: str) -> None:
    """A command of that name that does what the script says."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(("check", "test"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_ci_runs_both_parts_and_passes_only_where_both_did(
    project_root: Path, tmp_path: Path, check: int, test: int
) -> None:
    (tmp_path / ".ci").mkdir()
    shutil.copy(project_root / ".ci" / "run", tmp_path / ".ci" / "run")
    closing = "=================== 2 passed, 1 skipped in 0.12s ==================="
    (tmp_path / "Makefile").write_text(
        f"check:\n\t@echo checking; exit {check}\ntest:\n\t@echo CI=$$CI; echo '{closing}'; exit {test}\n"
    )
    done = subprocess.run([tmp_path / ".ci" / "run"], cwd="/", capture_output=True, text=True, timeout=60, check=False)
    assert "checking" in done.stdout
    assert "CI=true" in done.stdout
    verdict = "ci: passed" if (check, test) == (0, 0) else "ci: FAILED"
    assert done.stdout.splitlines()[-2:] == [closing, verdict]
    assert done.returncode == (0 if (check, test) == (0, 0) else 1)


def debian_packages(project_root: Path, tools: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", project_root / "scripts" / "debian-packages"],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_ordinary_user_is_told_which_tests_will_be_skipped_and_why(project_root: Path, tmp_path: Path) -> None:
    tool(tmp_path / "bin", "id", "echo 1000")
    done = debian_packages(project_root, tmp_path / "bin")
    assert done.returncode == 0
    assert "not installed, because that takes root and apt-get: chromium chromium-driver" in done.stderr
    assert "chromium: opening the HTML report in a real browser" in done.stderr


PACKAGES = "chromium chromium-driver crun podman curl qemu-system-x86 linux-image-cloud-amd64"


def test_root_gets_what_is_missing_installed_and_no_more(project_root: Path, tmp_path: Path) -> None:
    tool(tmp_path / "bin", "id", "echo 0")
    tool(tmp_path / "bin", "apt-get", f'echo "$@" >>{tmp_path}/asked')
    assert debian_packages(project_root, tmp_path / "bin").returncode == 0
    assert (tmp_path / "asked").read_text().splitlines()[-1].endswith(f"--no-install-recommends {PACKAGES}")
    (tmp_path / "asked").unlink()
    for name in ("chromium", "chromedriver", "crun", "podman", "curl", "qemu-system-x86_64", "linux-version"):
        tool(tmp_path / "bin", name, "true")
    done = debian_packages(project_root, tmp_path / "bin")
    assert (done.returncode, done.stderr, os.path.exists(tmp_path / "asked")) == (0, "", False)


def test_an_installation_that_fails_ends_in_skipped_tests_and_not_in_a_failure(
    project_root: Path, tmp_path: Path
) -> None:
    tool(tmp_path / "bin", "id", "echo 0")
    tool(tmp_path / "bin", "apt-get", "exit 100")
    done = debian_packages(project_root, tmp_path / "bin")
    assert done.returncode == 0
    assert "could not be installed" in done.stderr
    assert "chromium: opening the HTML report" in done.stderr
