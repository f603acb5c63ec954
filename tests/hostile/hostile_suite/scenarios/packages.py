"""Packages that are made to do harm by being looked at."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cardcage import CardcageError
from cardcage.foundation.limits import PACKAGE_FILES_MAX

from ..behaviour import NotStopped, Stop
from .wire import resident_bytes

if TYPE_CHECKING:
    from ..arena import Arena

_MIB: Final = 1 << 20

OWN_BACKEND: Final = '[build-system]\nrequires = []\nbuild-backend = "setup"\nbackend-path = ["."]\n'
"""A source package that is built by its own code."""


async def refused(arena: Arena, package: Path, *words: str) -> Stop:
    """Registering must fail with a sentence that holds one of `words`, and leave the registry as it was."""
    before = arena.walled.list_plugins()
    try:
        await arena.walled.register_plugin(package)
    except CardcageError as error:
        if words and not any(word in error.message for word in words):
            raise NotStopped(f"{package.name}: refused for another reason: {error.message[:300]}") from None
        if arena.walled.list_plugins() != before:
            raise NotStopped(f"{package.name}: refused, and half registered") from None
        return Stop(seen=error.code, layer="package checks")
    raise NotStopped(f"{package.name} was registered")


async def strange_members(arena: Arena) -> list[Stop]:
    """What an archive can hold a folder can hold as well: links that leave it, pipes, sockets, devices."""
    absolute = arena.package("absolute")
    (absolute / "passwd").symlink_to("/etc/passwd")
    climbing = arena.package("climbing")
    (climbing / "up").symlink_to("../../../../etc")
    pipe = arena.package("pipe")
    os.mkfifo(pipe / "pipe")
    stops = [await refused(arena, each) for each in (absolute, climbing, pipe)]
    if arena.as_root:
        device = arena.package("device")
        os.mknod(device / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        stops.append(await refused(arena, device, "character device"))
    return [*stops, *await _archives_are_not_unpacked(arena, "../../../evil", "/tmp/cardcage-evil")]


async def setuid_member(arena: Arena) -> list[Stop]:
    """A set-id file in the package of a host that runs as root: it gives no rights inside, and none outside."""
    code = "import os\nclass Main:\n    def run(self, path):\n        os.execv(path, [path])\n"
    package = arena.package("setuid", code)
    program = package / "program"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o6755)
    async with arena.manager("setuid", plugin_paths=[package.parent]) as manager:
        await manager.start_plugin("setuid")
        try:
            await manager.call("setuid", "run", f"{manager.plan('setuid').inside.package_dir}/program")
        except CardcageError as error:
            if "Errno 1]" not in error.message and "Errno 13]" not in error.message:
                raise NotStopped(error.message) from None
            return [Stop(seen="EPERM", layer="system_call_filter")]
    raise NotStopped("a set-id file of a package was run")


async def zip_slip(arena: Arena) -> list[Stop]:
    """There is no unpacking: a package is a folder, and an archive is refused unread."""
    return await _archives_are_not_unpacked(arena, "../evil.py", "plugin/../../evil.py", "C:\\evil.py")


async def _archives_are_not_unpacked(arena: Arena, *members: str) -> list[Stop]:
    folder = arena.package("archives").parent
    packed = [folder / "evil.zip", folder / "evil.tar.gz"]
    with zipfile.ZipFile(packed[0], "w") as archive:
        for name in ("plugin.yaml", *members):
            archive.writestr(name, "name: evil\n")
    with tarfile.open(packed[1], "w:gz") as archive:
        for name in ("plugin.yaml", *members):
            content = b"name: evil\n"
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    before = sorted(arena.folder.rglob("evil*"))
    stops = [await refused(arena, path, "expected a folder") for path in packed]
    if sorted(arena.folder.rglob("evil*")) != before or any(os.path.exists(f"/tmp/{name}") for name in members):
        raise NotStopped("a member of an archive was written")
    return [Stop(seen=f"{stop.seen}, nothing written", layer="no surface: no archives are read") for stop in stops]


async def bomb(arena: Arena) -> list[Stop]:
    """Too many files, too many bytes (of a file that takes up none), and folders without end."""
    many, large, deep = (arena.package(name) for name in ("many", "large", "deep"))
    for number in range(PACKAGE_FILES_MAX + 10):
        os.close(os.open(many / f"{number}", os.O_CREAT | os.O_WRONLY))
    with open(large / "sparse", "wb") as file:
        file.truncate(1 << 40)
    folder = deep
    for _ in range(40):
        folder /= "d"
        folder.mkdir()
    (folder / "file").write_text("")
    before, begun_s = resident_bytes(), time.monotonic()
    stops = [
        await refused(arena, many, f"may have {PACKAGE_FILES_MAX} files"),
        await refused(arena, large, "may have 512 MiB"),
        await refused(arena, deep, "deep"),
    ]
    if (grown := resident_bytes() - before) > 64 * _MIB:
        raise NotStopped(f"the host grew by {grown // _MIB} MiB")
    if time.monotonic() - begun_s > 60:
        raise NotStopped("it took the host more than a minute to say no")
    return stops


async def run_when_registered(arena: Arena) -> list[Stop]:
    """Code wherever tools run code: the module itself, and every file that some tool imports by itself."""
    marker = arena.planted.marker
    code = f"open({marker!r}, 'w').close()\n"
    package = arena.package("eager", code + "class Main:\n    pass\n")
    for name in ("setup.py", "conftest.py", "sitecustomize.py", "usercustomize.py", "__init__.py", "plugin.py"):
        (package / name).write_text(code)
    (package / "evil.pth").write_text(f"import os; {code}")
    (package / "pyproject.toml").write_text(OWN_BACKEND)
    await arena.walled.register_plugin(package)
    await arena.walled.discover_plugins()
    arena.walled.plan("eager")
    if Path(marker).exists():
        Path(marker).unlink()
        raise NotStopped("code of a package ran when it was registered")
    await arena.walled.remove_plugin("eager")
    return [Stop(seen="no marker", layer="nothing is imported")]


async def alias_bomb(arena: Arena) -> list[Stop]:
    """Nine lines that unfold to ten to the ninth values; and depth, size and doubled keys."""
    rows = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"{b}: &{b} [{', '.join(['*' + a] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    head = "name: bomb\nversion: 1.0.0\nentrypoint: main:Main\n"
    texts = {
        "aliases": head + "\n".join(rows),
        "depth": head + "config_schema: " + "[" * 5000 + "]" * 5000,
        "size": head + "description: " + "x" * (1 << 20),
        "doubled": head + 'permissions: []\npermissions: ["network:*:443"]\n',
        "tags": head + "description: !!python/object/apply:os.system ['touch x']\n",
    }
    before = resident_bytes()
    stops: list[Stop] = []
    for name, text in texts.items():
        package = arena.package(name)
        (package / "plugin.yaml").write_text(text)
        stop = await refused(arena, package)
        stops.append(Stop(seen=stop.seen, layer="manifest checks"))
    if (grown := resident_bytes() - before) > 64 * _MIB:
        raise NotStopped(f"the host grew by {grown // _MIB} MiB")
    return stops


async def look_alike(arena: Arena) -> list[Stop]:
    """Letters of other alphabets, other cases, invisible characters, and folders for names."""
    names = ["h\u043enest", "honest\u200b", "Honest", "ｈonest", "honest/../x", "honest ", "..", "honest--x", "-honest"]
    stops: list[Stop] = []
    for name in names:
        package = arena.package("look-alike")
        (package / "plugin.yaml").write_text(
            f"name: {name!r}\nversion: 1.0.0\nentrypoint: main:Main\n".replace("'", '"')
        )
        stop = await refused(arena, package, "name")
        stops.append(Stop(seen=stop.seen, layer="manifest checks"))
    return stops


_SHADOWS = """
import json, os, msgspec, cardcage_sdk

class Main:
    def where(self):
        return [module.__file__ for module in (json, os, msgspec, cardcage_sdk)]
"""


async def shadow_modules(arena: Arena) -> list[Stop]:
    """Modules of the names that the SDK and every program import."""
    package = arena.package("shadows", _SHADOWS)
    for name in ("json", "os", "msgspec", "cardcage_sdk", "site", "encodings"):
        (package / f"{name}.py").write_text("raise SystemExit('shadowed')\n")
    async with arena.manager("shadowed", plugin_paths=[package.parent]) as manager:
        await manager.start_plugin("shadows")
        found = await manager.call("shadows", "where")
    if own := [path for path in found if path.startswith("/plugin")]:
        raise NotStopped(f"taken from the package: {own}")
    return [Stop(seen="its own come last", layer="import order")]


_SCHEMES = """
from cardcage_sdk import Plugin

class Main(Plugin):
    def get_config_schema(self):
        values = [{"a": number} for number in range(3000)]
        rules = [{"items": {"type": "object"}} for _ in range(2000)]
        return {"type": "object", "properties": {"y": {"default": values, "uniqueItems": True, "allOf": rules}}}
"""


async def schema_bomb(arena: Arena) -> list[Stop]:
    """A schema that the host would have to check a config against."""
    package = arena.package("schemer", _SCHEMES)
    async with arena.manager("schemed", plugin_paths=[package.parent]) as manager:
        try:
            await manager.start_plugin("schemer")
        except CardcageError as error:
            if "steps" not in error.message:
                raise NotStopped(error.message) from None
            return [Stop(seen="takes too many steps", layer="manifest checks")]
    raise NotStopped("the schema was taken")
