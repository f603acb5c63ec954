"""Siblings, set-id programs, core files, and what a fork leaves in memory."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from cardcage import CardcageError

from ..behaviour import NotStopped, Stop

if TYPE_CHECKING:
    from ..arena import Arena


async def look_for_siblings(arena: Arena) -> list[Stop]:
    """Two instances side by side: each sees its own processes alone."""
    await arena.ensure(arena.walled, "lingerer")
    await arena.ensure(arena.walled, "process-spy")
    try:
        found = await arena.walled.call("process-spy", "list_processes", 2)
    except CardcageError as error:
        if "FoundNothing" in error.message:
            return [Stop(seen="only its own", layer="pid_namespace")]
        if "Errno 13" in error.message:
            return [Stop(seen="EACCES", layer="landlock_files")]
        raise
    raise NotStopped(f"processes of others are seen: {found}")


_RUNS_GRANTED = """
import os

class Main:
    def run(self, path):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(write_end, 1)
            os.execv(path, [path, "-u"])
        os.close(write_end)
        os.waitpid(child, 0)
        return os.read(read_end, 100).decode()
"""


async def run_granted_setuid_program(arena: Arena) -> list[Stop]:
    """A set-id program of root that was granted: it runs, as whoever the plugin is."""
    if not arena.as_root:
        return []
    program = Path(arena.planted.home) / "id"
    shutil.copy(shutil.which("id") or "/usr/bin/id", program)
    program.chmod(0o4755)
    package = arena.package("runs-granted", _RUNS_GRANTED, permissions={"subprocess": [str(program)]})
    granted = arena.manager(
        "granted", plugin_paths=[package.parent], grants={"runs-granted": [f"subprocess:{program}"]}
    )
    async with granted as manager:
        await manager.start_plugin("runs-granted")
        uid = (await manager.call("runs-granted", "run", str(program))).strip()
    if uid == "0":
        raise NotStopped("a set-id program gave a plugin root's rights")
    if not uid.isdigit():
        raise NotStopped(f"the granted program did not say who it is: {uid!r}")
    return [Stop(seen=f"uid {uid}", layer="no_new_privileges")]


_ABORTS = """
import os

class Main:
    def abort(self):
        os.chdir(os.environ["HOME"])
        os.abort()
"""


async def dump_core(arena: Arena) -> list[Stop]:
    """A crash that would leave the plugin's memory in a folder of the host."""
    package = arena.package("aborts", _ABORTS)
    async with arena.manager("aborting", plugin_paths=[package.parent]) as manager:
        await manager.start_plugin("aborts")
        data = manager._live.get("aborts").blueprint.spec.data_dir  # pyright: ignore[reportPrivateUsage]
        before = {path.name for path in data.iterdir()}  # a machine keeps its data in a disk of its own
        try:
            await manager.call("aborts", "abort")
        except CardcageError as error:
            if "SIGABRT" not in error.message:
                raise
        left = sorted({path.name for path in data.iterdir()} - before)
    if left:
        raise NotStopped(f"a core dump was left: {left}")
    return [Stop(seen="no file", layer="resource_limits")]


_SEARCHES = """
class Main:
    def find(self, shifted):
        # Every letter is the next one of the alphabet, or this search would find what it was given.
        sought, found = shifted.encode(), 0
        next_letter = bytes((value + 1) % 256 for value in range(256))
        with open("/proc/self/maps") as maps, open("/proc/self/mem", "rb", 0) as memory:
            for line in maps:
                span, rights = line.split()[:2]
                if not rights.startswith("rw"):
                    continue
                start, end = (int(part, 16) for part in span.split("-"))
                try:
                    memory.seek(start)
                    found += memory.read(end - start).translate(next_letter).count(sought)
                except (OSError, ValueError, OverflowError):
                    pass
        return found
"""


async def search_memory(arena: Arena) -> list[Stop]:
    """Every instance is a fork of one process: what that was told of one must not be found in another."""
    own, other = "ownlabelofthisone", "topsecretcustomer"
    package = arena.package("searches", _SEARCHES)
    async with arena.manager("searching", plugin_paths=[package.parent]) as manager:
        for label in (other, own):
            await manager.create_instance("searches", label=label)
            await manager.start_instance(f"searches/{label}")
        try:
            counts = [
                await manager.call(f"searches/{own}", "find", "".join(chr(ord(letter) + 1) for letter in label))
                for label in (own, other)
            ]
        except CardcageError as error:
            if "Errno 13" in error.message:
                return [Stop(seen="EACCES", layer="landlock_files")]
            raise
    if not counts[0]:
        raise NotStopped("the search finds nothing at all, so it shows nothing")
    if counts[1]:
        raise NotStopped(f"what another instance was given was found {counts[1]} times")
    return [Stop(seen="wiped", layer="fork server")]
