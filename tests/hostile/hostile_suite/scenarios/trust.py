"""Releases that are not what was agreed to."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Final

import cardcage
from cardcage import CardcageError, PluginManager
from cardcage.trust import verify

from ..behaviour import NotStopped, Stop
from .packages import OWN_BACKEND

if TYPE_CHECKING:
    from ..arena import Arena

_SOURCES: Final = Path(cardcage.__file__).parent
_INSTALLS: Final = re.compile(
    r"""import (pip|ensurepip|setuptools|build)\b|["'](pip3?|uv|easy_install)["']|-m (pip|uv)\b"""
)
"""What code that installs or builds would have to name."""


async def _start_is_refused(manager: PluginManager, plugin: str, code: str, layer: str) -> Stop:
    try:
        await manager.start_plugin(plugin)
    except CardcageError as error:
        if error.code != code:
            raise NotStopped(f"{plugin}: {error.code} ({error.message}), expected {code}") from None
        return Stop(seen=code, layer=layer)
    raise NotStopped(f"{plugin} was started, expected {code}")


def installers() -> list[str]:
    """The modules of the host that name a tool which installs or builds packages."""
    found: list[str] = []
    for path in sorted(_SOURCES.rglob("*.py")):
        code = "\n".join(line.partition("#")[0] for line in path.read_text().splitlines())
        if _INSTALLS.search(re.sub(r'"""[\s\S]*?"""', "", code)):
            found.append(str(path.relative_to(_SOURCES)))
    return found


async def dependency_confusion(arena: Arena) -> list[Stop]:
    """A dependency that nobody registered is not looked for anywhere else; Python ones are not installed at all."""
    package = arena.package("confused", dependencies=["internal-billing-library"])
    (package / "requirements.txt").write_text("internal-billing-library\n--index-url http://127.0.0.1:9/\n")
    async with arena.manager("confusing", plugin_paths=[package.parent]) as manager:
        stop = await _start_is_refused(manager, "confused", "dependencies_unmet", "resolver")
    if found := installers():
        raise NotStopped(f"there is code that installs packages, and no test of where it takes them from: {found}")
    return [stop, Stop(seen="nothing installs", layer="no surface: dependencies are not installed")]


async def build_from_source(arena: Arena) -> list[Stop]:
    """A build backend that would run as soon as somebody builds it."""
    marker = arena.planted.marker
    package = arena.package("source")
    (package / "setup.py").write_text(f"open({marker!r}, 'w').close()\n")
    (package / "pyproject.toml").write_text(OWN_BACKEND)
    async with arena.manager("building", plugin_paths=[package.parent]) as manager:
        await manager.start_plugin("source")
    if Path(marker).exists():
        Path(marker).unlink()
        raise NotStopped("a build backend was run")
    if found := installers():
        raise NotStopped(f"there is code that builds packages: {found}")
    return [Stop(seen="no marker", layer="no surface: nothing is built")]


async def strip_signature(arena: Arena) -> list[Stop]:
    """Releases are trusted by digest, and not yet by signature: what was registered holds to its last byte."""
    if importlib.util.find_spec("cardcage.trust.signature") is not None:
        raise NotStopped("there are signatures now, and nothing here that strips one")
    package = arena.package("signed")
    (package / "plugin.yaml.sig").write_bytes(b"ed25519:" + bytes(64))
    async with arena.manager("signing", plugin_paths=[package.parent]) as manager:
        digest = manager.plugin_info("signed").digest
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise NotStopped(f"the digest is not SHA-256: {digest}")
        (package / "plugin.yaml.sig").unlink()
        stripped = await _start_is_refused(manager, "signed", "digest_mismatch", "package digest")
        (package / "plugin.yaml.sig").write_bytes(b"md5:" + bytes(16))
        weaker = await _start_is_refused(manager, "signed", "digest_mismatch", "package digest")
    return [stripped, weaker, Stop(seen="by digest alone", layer="no surface: releases are not signed")]


async def roll_back(arena: Arena) -> list[Stop]:
    """An older release, with the holes that the newer one closed, offered again under the same name."""
    newer = arena.package("rolled", version="2.1.0")
    older = arena.package("rolled", version="2.0.9")
    before = arena.package("rolled", version="2.1.0-rc.1")
    async with arena.manager("rolling", plugin_paths=[newer.parent]) as manager:
        for package in (older, before):
            try:
                await manager.register_plugin(package)
            except CardcageError as error:
                if error.code != "older_release":
                    raise NotStopped(f"refused for another reason: {error.message}") from None
            else:
                raise NotStopped(f"{package.name} went back to an older release")
        # The same by changing what stands in the folder that is looked through.
        shutil.copy(older / "plugin.yaml", newer / "plugin.yaml")
        await manager.discover_plugins()
        if manager.plugin_info("rolled").version != "2.1.0":
            raise NotStopped("an older release was found in the folder and taken")
    return [Stop(seen="older_release", layer="remembered version")]


async def swap(arena: Arena) -> list[Stop]:
    """Between verification and start, and between a crash and the restart."""
    package = arena.package("swapped", "import os\nclass Main:\n    def die(self):\n        os._exit(3)\n")
    registered = verify(package).digest.sha256
    async with arena.manager("swapping", plugin_paths=[package.parent]) as manager:
        code = package / "main.py"
        honest = code.read_text()
        code.write_text(honest + f"open({arena.planted.marker!r}, 'w')\n")
        first = await _start_is_refused(manager, "swapped", "digest_mismatch", "package digest")
        code.write_text(honest)
        await manager.start_plugin("swapped")
        (package / "more.py").write_text("")
        try:
            await manager.call("swapped", "die")
        except CardcageError:
            pass  # it dies, as it was told to
        await manager.unload_plugin("swapped")
        again = await _start_is_refused(manager, "swapped", "digest_mismatch", "package digest")
        if manager.plugin_info("swapped").digest != registered:
            raise NotStopped("the digest followed the change")
    return [first, again]


async def ask_for_more(arena: Arena) -> list[Stop]:
    """A new release of a plugin that ran without a grant, which now wants one."""
    package = arena.package("grows")
    async with arena.manager("growing", plugin_paths=[package.parent]) as manager:
        await manager.start_plugin("grows")
        await manager.unload_plugin("grows")
        manifest = package / "plugin.yaml"
        text = manifest.read_text().replace("1.0.0", "1.1.0")
        manifest.write_text(text + f"permissions: ['read:{arena.planted.key}']\n")
        await manager.register_plugin(package)
        return [await _start_is_refused(manager, "grows", "permission_missing", "grants")]


async def weaker_walls(arena: Arena) -> list[Stop]:
    """A manifest's isolation is the least it takes, whatever the operator's is. Planned and not started: that takes a
    machine, and there are tests of those."""
    package = arena.package("careful", isolation="vm")
    async with arena.manager("careless", plugin_paths=[package.parent], isolation="process") as manager:
        try:
            isolation = manager.plan("careful").isolation
        except CardcageError as error:
            if not error.code.startswith(("isolation", "no_walls", "below_floor", "fallback")):
                raise NotStopped(f"{error.code}: {error.message}") from None
            return [Stop(seen=error.code, layer="floor")]
    if isolation != "vm":
        raise NotStopped(f"it asks for a machine of its own, and got {isolation}")
    return [Stop(seen="gets what it asks for", layer="floor")]


async def ask_for_no_walls(arena: Arena) -> list[Stop]:
    """Only an operator takes walls away."""
    package = arena.package("bold", isolation="unconfined")
    async with arena.manager("bold", plugin_paths=[package.parent]) as manager:
        return [await _start_is_refused(manager, "bold", "isolation_refused", "floor")]
