"""Which shared libraries a program or an extension module needs, read from its ELF headers. Nothing is run.

`ldd` would run the loader on the file, and the files of a package are not to be trusted. Every offset is held against
the file's size; what is no 64-bit ELF file of this byte order needs nothing.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NULL, _DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_RPATH, _DT_RUNPATH = 0, 1, 5, 10, 15, 29
_STRINGS_BYTES_MAX: Final = 4 * 1024 * 1024
_DYNAMIC_BYTES_MAX: Final = 64 * 1024
_SEGMENTS_MAX: Final = 64
_LIBRARIES_MAX: Final = 500

DEFAULT_FOLDERS: Final = (
    f"/lib/{os.uname().machine}-linux-gnu",
    f"/usr/lib/{os.uname().machine}-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
)
"""Where loaders look when nothing says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Linkage:
    """What one ELF file asks of its loader: libraries by name, folders of its own to look in, the loader itself."""

    needed: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    interpreter: str = ""


def read_linkage(path: Path) -> Linkage | None:
    """What the file at `path` asks for, or None where it is no ELF file of this machine's kind."""
    try:
        with path.open("rb") as file:
            return _read(file.fileno())
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _read(file: int) -> Linkage | None:
    header = os.pread(file, 64, 0)
    if header[:6] != b"\x7fELF\x02\x01":
        return None
    table, entry_bytes, count = *struct.unpack_from("<Q", header, 32), *struct.unpack_from("<HH", header, 54)
    if entry_bytes < 56 or count > _SEGMENTS_MAX:
        return None
    segments = [struct.unpack("<IIQQQQQQ", os.pread(file, 56, table + number * entry_bytes)) for number in range(count)]
    interpreter = ""
    entries: list[tuple[int, int]] = []
    for kind, _, offset, _, _, size, *_ in segments:
        if kind == _PT_INTERP:
            interpreter = os.pread(file, min(size, 4096), offset).rstrip(b"\0").decode()
        elif kind == _PT_DYNAMIC:
            raw = os.pread(file, min(size, _DYNAMIC_BYTES_MAX), offset)
            entries = list(struct.iter_unpack("<QQ", raw[: len(raw) // 16 * 16]))
    known = dict(entries)
    loads = [(address, offset, size) for kind, _, offset, address, _, size, *_ in segments if kind == _PT_LOAD]
    place = next(
        (at + known.get(_DT_STRTAB, 0) - low for low, at, n in loads if low <= known.get(_DT_STRTAB, 0) < low + n), 0
    )
    strings = os.pread(file, min(known.get(_DT_STRSZ, 0), _STRINGS_BYTES_MAX), place)
    needed: list[str] = []
    folders: list[str] = []
    for tag, value in entries:
        if tag == _DT_NULL:
            break
        if tag == _DT_NEEDED:
            needed.append(_string(strings, value))
        elif tag in (_DT_RPATH, _DT_RUNPATH):
            folders.extend(_string(strings, value).split(":"))
    return Linkage(needed=tuple(needed), folders=tuple(folders), interpreter=interpreter)


def _string(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset)
    return strings[offset:end].decode() if 0 <= offset < end else ""


@dataclass(slots=True, kw_only=True)
class Libraries:
    """The shared libraries that a set of files needs, found as the loader of this machine would."""

    folders: tuple[str, ...] = DEFAULT_FOLDERS
    found: dict[str, Path] = field(default_factory=dict[str, Path])
    """Name to file."""
    missing: set[str] = field(default_factory=set[str])
    interpreters: set[str] = field(default_factory=set[str])

    def add(self, files: Iterable[Path]) -> None:
        """Take in what `files` need, and what that needs in turn."""
        pending = list(files)
        while pending and len(self.found) < _LIBRARIES_MAX:
            path = pending.pop()
            linkage = read_linkage(path)
            if linkage is None:
                continue
            if linkage.interpreter:
                self.interpreters.add(linkage.interpreter)
            pending.extend(self._take(path, linkage))

    def _take(self, path: Path, linkage: Linkage) -> list[Path]:
        own = [
            folder.replace("${ORIGIN}", "$ORIGIN").replace("$ORIGIN", str(path.parent)) for folder in linkage.folders
        ]
        taken: list[Path] = []
        for name in linkage.needed:
            if not name or "/" in name or name in self.found:
                continue
            places = (Path(folder, name) for folder in (*own, *self.folders) if folder.startswith("/"))
            place = next((place for place in places if place.is_file()), None)
            if place is None:
                self.missing.add(name)
                continue
            self.found[name] = place
            taken.append(place)
        return taken
