"""`cardcage finops`: the commands of the pack, as a typer app that the main program mounts."""

from __future__ import annotations

from cardcage_finops.cli.app import app

__all__ = ["app"]
