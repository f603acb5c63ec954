"""The program that docs/guides/finops.md prints, run as printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_the_program_of_the_guide_runs_as_printed(project_root: Path, tmp_path: Path) -> None:
    guide = (project_root / "docs" / "guides" / "finops.md").read_text("utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "program.py").write_text(program)
    bill = tmp_path / "bill.csv"
    bill.write_text(
        "BilledCost,BillingCurrency,ChargePeriodStart,ServiceName\n1.25,EUR,2024-09-01,a\n2,EUR,2024-09-02,b\n"
    )
    done = subprocess.run(
        [sys.executable, "program.py", "bill.csv"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=110,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "2 rows, 3.25 EUR\n"), done.stderr


def test_the_guide_names_every_option_of_analyze(project_root: Path) -> None:
    guide = (project_root / "docs" / "guides" / "finops.md").read_text("utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "cardcage.cli", "finops", "analyze", "--help"],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
    )
    options = set(re.findall(r"^\s+(?:-\w, )?(--[a-z-]+)", done.stdout, re.MULTILINE)) - {"--help", "--progress"}
    assert {"--metrics", "--json", "--html", "--notify", "--budget", "--isolation", "--detector"} <= options
    assert [option for option in sorted(options) if option not in guide] == []


def test_the_demonstration_comes_out_as_it_says(project_root: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(project_root / "scripts" / "demo"), str(tmp_path / "demo")],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    assert "\x1b" not in done.stdout
    assert done.stdout.splitlines()[-1].endswith(str(tmp_path / "demo" / "report.html"))
    assert (tmp_path / "demo" / "report.html").is_file()
