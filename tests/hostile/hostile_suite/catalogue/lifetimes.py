"""Going on after one's time."""

from __future__ import annotations

from typing import Final

from ..behaviour import Behaviour
from ..scenarios import lifetimes as scenes

LIFETIMES: Final = (
    Behaviour(number=59, title="daemonises to outlive its stop", scenario=scenes.daemonise),
    Behaviour(number=60, title="ignores SIGTERM and its stop", scenario=scenes.ignore_stop),
    Behaviour(number=61, title="outlives a host that dies", scenario=scenes.outlive_host),
)
"""Behaviours after a longer life."""
