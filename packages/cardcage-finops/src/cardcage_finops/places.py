"""Where the plugins stand that come with this pack."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).resolve().parent


def plugin_dirs() -> tuple[Path, ...]:
    """`plugins` inside the installed package, or the `plugins` folder of the checkout that this package is part of."""
    inside = _HERE / "plugins"
    checkout = _HERE.parents[3] / "plugins"
    return tuple(folder for folder in (inside, checkout) if folder.is_dir())[:1]
