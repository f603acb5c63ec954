"""Commands that are cut short or come together: whatever the moment, nothing is left behind and nothing is stuck."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from cardcage import CardcageError, PluginManager
from cardcage.audit.writer import AuditWriter
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
    """A zombie is dead: it waits for a parent that may be anybody's."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


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


def _children(of: int | str = "self") -> set[int]:
    """Those of every thread."""
    tasks = Path(f"/proc/{of}/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


async def _audit_log_is_open(manager: PluginManager) -> None:
    """A thread of its own opens the log a moment after the first event; from then on its descriptor stays."""
    assert isinstance(manager.audit, AuditWriter)
    assert await asyncio.to_thread(manager.audit.flush)


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("moment_ms", [0, 1, 30, 101])
async def test_a_manager_whose_end_is_cut_short_leaves_no_process(
    moment_ms: int, write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("slow", SLOW_TO_LEAVE)
    before = _children()
    manager = PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir)
    await manager.__aenter__()
    pid = (await manager.health("slow")).pid
    assert pid is not None
    try:
        async with asyncio.timeout(moment_ms / 1000):
            await manager.stop()
    except TimeoutError:
        pass
    async with asyncio.timeout(30):
        while _is_alive(pid) or _children() - before:
            await asyncio.sleep(0.01)


async def test_a_start_that_is_cut_short_anywhere_closes_each_descriptor_once(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("slow", SLOW_TO_LEAVE)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        await manager.unload_plugin("slow")
        await _audit_log_is_open(manager)
        before = _descriptors()
        for moment in range(40):
            try:
                async with asyncio.timeout(moment * 0.0005):
                    await manager.start_plugin("slow")
            except TimeoutError:  # anything else would be a descriptor closed twice, or a cancellation lost
                pass
            await manager.unload_plugin("slow")
        async with asyncio.timeout(30):
            while _descriptors() > before:
                await asyncio.sleep(0.01)
        await manager.start_plugin("slow")
        assert await manager.call("slow", "echo", 1) == 1


async def test_a_fork_server_that_answers_no_more_is_ended_and_replaced(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin("slow", SLOW_TO_LEAVE)
    before = _children()
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        await manager.unload_plugin("slow")
        (server,) = _children() - before
        (worker,) = _children(server)
        monkeypatch.setattr("cardcage.launch.fork_server.CONNECT_TIMEOUT_S", 0.5)
        os.kill(worker, signal.SIGSTOP)
        with pytest.raises(CardcageError, match="fork server did not answer"):
            await manager.start_plugin("slow")
        monkeypatch.undo()
        await manager.start_plugin("slow")
        assert await manager.call("slow", "echo", 1) == 1
        assert not _is_alive(worker)
