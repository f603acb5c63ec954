"""The README's program, run as printed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def test_the_readmes_program_runs_as_printed(write_readme_program: Callable[[Path], Path], tmp_path: Path) -> None:
    program = write_readme_program(tmp_path / "program")
    environment = {**os.environ, "CARDCAGE_HOME": str(tmp_path / "state")}
    done = subprocess.run(
        [sys.executable, "-W", "error", program.name],
        cwd=program.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("polite says: Good day, Ada.\n", "")


def test_the_readmes_program_has_fifteen_lines_or_fewer(
    write_readme_program: Callable[[Path], Path], tmp_path: Path
) -> None:
    program = write_readme_program(tmp_path / "program")
    assert len(program.read_text().splitlines()) <= 15
    assert sorted(path.name for path in program.parent.rglob("*") if path.is_file()) == [
        "app.py",
        "plugin.yaml",
        "polite.py",
    ]
