"""Time on the processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cardcage import CardcageError
from cardcage.sandbox.report import LayerStatus

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
            return [Stop(seen="deadline_exceeded, then killed as hung", layer="supervision"), *await _share(arena)]
        raise NotStopped(f"it was not killed as hung: {error.message}") from None
    raise NotStopped("a plugin that missed its deadline went on spinning")


_SPINS = """
import time

class Main:
    def spin(self, seconds):
        until, before = time.monotonic() + seconds, time.process_time()
        while time.monotonic() < until:
            pass
        return time.process_time() - before
"""

_SHARE = 0.25
_SPIN_S = 2.0


async def _share(arena: Arena) -> list[Stop]:
    """How much of a core a plugin really gets that asks for a quarter and takes what it can."""
    package = arena.package("spins", _SPINS, limits={"cpu": _SHARE})
    async with arena.manager("spinning", plugin_paths=[package.parent]) as manager:
        await manager.start_plugin("spins")
        report = manager.report("spins")
        if report is None or report.status("cgroup_limits") is not LayerStatus.ENFORCED:
            return []
        used_s = await manager.call("spins", "spin", _SPIN_S)
    if used_s > 1.5 * _SHARE * _SPIN_S:
        raise NotStopped(f"it used {used_s:.2f} s of a core in {_SPIN_S:g} s, and {_SHARE} of one is its share")
    return [Stop(seen=f"{used_s / _SPIN_S:.2f} of a core", layer="cgroup_limits")]


_HOARDS = """
import os, time

class Main:
    def hoard(self, mebibytes):
        for number in range(mebibytes):
            with open(os.path.join(os.environ["HOME"], str(number)), "wb") as file:
                file.write(bytes(1 << 20))
        time.sleep(30)
        return mebibytes
"""


async def hoard(arena: Arena) -> list[Stop]:
    """Many files, each below the limit of one: what they take up together is what counts."""
    package = arena.package("hoards", _HOARDS, limits={"disk": "8MiB"})
    async with arena.manager("hoarding", plugin_paths=[package.parent]) as manager:
        await manager.start_plugin("hoards")
        try:
            await manager.call("hoards", "hoard", 24)
        except CardcageError as error:
            if error.fields.get("exit_reason") != "disk_limit" and "Errno 28" not in error.message:
                raise
            return [Stop(seen="disk_limit", layer="disk limits")]
    raise NotStopped("three times its disk was taken and kept")
