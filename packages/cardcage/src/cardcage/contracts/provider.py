"""Whether what a plugin says it has is enough for the extension point it claims to provide."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from cardcage.contracts.point import ExtensionPoint
from cardcage.foundation.errors import Fault


def check_provider(point: ExtensionPoint, described_method_names: Collection[str]) -> list[Fault]:
    """One fault for each method of the extension point that the plugin lacks; an empty list where it is complete."""
    return [
        Fault(
            path=f"provides.{point.ref}",
            message=f"expected a method {name}, found none{_hint(name, described_method_names)}",
        )
        for name in point.methods
        if name not in described_method_names
    ]


def _hint(name: str, candidates: Collection[str]) -> str:
    close = difflib.get_close_matches(name, sorted(candidates), n=1, cutoff=0.6)
    return f" (it has {close[0]})" if close else ""
