"""The neighbour. It answers, whatever the others do."""

from __future__ import annotations

import os
from pathlib import Path


class Honest:
    """Keeps something that others would like to read."""

    def echo(self, value: int) -> int:
        return value

    def keep(self, secret: str) -> str:
        (Path(os.environ["HOME"]) / "secret.txt").write_text(secret)
        return "kept"
