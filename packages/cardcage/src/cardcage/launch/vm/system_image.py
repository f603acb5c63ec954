"""What a guest boots from: the first file tree for the kernel, and the system image with Python and its libraries.

Both are made from this installation: the interpreter that runs the host, its standard library, the shared libraries
that those link to, the packages that plugins may import, and the few modules of this host that put up walls. They are
made once for each combination and kept in a folder that only the host's user can write.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import lzma
import marshal
import os
import stat
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from typing import IO, Final

import cardcage
from cardcage.foundation.errors import Unavailable
from cardcage.launch.vm import guest_boot
from cardcage.launch.vm.archive import write_archive
from cardcage.launch.vm.linkage import Libraries
from cardcage.launch.vm.readonly_image import ReadOnlyImage, node_of
from cardcage.sandbox.hypervisor import Kernel, module_files
from cardcage.sandbox.plan import PYTHON_DIR, PythonLayout, inside_library, inside_stdlib

HOST_DIR: Final = "/cardcage/host"
"""Where the walls' own code stands in the image; a plugin's file tree does not show it."""

BOOT_SCRIPT: Final = "/boot.py"
KEPT_IMAGES: Final = 4
"""Older ones are removed when a new one is made: one for each set of packs and a little history."""

_FORMAT: Final = "1"
"""Part of every image's key; counted up when what is put into images changes."""

_LEFT_OUT: Final = frozenset(
    {"test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "__pycache__", "pydoc_data"}
)
_HOST_MODULES: Final = ("__init__.py", "launch", "sandbox")
"""Where what a guest runs of this host is: the fork server, and what puts up walls."""

_MOUNT_POINTS: Final = ("/proc", "/sys", "/dev", "/tmp", "/plugin", "/data")  # noqa: S108 -- a guest's
_UNCHECKED: Final = 1
"""Compiled code that is taken as it is: the image cannot be changed, and looking at sources takes a guest time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootFiles:
    """What QEMU is given: the first file tree and the system image."""

    initrd: Path
    system: Path


@dataclass(slots=True, kw_only=True)
class SystemImages:
    """Makes boot files and keeps them in `folder`."""

    folder: Path
    python: PythonLayout
    kernel: Kernel
    _made: dict[tuple[str, ...], BootFiles] = field(default_factory=dict[tuple[str, ...], BootFiles])

    def get(self, libraries: Sequence[tuple[str, Path]]) -> BootFiles:
        """The boot files for guests that may import `libraries`; made where they are missing, which takes seconds."""
        key = tuple(f"{name}={path}" for name, path in libraries)
        made = self._made.get(key)
        if made is None or not (made.initrd.is_file() and made.system.is_file()):
            made = self._made[key] = self._make(libraries)
        return made

    def _make(self, libraries: Sequence[tuple[str, Path]]) -> BootFiles:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        contents = SystemContents.gather(self.python, libraries)
        system = self.folder / f"system-{contents.digest()}.erofs"
        if not system.is_file():
            image = contents.image()
            _write_whole(system, image.write)
        archive = boot_archive(self.python, self.kernel)
        initrd = self.folder / f"initrd-{hashlib.sha256(archive).hexdigest()[:24]}.cpio"
        if not initrd.is_file():
            _write_whole(initrd, lambda file: file.write(archive))
        _forget_old(self.folder, keep={system, initrd})
        return BootFiles(initrd=initrd, system=system)


def _write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file that is either all there or not there at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".making-", delete=False) as file:
        try:
            write(file)
            file.flush()
            os.fchmod(file.fileno(), 0o644)  # the folder keeps others out; QEMU's own user must be able to read it
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _forget_old(folder: Path, keep: set[Path]) -> None:
    for pattern in ("system-*.erofs", "initrd-*.cpio"):
        files = sorted(folder.glob(pattern), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in files[KEPT_IMAGES:]:
            if path not in keep:
                path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SystemContents:
    """Every file of the system image: path inside, path on the host, and what was seen of it."""

    files: tuple[tuple[str, Path, os.stat_result], ...]
    links: tuple[tuple[str, str], ...]

    @classmethod
    def gather(cls, python: PythonLayout, libraries: Sequence[tuple[str, Path]]) -> SystemContents:
        """Find all of it."""
        trees = [(inside_stdlib(python), Path(python.stdlib))]
        trees += [(inside_library(name, source), source) for name, source in libraries]
        host = Path(cardcage.__file__).parent
        trees += [(f"{HOST_DIR}/cardcage/{name}", host / name) for name in _HOST_MODULES]
        trees += [(path, Path(path)) for path in ("/usr/share/zoneinfo", "/etc/ssl/certs") if Path(path).is_dir()]
        hidden = frozenset(python.hidden)
        found = [one for inside, source in trees for one in _walk(inside, source, hidden)]
        shared = Libraries()
        shared.add([Path(python.executable), *(path for _, path, _ in found if ".so" in path.name)])
        home = library_folder(shared)
        for name, path in shared.found.items():
            found.append((f"{home}/{name}", path, path.stat()))
        loaders = map(Path, shared.interpreters)
        found.extend((str(_without_root_link(path, python)), path, path.stat()) for path in loaders)
        return cls(files=tuple(sorted(found, key=lambda one: one[0])), links=tuple(sorted(python.system_links.items())))

    def digest(self) -> str:
        """A name for these contents: what they are called, how long they are and when they were last changed."""
        seen = [[inside, str(path), found.st_size, found.st_mtime_ns] for inside, path, found in self.files]
        text = json.dumps([_FORMAT, MAGIC_NUMBER.hex(), seen, self.links])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def image(self) -> ReadOnlyImage:
        """The image, with the standard library and all packages compiled."""
        image = ReadOnlyImage()
        for folder in _MOUNT_POINTS:
            image.add_folder(folder)
        for path, to in self.links:
            image.add_link(path, to)
        for inside, path, found in self.files:
            node = node_of(str(path), found, follow=True)
            image.add(inside, node)
            if inside.endswith(".py"):
                _add_compiled(image, inside, path, found)
        return image


def library_folder(shared: Libraries) -> str:
    """Where shared libraries go in a guest: where the C library stands, which every loader looks into."""
    libc = shared.found.get("libc.so.6")
    if libc is None:
        raise Unavailable(
            "the C library of this system was not found, so no guest can be made from it", code="vm_unavailable"
        )
    folder = libc.parent
    return str(folder if str(folder).startswith("/usr/") else Path("/usr") / folder.relative_to("/"))


def _without_root_link(path: Path, python: PythonLayout) -> Path:
    """`/lib64/x` as `/usr/lib64/x` where `/lib64` is a link: a link cannot also be a folder in the image."""
    for link, to in python.system_links.items():
        if str(path).startswith(f"{link}/"):
            return Path("/") / to / path.relative_to(link)
    return path


def _walk(inside: str, source: Path, hidden: frozenset[str]) -> Iterator[tuple[str, Path, os.stat_result]]:
    """Every regular file at or beneath `source`, links followed, in the order of the names."""
    found = source.stat()
    if stat.S_ISREG(found.st_mode):
        yield inside, source, found
        return
    for folder, names, files in os.walk(source, followlinks=False):
        here = Path(folder)
        skipped = _LEFT_OUT | hidden if here == source else _LEFT_OUT
        names[:] = sorted(name for name in names if name not in skipped and not name.startswith("config-"))
        for name in sorted(files):
            path = here / name
            try:
                one = path.stat()
            except OSError:
                continue  # a link to nowhere
            if stat.S_ISREG(one.st_mode) and not name.endswith((".pyc", ".a", ".o")):
                yield f"{inside}/{path.relative_to(source)}", path, one


def _add_compiled(image: ReadOnlyImage, inside: str, path: Path, found: os.stat_result) -> None:
    try:
        code = compiled(inside, path, found)
    except (SyntaxError, ValueError, OSError):
        return  # some files are there to be read or to fail; whoever imports one will see
    image.add_bytes(importlib.util.cache_from_source(inside), code)


def compiled(inside: str, path: Path, found: os.stat_result) -> bytes:
    """The module at `path` in compiled form, good without a look at its source. What was kept is used where it fits."""
    try:
        kept = Path(importlib.util.cache_from_source(str(path))).read_bytes()
    except OSError:
        kept = b""
    source = path.read_bytes()
    expected = struct.pack("<4sIII", MAGIC_NUMBER, 0, int(found.st_mtime) & 0xFFFFFFFF, found.st_size & 0xFFFFFFFF)
    if kept.startswith(expected):
        code = kept[len(expected) :]
    else:
        code = marshal.dumps(compile(source, inside, "exec", dont_inherit=True))
    return MAGIC_NUMBER + _UNCHECKED.to_bytes(4, "little") + importlib.util.source_hash(source) + code


def boot_archive(python: PythonLayout, kernel: Kernel) -> bytes:
    """The first file tree: the interpreter with what it needs to start and to load modules, and those modules."""
    executable = Path(python.executable)
    shared = Libraries()
    sources = _boot_modules(python)
    shared.add([executable, *(path for _, path in sources if ".so" in path.name)])
    home = library_folder(shared)
    files = {guest_python(python): executable.read_bytes(), BOOT_SCRIPT: Path(guest_boot.__file__).read_bytes()}
    files |= {f"{home}/{name}": path.read_bytes() for name, path in shared.found.items()}
    files |= {str(_without_root_link(Path(path), python)): Path(path).read_bytes() for path in shared.interpreters}
    for inside, path in sources:
        files[inside] = path.read_bytes()
        if inside.endswith(".py"):
            files[importlib.util.cache_from_source(inside)] = compiled(inside, path, path.stat())
    for number, path in enumerate(module_files(kernel)):
        files[f"{guest_boot.MODULES_DIR}/{number:02}-{_module_file_name(path)}"] = _module_content(path)
    programs = [guest_python(python), *(str(_without_root_link(Path(path), python)) for path in shared.interpreters)]
    folders = [f"{inside_stdlib(python)}/lib-dynload", guest_boot.SYSTEM_DIR, "/proc", "/sys", "/dev"]
    return write_archive(files, links=python.system_links, folders=folders, executable=programs)


def guest_python(python: PythonLayout) -> str:
    """The interpreter's path in a guest, from which it finds its library."""
    return f"{PYTHON_DIR}/bin/python{python.version}"


_BOOT_IMPORTS: Final = """
import ctypes, sys, time
for module in list(sys.modules.values()):
    spec = getattr(module, "__spec__", None)
    if spec is not None and spec.has_location:
        print(spec.origin)
"""


def _boot_modules(python: PythonLayout) -> list[tuple[str, Path]]:
    """The files of the standard library that the boot script imports, as this very interpreter says."""
    done = subprocess.run(  # noqa: S603 -- our own interpreter and script
        [python.executable, "-I", "-S", "-B", "-X", "utf8", "-c", _BOOT_IMPORTS],
        capture_output=True,
        check=True,
        env={},
        timeout=30,
    )
    stdlib = Path(python.stdlib)
    paths = {Path(line).resolve() for line in done.stdout.decode().splitlines()}
    paths.add(stdlib / "os.py")  # by which the interpreter knows the place
    beneath = sorted(path for path in paths if path.is_relative_to(stdlib))
    return [(f"{inside_stdlib(python)}/{path.relative_to(stdlib)}", path) for path in beneath]


def _module_file_name(path: Path) -> str:
    return path.name.removesuffix(".xz").removesuffix(".gz")


def _module_content(path: Path) -> bytes:
    """A kernel module, unpacked where Python can; the kernel itself unpacks what is left (zstd)."""
    content = path.read_bytes()
    if path.name.endswith(".xz"):
        return lzma.decompress(content)
    if path.name.endswith(".gz"):
        return zlib.decompress(content, 31)
    return content
