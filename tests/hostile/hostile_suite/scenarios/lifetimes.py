"""Whether anything of an instance is left after its end."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..behaviour import NotStopped, Stop
from ..leaks import descendants

if TYPE_CHECKING:
    from ..arena import Arena

_LINGERER = "lingerer"
_GONE_S: Final = 20.0


def members(pid: int) -> list[int]:
    """The first process of an instance and all that came of it: what is orphaned inside becomes that one's child."""
    return [pid, *descendants(pid)]


def gone(pids: list[int]) -> list[int]:
    """Those that do not end within the time allowed."""
    left: list[int] = []
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            if not select.select([descriptor], [], [], _GONE_S)[0]:
                left.append(pid)
        finally:
            os.close(descriptor)
    return left


async def _all_end(arena: Arena, *preparations: str) -> list[Stop]:
    await arena.renew(_LINGERER)
    for preparation in preparations:
        await arena.walled.call(_LINGERER, preparation)
    family = members(arena.pid_of(_LINGERER))
    made = len(set(preparations) - {"ignore_signals", "linger"})
    # A machine's processes are its own: the host sees the machine alone.
    if arena.isolation != "vm" and len(family) < 2 + made:
        raise NotStopped(f"it did not make what was to live on: {family}")
    await arena.walled.unload_plugin(_LINGERER)
    if left := await asyncio.to_thread(gone, family):
        raise NotStopped(f"still running after the stop: {left}")
    return [Stop(seen=f"{len(family)} processes gone", layer="pid_namespace")]


async def daemonise(arena: Arena) -> list[Stop]:
    """Children in sessions of their own, and a watcher."""
    return await _all_end(arena, "daemonise", "clear_death_signal", "respawn")


async def ignore_stop(arena: Arena) -> list[Stop]:
    """Deaf to every signal but one, and with a stop() that does not come back."""
    return await _all_end(arena, "ignore_signals", "linger", "daemonise")


_HOST = """
import asyncio, sys
from cardcage import PluginManager

async def main():
    async with PluginManager(plugin_paths=[sys.argv[1]], state_dir=sys.argv[2], auto_start=False) as manager:
        await manager.start_plugin("lingerer")
        await manager.call("lingerer", "ignore_signals")
        await manager.call("lingerer", "clear_death_signal")
        print(manager._live.get("lingerer").pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def outlive_host(arena: Arena) -> list[Stop]:
    """A whole host of its own, killed without a chance to clean up."""
    return await asyncio.to_thread(_outlive_host, arena)


def _outlive_host(arena: Arena) -> list[Stop]:
    packages, state = arena.folder / "plugins", arena.folder / "state" / "dying"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen(
        [sys.executable, "-c", _HOST, str(packages), str(state)], stdout=subprocess.PIPE, env=environment
    ) as host:
        assert host.stdout is not None
        try:
            family = members(int(host.stdout.readline()))
            fork_servers = [int(text) for text in _children(host.pid)]
            os.kill(host.pid, signal.SIGKILL)
            if left := gone([*family, *fork_servers]):
                raise NotStopped(f"still running after the host's death: {left}")
        finally:
            host.kill()
    return [Stop(seen=f"{len(family)} processes gone with it", layer="pid_namespace")]


def _children(pid: int) -> list[str]:
    return "".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")).split()
