"""Fixtures for whole plugins: packages written into a temporary folder, and managers over them."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

WritePlugin = Callable[..., Path]


@pytest.fixture
def write_plugin(tmp_path: Path) -> WritePlugin:
    """Writes `plugins/<name>/plugin.yaml` and the plugin's code, and returns the folder."""

    def write(name: str, code: str, *, manifest: dict[str, Any] | None = None, entry: str | None = None) -> Path:
        folder = tmp_path / "plugins" / name
        folder.mkdir(parents=True)
        module = name.replace("-", "_")
        document: dict[str, Any] = {
            "name": name,
            "version": "1.0.0",
            "entrypoint": entry or f"{module}:Main",
            **(manifest or {}),
        }
        (folder / "plugin.yaml").write_text(yaml.safe_dump(document))
        (folder / f"{module}.py").write_text(textwrap.dedent(code))
        return folder

    return write


@pytest.fixture
def plugins_dir(tmp_path: Path) -> Path:
    return tmp_path / "plugins"


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    return tmp_path / "state"
