"""The command as a shell runs it, over a folder of its own, and plugins written for one test."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

MANIFEST = "name: {name}\nversion: 1.2.3\nentrypoint: {module}:Main\n"


@dataclass(frozen=True)
class Ran:
    """What came of one command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        return json.loads(self.out)

    @property
    def error(self) -> dict[str, Any]:
        """The error of a command that was asked for JSON."""
        return self.json["error"]


class Cli:
    """Runs `cardcage`, each time in a process of its own, which sees nothing of the environment of the tests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        return {
            "PATH": f"{Path(sys.executable).parent}:{os.defpath}",
            "HOME": str(self.folder),
            "CARDCAGE_HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            **(extra or {}),
        }

    def __call__(self, *args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Ran:
        """Run one command as a shell would: in an interpreter of its own."""
        process = self.popen(*args, env=env, cwd=cwd)
        try:
            out, err = process.communicate(timeout=100)
        finally:
            process.kill()
        return Ran(process.returncode, out, err)

    spawn = __call__

    def command(self, *args: object) -> list[str]:
        return [sys.executable, "-m", "cardcage.cli", *map(str, args)]

    def popen(
        self, *args: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command(*args),
            env=self.environment(env),
            cwd=cwd or self.folder,
            stdin=subprocess.DEVNULL,
            # Tests that run in the background of a shell inherit that Ctrl-C is ignored, and would hand that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )

    def plugin(self, name: str, code: str, *, manifest: str = "") -> Path:
        """The folder of a plugin whose class is `Main`; `manifest` is added to the three lines that all have."""
        module = name.replace("-", "_")
        package = self.folder / "plugins" / name
        package.mkdir(parents=True, exist_ok=True)
        (package / f"{module}.py").write_text(code, encoding="utf-8")
        (package / "plugin.yaml").write_text(MANIFEST.format(name=name, module=module) + manifest, encoding="utf-8")
        return package


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)
