"""Starts and stops of every kind, one after another: what is left behind after ten thousand of them?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

import yaml

from cardcage import CardcageError, PluginManager
from cardcage.runtime import RuntimePolicy
from cardcage.supervise import RestartPolicy

MORTAL: Final = """
import os

class Main:
    def work(self, n):
        return n

    def leave(self, code):
        os._exit(code)

    def abort(self):
        os.abort()

    def breed(self):
        if os.fork() == 0:
            os.setsid()
            while True:
                os.pause() if hasattr(os, "pause") else __import__("signal").pause()
        return "bred"
"""

AT_ONCE: Final = 4
"""Instances that live at the same time: starts then meet stops, as they do on a busy host."""


class Endings:
    """One manager, its instances, and every way in which one may come to its end."""

    def __init__(self, folder: Path, *, seed: int = 0) -> None:
        self.folder = folder
        self.counts: dict[str, int] = {}
        self._random = random.Random(seed)
        self._ways = {
            "stopped": self._stop,
            "left with a status": self._leave,
            "aborted": self._abort,
            "killed": self._kill,
            "stopped with children": self._breed,
            "setup refused": self._refused,
            "start cancelled": self._cancel,
        }

    def manager(self) -> PluginManager:
        """A manager over two plugins: one that starts, and one whose grant can never be shown to it."""
        self._write("mortal", MORTAL)
        missing = str(self.folder / "nowhere" / "bill.csv")
        self._write("greedy", MORTAL, permissions={"files": {"read": [missing]}})
        return PluginManager(
            plugin_paths=[self.folder / "plugins"],
            state_dir=self.folder / "state",
            auto_start=False,
            grants={"greedy": [f"read:{missing}"]},
            policy=RuntimePolicy(restart=RestartPolicy(intensity=0), stop_timeout_s=5.0),
        )

    def _write(self, name: str, code: str, **manifest: object) -> None:
        package = self.folder / "plugins" / name
        package.mkdir(parents=True)
        document = {"name": name, "version": "1.0.0", "entrypoint": "main:Main", **manifest}
        (package / "plugin.yaml").write_text(yaml.safe_dump(document))
        (package / "main.py").write_text(code)

    async def prepare(self, manager: PluginManager) -> None:
        """Every instance remembered, and each way gone once: what is made once is there when counting begins."""
        for number in range(AT_ONCE):
            for plugin in ("mortal", "greedy"):
                await manager.create_instance(plugin, label=f"m{number}")
        for way in self._ways:
            await self._one(manager, "mortal/m0", way)
        await asyncio.gather(*(self._one(manager, f"mortal/m{number}", "stopped") for number in range(AT_ONCE)))

    async def run(self, manager: PluginManager, starts: int, progress: Callable[[int], object]) -> None:
        """`starts` starts, a few at a time, each ended in a way chosen by chance."""
        left = iter(range(starts))

        async def worker(instance: str) -> None:
            for _ in left:
                await self._one(manager, instance, self._random.choice(list(self._ways)))
                progress(1)

        async with asyncio.TaskGroup() as group:
            for number in range(AT_ONCE):
                group.create_task(worker(f"mortal/m{number}"))

    async def _one(self, manager: PluginManager, instance: str, way: str) -> None:
        await self._ways[way](manager, instance)
        await manager.unload_instance(instance)
        self.counts[way] = self.counts.get(way, 0) + 1

    async def _stop(self, manager: PluginManager, instance: str) -> None:
        await manager.start_instance(instance)
        await manager.call(instance, "work", 1)
        await manager.stop_instance(instance)

    async def _leave(self, manager: PluginManager, instance: str) -> None:
        await manager.start_instance(instance)
        with contextlib.suppress(CardcageError):
            await manager.call(instance, "leave", self._random.choice((0, 3)))

    async def _abort(self, manager: PluginManager, instance: str) -> None:
        await manager.start_instance(instance)
        with contextlib.suppress(CardcageError):
            await manager.call(instance, "abort")

    async def _kill(self, manager: PluginManager, instance: str) -> None:
        await manager.start_instance(instance)
        pid = manager._live.get(instance).pid  # pyright: ignore[reportPrivateUsage]
        assert pid is not None
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    async def _breed(self, manager: PluginManager, instance: str) -> None:
        await manager.start_instance(instance)
        await manager.call(instance, "breed")

    async def _refused(self, manager: PluginManager, instance: str) -> None:
        greedy = instance.replace("mortal", "greedy")
        try:
            await manager.start_instance(greedy)
        except CardcageError as error:
            if error.code == "setup_failed":
                await manager.unload_instance(greedy)
                return
            raise
        raise AssertionError("a plugin whose grant cannot be shown was started")

    async def _cancel(self, manager: PluginManager, instance: str) -> None:
        # From before the fork to after the plugin's first answer.
        starting = asyncio.ensure_future(manager.start_instance(instance))
        await asyncio.wait({starting}, timeout=self._random.uniform(0.0, 0.03))
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
