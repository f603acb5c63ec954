"""The manager of one `cardcage finops` command: the shipped plugins, and those that the operator names."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import warnings
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from cardcage.cli.host import UNCONFINED_BANNER
from cardcage.contracts import extension_point_of
from cardcage.foundation.errors import Misuse
from cardcage.manager import PluginManager, UnconfinedWarning
from cardcage_finops.extension_points import EXTENSION_POINTS
from cardcage_finops.pipeline.grants import is_shipped
from cardcage_finops.places import plugin_dirs
from cardcage_finops.report.untrusted import visible


@asynccontextmanager
async def finops_manager(
    *, plugins: Sequence[Path] = (), grants: Mapping[str, Sequence[str]] | None = None, isolation: str = "process"
) -> AsyncGenerator[PluginManager, None]:
    """A manager over the shipped plugins and the folders `plugins`, in a state folder that is gone afterwards.

    Nothing is started. The operator's own registry is neither read nor changed, so analyses can run side by side.
    """
    with tempfile.TemporaryDirectory(prefix="cardcage-finops-") as folder, _loud(), _logged():
        manager = PluginManager(
            plugin_paths=[*plugin_dirs(), *plugins],
            state_dir=Path(folder) / "state",
            grants=grants,
            isolation=isolation,
            auto_start=False,
        )
        async with manager:
            yield manager


def outside_plugins(manager: PluginManager) -> list[str]:
    """The operator's own plugins that provide no part of an analysis: what is left for them is the hook chain."""
    parts = {extension_point_of(point).ref for point in EXTENSION_POINTS}
    views = (manager.plugin_info(name) for name in manager.list_plugins())
    return [
        view.name
        for view in views
        if view.enabled and not is_shipped(view.package_dir) and not parts.intersection(view.provides)
    ]


class _ToStderr(logging.Handler):
    """What plugins and the host warn of, a line each, with its controls spelled out."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        sys.stderr.write(visible(record.getMessage(), 1000) + "\n")


@contextmanager
def _logged() -> Generator[None, None, None]:
    logger, handler = logging.getLogger("cardcage"), _ToStderr(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def parse_grants(texts: Sequence[str]) -> dict[str, list[str]]:
    """Grants written `PLUGIN=PERMISSION`, by plugin. Raises `Misuse` for one that is not."""
    grants: dict[str, list[str]] = {}
    for text in texts:
        plugin, equals, permission = text.partition("=")
        if not (plugin and equals and permission):
            raise Misuse(
                f"--grant {text!r} is not PLUGIN=PERMISSION",
                code="grant_invalid",
                hint="such as --grant my-optimizer=capability:ReadInstanceMetrics",
            )
        grants.setdefault(plugin, []).append(permission)
    return grants


@contextmanager
def _loud() -> Generator[None, None, None]:
    """Say that walls are off in a way that can't be missed."""

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        text = UNCONFINED_BANNER if issubclass(category, UnconfinedWarning) else f"cardcage: warning: {message}"
        coloured = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
        print(f"\x1b[1;41;97m{text}\x1b[0m" if coloured else text, file=sys.stderr, flush=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UnconfinedWarning)
        warnings.showwarning = show
        yield
