"""Traps that are left in files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from cardcage import CardcageError

from ..behaviour import NotStopped, Stop

if TYPE_CHECKING:
    from ..arena import Arena

_THIEF = "file-thief"


async def leave_links_for_the_host(arena: Arena) -> list[Stop]:
    """Links in its data folder, which the host takes over with root's rights; and a link in a package."""
    bait = Path(arena.planted.home) / "bait"
    bait.write_text("the host's")
    before = bait.stat()
    await arena.ensure(arena.walled, _THIEF)
    await arena.walled.call(_THIEF, "leave_link", str(bait))
    data = arena.data_dir(_THIEF)
    links = [path for path in data.iterdir() if path.is_symlink()]
    if len(links) != 3:
        raise NotStopped(f"the trap was not laid: {links}")
    if arena.as_root:
        # The folder is handed over again at the next start, with everything in it.
        os.chown(data, 0, 0)
    await arena.renew(_THIEF)
    await arena.walled.call(_THIEF, "list", arena.walled.plan(_THIEF).inside.data_dir)
    after = bait.stat()
    if (before.st_uid, before.st_mode, bait.read_text()) != (after.st_uid, after.st_mode, "the host's"):
        raise NotStopped(f"the host followed a link and changed {bait}")
    for link in links:
        link.unlink()
    return [Stop(seen="not followed", layer="host opens beneath"), await _link_in_package(arena, bait)]


async def _link_in_package(arena: Arena, bait: Path) -> Stop:
    package = arena.package("linked")
    (package / "template.txt").symlink_to(bait)
    try:
        await arena.walled.register_plugin(package)
    except CardcageError as error:
        if "link that stays in the package" in error.message:
            return Stop(seen=error.code, layer="package checks")
        raise
    raise NotStopped("a package with a link to a file of the host was registered")


async def own_files_as_root(arena: Arena) -> list[Stop]:
    """Whose file it is that a plugin writes."""
    await arena.ensure(arena.walled, _THIEF)
    await arena.walled.call(_THIEF, "who_owns_what_it_writes")
    mine = arena.data_dir(_THIEF) / "mine"
    owner = mine.stat().st_uid
    mine.unlink()
    if owner == 0:
        raise NotStopped(f"{mine} belongs to root")
    return [Stop(seen=f"uid {owner}", layer="own_uid")]
