"""Shipped plugins, imported as their packages stand."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Load = Callable[..., Any]


@pytest.fixture(scope="session")
def load_plugin(project_root: Path) -> Load:
    """Makes a shipped plugin: package, module, class, config."""

    def load(package: str, module: str, name: str, **config: Any) -> Any:
        folder = str(project_root / "plugins" / package)
        if folder not in sys.path:
            sys.path.insert(0, folder)
        plugin = getattr(importlib.import_module(module), name)()
        plugin.load(config)
        return plugin

    return load


@pytest.fixture(scope="session")
def evaluation(project_root: Path) -> Any:
    """The module bench/anomaly_eval.py."""
    folder = str(project_root / "bench")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module("anomaly_eval")
