"""The event loop of one command. Imported with every command, so asyncio itself comes only when it is needed."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` to its end; Ctrl-C cancels it, so that what it opened is closed."""
    import asyncio

    return asyncio.run(work)
