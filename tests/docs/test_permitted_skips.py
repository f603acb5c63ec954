"""The rule that CI skips nothing by accident."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_skips_as_permitted():
    pytest.skip("needs the shared data folder beside the checkout")

def test_skips_for_a_reason_of_its_own():
    pytest.skip("did not feel like it")

@pytest.mark.xfail(reason="known")
def test_fails_as_expected():
    raise ValueError

@pytest.mark.skipif(True, reason="marked away")
def test_is_marked_away():
    pass
"""


@pytest.mark.parametrize(("ci", "failed"), [("true", 2), ("", 0)])
def test_under_ci_a_skip_that_is_not_permitted_fails(project_root: Path, tmp_path: Path, ci: str, failed: int) -> None:
    inner = tmp_path / "tests"
    inner.mkdir()
    for name in ("conftest.py", "permitted_skips.txt"):
        (inner / name).write_text((project_root / "tests" / name).read_text())
    (inner / "test_inner.py").write_text(TESTS)
    (inner / "test_module.py").write_text("import pytest\npytest.skip('whole', allow_module_level=True)\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--import-mode=importlib", "-p", "no:cacheprovider", "--rootdir=."],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 xfailed" in done.stdout or "error" in done.stdout
    if failed:
        assert "this skip is not in tests/permitted_skips.txt" in done.stdout
        assert "test_module.py" in done.stdout
        assert done.returncode != 0
    else:
        assert "4 skipped" in done.stdout
        assert done.returncode == 0
    assert "test_skips_as_permitted" not in done.stdout


def test_every_permitted_skip_has_a_test_a_reason_and_a_why(project_root: Path) -> None:
    lines = (project_root / "tests/permitted_skips.txt").read_text().splitlines()
    rows = [line for line in lines if line and not line.startswith("#")]
    assert rows
    assert all(len([part for part in row.split("|") if part.strip()]) == 3 for row in rows)
