"""Plugins that take more than they were given, over a whole manager: kept by control groups, and without any."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from cardcage import PluginManager
from cardcage.foundation.errors import CardcageError, PluginFault
from cardcage.manager import Event, live_instances
from cardcage.runtime import RuntimePolicy, warden
from cardcage.sandbox.doctor import examine
from cardcage.sandbox.group_search import GroupsFound, find_groups
from cardcage.sandbox.plan import STRICT_FLOOR
from cardcage.sandbox.report import LayerName, LayerStatus
from cardcage.supervise import RestartPolicy
from cardcage.supervise.pacing import PERIOD_S

TIMEOUT_S = 60.0
MIB = 1 << 20

GLUTTON = """
    import mmap, os, threading, time
    from cardcage_sdk import Plugin

    MIB = 1 << 20

    class Main(Plugin):
        def objects(self, mib):
            self.held = bytearray(b"x" * (mib * MIB))

        def kept(self, mib):
            self.objects(mib)
            time.sleep(30)

        def mapped(self, mib):
            self._touch(mmap.mmap(-1, mib * MIB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))

        def shared(self, mib):
            self._touch(mmap.mmap(-1, mib * MIB))

        def memory_file(self, mib):
            self.held = os.memfd_create("held")
            for _ in range(mib):
                os.write(self.held, bytes(MIB))
            time.sleep(30)

        def temporary_files(self, mib):
            for number in range(mib):
                with open(f"/tmp/{number}", "wb") as file:
                    file.write(bytes(MIB))

        def crowd(self, mib):
            for _ in range(4):
                if os.fork() == 0:
                    self.held = bytearray(b"x" * (mib // 4 * MIB))
                    time.sleep(60)
                    os._exit(0)
            time.sleep(30)

        def child(self, mib):
            pid = os.fork()
            if pid == 0:
                try:
                    self.objects(mib)
                finally:
                    os._exit(0)
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

        def _touch(self, held):
            for start in range(0, len(held), 4096):
                held[start] = 1
            time.sleep(30)

        def spin(self, seconds, processes):
            end = time.monotonic() + seconds
            for _ in range(processes - 1):
                if os.fork() == 0:
                    while time.monotonic() < end:
                        pass
                    os._exit(0)
            thread = threading.Thread(target=lambda: [None for _ in iter(lambda: time.monotonic() < end, False)])
            thread.start()
            while time.monotonic() < end:
                pass
            thread.join()
            for _ in range(processes - 1):
                os.wait()

        def breed(self, most):
            count = 0
            try:
                while count < most:
                    if os.fork() == 0:
                        time.sleep(60)
                        os._exit(0)
                    count += 1
            except OSError as error:
                return [count, error.strerror]
            return [count, None]

        def open_many(self, most):
            held = []
            try:
                while len(held) < most:
                    held.append(open("/dev/null"))
            except OSError as error:
                return [len(held), error.strerror]
            return [len(held), None]

        def fill(self, folder, files, size):
            written = 0
            for number in range(files):
                try:
                    with open(f"{folder}/{number}", "wb") as file:
                        file.write(bytes(size))
                except OSError as error:
                    return [written, error.strerror]
                written += 1
            time.sleep(30)
            return [written, None]

        def hide(self, files, mib):
            self.held = [open(f"/data/{number}", "wb") for number in range(files)]
            for number, file in enumerate(self.held):
                os.unlink(f"/data/{number}")
                for _ in range(mib):
                    file.write(bytes(MIB))
                file.flush()
            time.sleep(30)

        def bury(self):
            os.mkdir("/data/closed")
            os.chmod("/data/closed", 0)
            time.sleep(30)

        def close_up(self):
            import ctypes
            ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)
            end = time.monotonic() + 30
            while time.monotonic() < end:
                pass

        def groups(self):
            with open("/proc/self/cgroup") as file:
                return sorted({line.strip().split(":", 2)[2] for line in file})

        def pid(self):
            return os.getpid()
"""
NEIGHBOUR = """
    from cardcage_sdk import Plugin

    class Main(Plugin):
        def well(self):
            return True
"""


@pytest.fixture(scope="module", autouse=True)
def walls() -> None:
    if below := examine().below(STRICT_FLOOR):
        pytest.skip(f"walls cannot be put up here: {[layer.name for layer in below]}")


@pytest.fixture(params=["control groups", "looks"])
def kept_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What keeps memory and CPU: the kernel's control groups, or the host that looks after them itself."""
    if request.param == "looks":
        monkeypatch.setattr(live_instances, "find_groups", lambda: GroupsFound(driver=None))
        return "looks"
    found = find_groups()
    if found.driver is None:
        pytest.skip(f"must run as root, or where control groups are delegated: {found.why_not}")
    found.driver.close()
    return "control groups"


class Host:
    """A manager with a glutton and a neighbour, and what it told."""

    def __init__(self, manager: PluginManager) -> None:
        self.manager = manager
        self.events: list[Event] = []
        self._changed = asyncio.Event()
        manager.subscribe("plugin.*", self._see)

    def _see(self, event: Event) -> None:
        self.events.append(event)
        self._changed.set()

    async def event(self, name: str) -> Any:
        """The data of the next event of that name, also of one that has come already."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                found = next((event for event in self.events if event.name == name), None)
                if found is not None:
                    return found.data
                self._changed.clear()
                await self._changed.wait()

    async def call(self, method: str, *args: Any, plugin: str = "glutton") -> Any:
        return await self.manager.call(plugin, method, *args, timeout_s=TIMEOUT_S)

    async def dies(self, method: str, *args: Any) -> PluginFault:
        with pytest.raises(PluginFault) as caught:
            await self.call(method, *args)
        assert await self.call("well", plugin="neighbour"), "neighbours go on"
        return caught.value


Open = Callable[..., Any]


@pytest.fixture
async def open_host(kept_by: str, write_plugin: Any, plugins_dir: Path, state_dir: Path) -> AsyncIterator[Open]:
    opened: list[PluginManager] = []

    async def begin(**limits: Any) -> Host:
        write_plugin("glutton", GLUTTON, manifest={"limits": limits})
        write_plugin("neighbour", NEIGHBOUR)
        policy = RuntimePolicy(restart=RestartPolicy(backoff_initial_s=0.01))
        manager = PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, packs=(), policy=policy)
        opened.append(await manager.__aenter__())
        assert manager.problems() == []
        return Host(manager)

    yield begin
    for manager in opened:
        await manager.stop()


@pytest.mark.parametrize("way", ["kept", "mapped", "shared", "memory_file", "crowd"])
async def test_more_memory_than_the_limit_ends_the_plugin_and_names_the_limit(open_host: Open, way: str) -> None:
    host = await open_host(memory="64MiB")
    if way == "crowd" and _kills_one_process(host.manager):
        await host.call("pid")
        fault = None
        calling = asyncio.create_task(host.call(way, 160))
        assert (await host.event("plugin.limit_hit"))["limit"] == "memory"
        calling.cancel()
        await asyncio.gather(calling, return_exceptions=True)
    else:
        fault = await host.dies(way, 160)
        assert fault.message.startswith(
            f'plugin "glutton" 1.0.0 ran out of the 64 MiB of memory it was given during {way}()'
        )
        assert fault.fields["exit_reason"] == "out_of_memory"
        crashed = await host.event("plugin.crashed")
        assert crashed["limit"] == {"name": "memory", "value": 64 * MIB, "text": "64 MiB"}
        assert "64 MiB of memory" in crashed["error"]["message"]
    assert await host.call("well", plugin="neighbour")


async def test_a_memory_file_filled_between_two_looks_is_found_though_the_plugin_then_sleeps(
    open_host: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Filled in a fraction of this time, and asleep from then on: whoever looks at nothing but what runs never sees it.
    monkeypatch.setattr(warden, "HIDDEN_S", 2.0)
    host = await open_host(memory="64MiB")
    assert (await host.dies("memory_file", 160)).fields["exit_reason"] == "out_of_memory"


def _kills_one_process(manager: PluginManager) -> bool:
    """Whether what runs out of memory here loses the process that took it, and not all of them."""
    report = manager.report("glutton")
    assert report is not None
    return any(layer.name == LayerName.CGROUP_LIMITS and "groups v1" in layer.detail for layer in report.layers)


async def test_temporary_files_are_memory_and_end_with_it(open_host: Open) -> None:
    host = await open_host(memory="64MiB", disk="1GiB")
    fault = await host.dies("temporary_files", 160)
    # Whichever comes first: the folder is no larger than the memory.
    assert fault.fields.get("exit_reason") == "out_of_memory" or "No space left" in fault.message


async def test_a_child_that_ran_out_of_memory_is_told_of_while_the_plugin_goes_on(
    open_host: Open, kept_by: str
) -> None:
    host = await open_host(memory="64MiB")
    if kept_by == "looks" or not _kills_one_process(host.manager):
        fault = await host.dies("child", 160)
        assert fault.fields["exit_reason"] == "out_of_memory"
        return
    before = await host.call("pid")
    assert await host.call("child", 160) == -signal.SIGKILL
    hit = await host.event("plugin.limit_hit")
    assert (hit["plugin"], hit["limit"]) == ("glutton", "memory")
    assert "64 MiB of memory" in hit["message"]
    assert await host.call("pid") == before
    assert host.manager.usage("glutton").hits.oom_kills >= 1


async def test_memory_within_the_limit_is_given_also_to_several_processes_that_share_it(open_host: Open) -> None:
    host = await open_host(memory="64MiB")
    await host.call("objects", 24)
    count, refusal = await host.call("breed", 8)
    assert (count, refusal) == (8, None)
    assert await host.call("pid"), "shared pages count once"


@pytest.mark.skipif(os.geteuid() == 0, reason="must not run as root: that can look at every process")
async def test_a_process_that_does_not_let_its_memory_be_counted_is_ended(open_host: Open) -> None:
    host = await open_host(memory="64MiB")
    assert "keeps the host from counting" in (await host.dies("close_up")).message


async def test_a_share_of_the_processor_is_held_for_threads_and_for_processes(open_host: Open) -> None:
    """Over ten seconds of the clock; on a machine that is too busy to give it its share, only the upper bound holds."""
    host = await open_host(cpu=0.2, processes=16)
    for processes in (1, 3):
        began_s, before = time.monotonic(), host.manager.usage("glutton")
        await host.call("spin", 10.0, processes)
        took_s, after = time.monotonic() - began_s, host.manager.usage("glutton")
        ratio = (after.cpu_s - before.cpu_s) / took_s / 0.2
        held_back = after.hits.throttled_periods - before.hits.throttled_periods
        assert ratio <= 1.1
        assert ratio >= 0.9 or held_back < 0.8 * took_s / PERIOD_S, f"{ratio:.2f} of its share, stopped {held_back}x"


async def test_a_fork_bomb_is_held_to_its_number_and_the_host_still_forks(open_host: Open) -> None:
    host = await open_host(processes=12)
    count, refusal = await host.call("breed", 500)
    assert (count, refusal) == (11, "Resource temporarily unavailable")
    assert subprocess.run(["true"], check=True).returncode == 0
    hit = await host.event("plugin.limit_hit")
    assert hit["limit"] == "processes"
    assert host.manager.usage("glutton").processes == 12
    assert await host.call("well", plugin="neighbour")


async def test_descriptors_are_held_to_their_number(open_host: Open) -> None:
    host = await open_host(descriptors=40)
    count, refusal = await host.call("open_many", 500)
    assert refusal == "Too many open files"
    assert count < 40


async def test_many_files_that_are_too_much_together_end_the_plugin(open_host: Open) -> None:
    host = await open_host(disk="16MiB")
    fault = await host.dies("fill", "/data", 64, MIB)
    assert fault.message.startswith('plugin "glutton" 1.0.0 used up the 16 MiB of disk it was given during fill()')
    assert fault.fields["exit_reason"] == "disk_limit"
    assert fault.fields["limit"] == {"name": "disk", "value": 16 * MIB, "text": "16 MiB"}


async def test_one_file_that_is_too_large_is_refused(open_host: Open) -> None:
    host = await open_host(disk="16MiB")
    assert await host.call("fill", "/data", 1, 17 * MIB) == [0, "File too large"]


async def test_too_many_files_end_the_plugin(open_host: Open) -> None:
    host = await open_host(inodes=100)
    fault = await host.dies("fill", "/data", 2000, 0)
    assert "used up the 100 files it may have in its data folder" in fault.message
    assert fault.fields["exit_reason"] == "disk_limit"
    assert fault.fields["limit"]["name"] == "inodes"


async def test_too_many_temporary_files_are_refused(open_host: Open) -> None:
    host = await open_host(inodes=100)
    written, refusal = await host.call("fill", "/tmp", 2000, 0)
    assert refusal == "No space left on device"
    assert written <= 100


async def test_files_without_a_name_take_up_disk_too(open_host: Open) -> None:
    host = await open_host(disk="16MiB")
    assert (await host.dies("hide", 3, 10)).fields["exit_reason"] == "disk_limit"


@pytest.mark.skipif(os.geteuid() == 0, reason="must not run as root: that can look into every folder")
async def test_a_folder_that_the_host_cannot_look_into_ends_the_plugin(open_host: Open) -> None:
    host = await open_host(disk="16MiB")
    fault = await host.dies("bury")
    assert fault.fields["exit_reason"] == "disk_limit"
    assert "hides files" in fault.message


async def test_a_plugin_that_states_no_limits_has_some(open_host: Open) -> None:
    host = await open_host()
    limits = host.manager.plan("glutton").limits
    assert None not in (
        limits.memory_bytes,
        limits.cpu_cores,
        limits.processes,
        limits.open_files,
        limits.disk_bytes,
        limits.inodes,
    )


async def test_what_is_used_is_told(open_host: Open) -> None:
    host = await open_host(memory="256MiB")
    before = host.manager.usage("glutton")
    await host.call("objects", 64)
    after = host.manager.usage("glutton")
    assert after.memory_bytes - before.memory_bytes >= 60 * MIB
    assert after.cpu_s > before.cpu_s
    assert after.processes == 1
    assert after.limits.memory_bytes == 256 * MIB
    assert {"glutton", "neighbour"} == set(host.manager.usage_all())


async def test_the_report_says_who_keeps_the_limits(open_host: Open, kept_by: str) -> None:
    host = await open_host()
    report = host.manager.report("glutton")
    expected = LayerStatus.ENFORCED if kept_by == "control groups" else LayerStatus.BEST_EFFORT
    assert report.status(LayerName.CGROUP_LIMITS) is expected
    assert report.status(LayerName.DISK_LIMITS) is LayerStatus.BEST_EFFORT


async def test_a_plugin_sees_nothing_of_the_group_that_it_is_in(open_host: Open) -> None:
    host = await open_host()
    assert await host.call("groups") == ["/"]


async def test_nothing_is_left_of_groups(open_host: Open, kept_by: str) -> None:
    host = await open_host(memory="64MiB")
    made = _groups_of("glutton", os.getpid())
    assert bool(made) is (kept_by == "control groups")
    with pytest.raises(CardcageError):
        await host.call("objects", 160)
    await host.event("plugin.restarted")
    again = _groups_of("glutton", os.getpid())
    assert not set(made) & set(again)
    await host.manager.stop()
    assert [path for path in {*made, *again} if Path(path).exists()] == []


def _groups_of(plugin: str, host: int) -> list[str]:
    """Groups of that plugin in the folders that this process holds open, which are those of its hosts."""
    held: set[str] = set()
    for name in os.listdir(f"/proc/{host}/fd"):
        with contextlib.suppress(FileNotFoundError):
            held.add(os.readlink(f"/proc/{host}/fd/{name}"))
    folders = [folder for folder in held if "/cardcage-" in folder]
    return [path for folder in folders for path, _, _ in os.walk(folder) if path.endswith(f"-{plugin}")]


def test_a_host_that_is_killed_leaves_no_process_and_its_groups_are_swept_by_the_next(
    write_plugin: Any, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("glutton", GLUTTON)
    program = f"""
        import asyncio, sys
        from cardcage import PluginManager
        async def main():
            async with PluginManager(plugin_paths=[{str(plugins_dir)!r}], state_dir={str(state_dir)!r}, packs=()) as m:
                print(m.plugin_info("glutton").instances[0].pid, flush=True)
                await asyncio.sleep(600)
        asyncio.run(main())
    """
    host = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE)
    assert host.stdout is not None
    plugin = os.pidfd_open(int(host.stdout.readline()))
    left = _groups_of("glutton", host.pid)
    host.kill()
    host.wait()
    host.stdout.close()
    assert select.select([plugin], [], [], TIMEOUT_S)[0], "the plugin outlives its host"
    os.close(plugin)
    found = find_groups()
    if found.driver is not None:
        found.driver.close()
        assert left, "there were some"
    assert [path for path in left if Path(path).exists()] == []
