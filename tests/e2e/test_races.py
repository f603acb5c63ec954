"""Commands that are cut short or come together: whatever the moment, nothing is left behind and nothing is stuck."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cardcage import CardcageError, PluginManager
from cardcage.supervise import PluginState

WritePlugin = Callable[..., Path]

SLOW_TO_LEAVE = """
    import threading

    class Main:
        def echo(self, value):
            return value

        def cleanup(self):
            threading.Event().wait(0.1)
"""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("moment_ms", [1, 40, 90, 101, 103, 105, 110])
async def test_an_unloading_that_is_cut_short_leaves_no_process_and_can_be_begun_anew(
    moment_ms: int, write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("slow", SLOW_TO_LEAVE)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        pid = (await manager.health("slow")).pid
        assert pid is not None
        try:
            async with asyncio.timeout(moment_ms / 1000):
                await manager.unload_plugin("slow")
        except TimeoutError:
            pass
        assert not _is_alive(pid)
        assert manager.get_plugin_status("slow") is PluginState.UNLOADED
        await manager.start_plugin("slow")
        assert await manager.call("slow", "echo", 1) == 1


async def test_commands_on_one_plugin_at_the_same_time_end_in_a_state_that_works(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("slow", SLOW_TO_LEAVE)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        for _ in range(5):
            answers = await asyncio.gather(
                *(manager.start_plugin("slow") for _ in range(4)),
                manager.stop_plugin("slow"),
                manager.unload_plugin("slow"),
                manager.call("slow", "echo", 1),
                manager.unload_plugin("slow"),
                return_exceptions=True,
            )
            wrong = [
                each for each in answers if isinstance(each, BaseException) and not isinstance(each, CardcageError)
            ]
            assert wrong == []
        await manager.unload_plugin("slow")
        await manager.start_plugin("slow")
        assert await manager.call("slow", "echo", 2) == 2
