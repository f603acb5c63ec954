"""What all tests share: where the project stands, the sample bills, and the rule that CI skips nothing by accident."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Generator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

PROJECT_ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = PROJECT_ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The folder of the checkout."""
    return PROJECT_ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of sample bills beside the checkout; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs the shared data folder beside the checkout (../shared/data)")
    return SHARED_DATA


@pytest.fixture
def write_readme_program(project_root: Path) -> Callable[[Path], Path]:
    """Writes the files that README.md prints into a folder, and returns the program among them."""

    def write(folder: Path) -> Path:
        text = (project_root / "README.md").read_text()
        for name, block in re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(block)
        return folder / "app.py"

    return write


def permitted_skips() -> list[tuple[str, str]]:
    """The pairs of globs, over test ids and reasons, in permitted_skips.txt."""
    lines = (Path(__file__).parent / "permitted_skips.txt").read_text().splitlines()
    rows = [[part.strip() for part in line.split("|")] for line in lines if line.strip() and not line.startswith("#")]
    assert all(len(row) == 3 and all(row) for row in rows), "permitted_skips.txt: each line has three parts"
    return [(row[0], row[1]) for row in rows]


def is_permitted(test: str, reason: str) -> bool:
    """Whether this test may be skipped for this reason where CI=true."""
    return any(fnmatchcase(test, tests) and fnmatchcase(reason, reasons) for tests, reasons in permitted_skips())


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure, unless it is permitted or an expected failure."""
    if os.environ.get("CI") != "true" or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if not is_permitted(report.nodeid, reason):
        report.outcome = "failed"
        report.longrepr = f"{reason}\nthis skip is not in tests/permitted_skips.txt, and CI=true makes it a failure"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at the outcome of every phase of every test."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Look at modules that skip themselves as a whole."""
    report = yield
    _refuse_skip(report)
    return report
