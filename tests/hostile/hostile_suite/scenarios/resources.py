"""Time on the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cardcage import CardcageError

from ..behaviour import NotStopped, Stop

if TYPE_CHECKING:
    from ..arena import Arena


async def spin(arena: Arena) -> list[Stop]:
    """Never coming back: the call ends at its deadline, and what does not even answer a ping is killed."""
    await arena.ensure(arena.walled, "resource-hog")
    try:
        await arena.walled.call("resource-hog", "spin", 120.0, timeout_s=0.3)
    except CardcageError as error:
        if error.code != "deadline_exceeded":
            raise
    else:
        raise NotStopped("it answered, so it did not spin")
    try:
        await arena.walled.call("resource-hog", "spin", 0.0, timeout_s=30.0)
    except CardcageError as error:
        if error.code == "hung":
            return [Stop(seen="deadline_exceeded, then killed as hung", layer="supervision")]
        raise NotStopped(f"it was not killed as hung: {error.message}") from None
    raise NotStopped("a plugin that missed its deadline went on spinning")
