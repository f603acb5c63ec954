"""The measurements themselves: each yields raw samples, in seconds unless its name says otherwise."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from peers import RawEcho, bubblewrap_s, raw_echo, spawn_s
from processes import family, pin, private_bytes

from cardcage import PluginManager, extension_point
from cardcage.foundation.errors import CardcageError
from cardcage.runtime import RuntimePolicy
from cardcage.supervise import RestartPolicy

PLUGIN = Path(__file__).resolve().parent / "plugins" / "bench-echo"
TEXT = "x" * 100
QUIET_S = 0.2
"""Restarts within this time of one another back off; each one that is measured is the first in a while."""

Samples = dict[str, Any]


@extension_point("bench_echo", version=1)
class BenchEcho(Protocol):
    """The typed call that is measured."""

    async def echo(self, text: str) -> str:
        """The same text."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """How many samples of what."""

    servers: int
    rounds: int
    calls: int
    concurrent_calls: int
    starts: int
    recoveries: int
    idle: int

    @classmethod
    def quick(cls) -> Sizes:
        return cls(servers=3, rounds=6, calls=400, concurrent_calls=6_400, starts=12, recoveries=6, idle=8)

    @classmethod
    def full(cls) -> Sizes:
        return cls(servers=7, rounds=20, calls=2_000, concurrent_calls=64_000, starts=60, recoveries=25, idle=50)


async def measure(sizes: Sizes, state_dir: Path, *, say: Callable[[str], None]) -> Samples:
    """All measurements, one after the other.

    All instances of one fork server share its address layout, and some layouts make every call a third slower or more
    (branches of host and plugin that the processor confuses). So calls are measured over several fork servers.
    """
    samples: Samples = {}
    say("calls against a raw socketpair")
    for _ in range(sizes.servers):
        async with _manager(state_dir) as manager:
            await manager.start_plugin(str(PLUGIN))
            for name, taken in (await _calls(manager, sizes)).items():
                samples.setdefault(name, []).extend(taken)
    async with _manager(state_dir) as manager:
        await manager.start_plugin(str(PLUGIN))
        say("64 calls in flight")
        samples["inflight64_s_per_call"] = await _in_flight(manager, sizes)
        say("cold starts against plain processes")
        samples |= await _starts(manager, sizes)
        say("recovery after kill -9")
        samples["recovery_s"] = await _recoveries(manager, sizes)
        say("memory of idle instances, and what it costs to look at what they use")
        samples |= await _idle(manager, sizes)
        return samples


def _manager(state_dir: Path) -> PluginManager:
    policy = RuntimePolicy(restart=RestartPolicy(intensity=3, window_s=QUIET_S, backoff_initial_s=0.01))
    return PluginManager(state_dir=state_dir, extension_points=[BenchEcho], packs=(), auto_start=False, policy=policy)


async def _calls(manager: PluginManager, sizes: Sizes) -> Samples:
    """The same number of ping-pongs and typed calls in turns, both ends on one core and then on two."""
    echo = manager.provider(BenchEcho, "bench-echo")
    plugin_pid = manager.plugin_info("bench-echo").instances[0].pid
    assert plugin_pid is not None
    cpus = sorted(os.sched_getaffinity(0))
    samples: Samples = {}
    with raw_echo() as raw:
        for where, other in (("one_core", cpus[0]), ("two_cores", cpus[-1])):
            if where == "two_cores" and len(cpus) == 1:
                continue
            os.sched_setaffinity(0, {cpus[0]})
            pin(raw.pid, other)
            pin(plugin_pid, other)
            samples |= await _turns(echo, raw, sizes, where)
    for pid in (0, *family(plugin_pid)):
        os.sched_setaffinity(pid, cpus)
    return samples


async def _turns(echo: BenchEcho, raw: RawEcho, sizes: Sizes, where: str) -> Samples:
    raw.round_s(sizes.calls // 4)  # warm up, uncounted
    await _round(echo, sizes.calls // 4)
    floor, calls = list[float](), list[float]()
    for _ in range(max(1, sizes.rounds // sizes.servers)):
        floor += raw.round_s(sizes.calls)
        calls += await _round(echo, sizes.calls)
    return {f"socketpair_{where}_s": floor, f"call_{where}_s": calls}


async def _round(echo: BenchEcho, calls: int) -> list[float]:
    clock, taken = time.perf_counter, list[float]()
    for _ in range(calls):
        began_s = clock()
        await echo.echo(TEXT)
        taken.append(clock() - began_s)
    return taken


async def _in_flight(manager: PluginManager, sizes: Sizes) -> list[float]:
    """Seconds a call, with 64 callers at once; one sample a round."""
    echo = manager.provider(BenchEcho, "bench-echo")

    async def caller(calls: int) -> None:
        for _ in range(calls):
            await echo.echo(TEXT)

    taken: list[float] = []
    each = sizes.concurrent_calls // 64
    for _ in range(sizes.rounds):
        began_s = time.perf_counter()
        await asyncio.gather(*(caller(each) for _ in range(64)))
        taken.append((time.perf_counter() - began_s) / (each * 64))
    return taken


async def _starts(manager: PluginManager, sizes: Sizes) -> Samples:
    """From the decision to start an instance to its first answer, in turns with processes that do nothing."""
    ours, spawns, wrapped = list[float](), list[float](), list[float]()
    for index in range(sizes.starts):
        instance = await manager.create_instance("bench-echo", label=f"start-{index}")
        began_s = time.perf_counter()
        await manager.start_instance(instance)
        await manager.call(instance, "echo", TEXT)
        ours.append(time.perf_counter() - began_s)
        await manager.remove_instance(instance)
        for taken, peer in ((spawns, spawn_s), (wrapped, bubblewrap_s)):
            if (seconds := await asyncio.to_thread(peer)) is not None:
                taken.append(seconds)
    return {"cold_start_s": ours, "spawn_s": spawns, "bubblewrap_s": wrapped}


async def _recoveries(manager: PluginManager, sizes: Sizes) -> list[float]:
    """From kill -9 of the serving process to the first answer of another one, whatever fails in between."""
    instance = await manager.create_instance("bench-echo", label="killed")
    await manager.start_instance(instance)
    taken: list[float] = []
    for _ in range(sizes.recoveries):
        pid = next(each.pid for each in manager.plugin_info("bench-echo").instances if each.id == instance)
        assert pid is not None
        before = await manager.call(instance, "born")
        await asyncio.sleep(QUIET_S)
        began_s = time.perf_counter()
        os.kill(family(pid)[-1], signal.SIGKILL)
        await _until_another(manager, instance, before)
        taken.append(time.perf_counter() - began_s)
    await manager.remove_instance(instance)
    return taken


async def _until_another(manager: PluginManager, instance: str, before: str) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                if await manager.call(instance, "born") != before:
                    return
            except CardcageError:
                pass  # the old process's end, or the new one's beginning
            await asyncio.sleep(0)


async def _idle(manager: PluginManager, sizes: Sizes) -> Samples:
    """What each of many idle instances holds for itself alone, after its first call, and one look at its usage."""
    instances = [await manager.create_instance("bench-echo", label=f"idle-{index}") for index in range(sizes.idle)]
    for instance in instances:
        await manager.start_instance(instance)
        await manager.call(instance, "echo", TEXT)
    pids = [each.pid for each in manager.plugin_info("bench-echo").instances if "/idle-" in each.id]
    held = [private_bytes(pid) for pid in pids if pid is not None]
    looks: list[float] = []
    for _ in range(sizes.rounds):
        began_s = time.perf_counter()
        used = manager.usage_all()
        looks.append((time.perf_counter() - began_s) / len(used))
    for instance in instances:
        await manager.remove_instance(instance)
    return {"private_bytes": held, "metering_s": looks}
