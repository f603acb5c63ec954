"""Reads a package folder once, safely, and names what it read by one digest.

The canonical form, version 1. The digest is SHA-256 over the line `cardcage-package-1` and a line feed, and after it,
for each entry in ascending order of the bytes of its path:

| field    | bytes                                                                                     |
|----------|-------------------------------------------------------------------------------------------|
| kind     | `F` a file, `X` a file that its owner may execute, `L` a symbolic link                    |
| path     | length as u64 big-endian, then the path in UTF-8: relative to the package, parts joined by `/` |
| contents | length as u64 big-endian, then the bytes of the file, or the target text of the link      |

Owners, times, other mode bits and empty folders do not count, so that a copy, an archive and a checkout of the same
release have the same digest. What `IGNORED_NAMES` and `IGNORED_SUFFIXES` name is left out: it appears by itself when a
package is worked on. Nothing of it is run: plugins are imported from their sources, whatever `__pycache__` holds. Byte
code that stands elsewhere could be imported, and counts.

A package may be changed by someone else while it is read. Every folder and file is therefore opened beneath the one
before it, never by its whole path and never through a link, and what was opened is looked at again: a swap during the
walk leads to a fault, not to a file outside.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cardcage.foundation.errors import Fault, InvalidDocument
from cardcage.foundation.limits import MIB, PACKAGE_BYTES_MAX, PACKAGE_FILES_MAX

IGNORED_NAMES: Final = frozenset(
    {"__pycache__", ".git", ".hg", ".svn", ".DS_Store"}
    | {".pytest_cache", ".mypy_cache", ".ruff_cache", ".idea", ".vscode"}
)
"""Files and folders that version control, editors and test runners leave, wherever they stand in a package."""

IGNORED_SUFFIXES: Final = ("~", ".swp", ".swo")
"""Endings of editors' backups and swap files; names that begin with `.#` are editors' locks, and are ignored too."""

DEPTH_MAX: Final = 32
"""Folders within folders. Packages of the usual ecosystems stay under 12; each level holds a descriptor open."""

FAULTS_MAX: Final = 50
"""Faults gathered before giving up: more help nobody, and a hostile package could have 20,000."""

_CHUNK_BYTES: Final = 1024 * 1024
_MAGIC: Final = b"cardcage-package-1\n"
_OPEN_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_KINDS: Final = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageDigest:
    """What a package is, in one hex string; and how large."""

    sha256: str
    files: int
    total_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageContents:
    """A package as it was read: its digest, its paths in order, and the bytes of the files asked for.

    `kept` holds the very bytes that went into the digest, so nobody has to open a file a second time and find another.
    """

    digest: PackageDigest
    paths: tuple[str, ...]
    executables: frozenset[str] = frozenset()
    kept: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageLimits:
    """How large a package may be."""

    files: int = PACKAGE_FILES_MAX
    total_bytes: int = PACKAGE_BYTES_MAX


_NO_LIMITS_BUT_OURS: Final = PackageLimits()


def digest_package(package_dir: Path, *, limits: PackageLimits = _NO_LIMITS_BUT_OURS) -> PackageDigest:
    """The digest of the package in this folder.

    Raises `InvalidDocument` (code `package_invalid`) with every fault: links that leave the package, devices, pipes,
    sockets, files that cannot be read, names that are not printable UTF-8, and sizes above `limits`.
    """
    contents = read_package(package_dir, limits=limits)
    if contents.faults:
        raise InvalidDocument(
            f'package "{package_dir}"', contents.faults, code="package_invalid", path=str(package_dir)
        )
    return contents.digest


def read_package(
    package_dir: Path,
    *,
    keep: Collection[str] = (),
    keep_bytes_max: int = 0,
    limits: PackageLimits = _NO_LIMITS_BUT_OURS,
) -> PackageContents:
    """Read the whole package: its digest, its paths, and the contents of the files named in `keep`.

    Of a kept file the first `keep_bytes_max` bytes and one more are kept, so that its reader sees that it is too large.
    `faults` is empty where all of it could be read and is allowed; otherwise the digest means nothing.
    """
    walk = _Walk(limits=limits, keep=frozenset(keep), keep_bytes_max=keep_bytes_max)
    try:
        root = os.open(package_dir.resolve(strict=True), _OPEN_FLAGS | os.O_DIRECTORY)
    except OSError as error:
        walk.faults.append(Fault(path="", message=f"expected a folder, found: {_why(error)}"))
    else:
        try:
            walk.folder(root, "", depth=0)
        except _TooMuch:
            pass  # the fault that says so was gathered
        finally:
            os.close(root)
    return walk.contents()


class _TooMuch(Exception):
    """Too many faults, files or bytes to read on."""


@dataclass(slots=True, kw_only=True)
class _Walk:
    """One walk through a package, in the order of the paths' bytes: one hash takes everything as it comes."""

    limits: PackageLimits
    keep: frozenset[str]
    keep_bytes_max: int
    faults: list[Fault] = field(default_factory=list[Fault])
    paths: list[str] = field(default_factory=list[str])
    executables: set[str] = field(default_factory=set[str])
    kept: dict[str, bytes] = field(default_factory=dict[str, bytes])
    total_bytes: int = 0
    hash: Any = field(default_factory=lambda: hashlib.sha256(_MAGIC))

    def contents(self) -> PackageContents:
        digest = PackageDigest(sha256=self.hash.hexdigest(), files=len(self.paths), total_bytes=self.total_bytes)
        return PackageContents(
            digest=digest,
            paths=tuple(self.paths),
            executables=frozenset(self.executables),
            kept=self.kept,
            faults=tuple(self.faults),
        )

    def folder(self, folder: int, prefix: str, depth: int) -> None:
        """Take everything in the open folder. `prefix` is its path with a slash at the end, or empty at the top."""
        if depth > DEPTH_MAX:
            self._fault(prefix, f"folders may be {DEPTH_MAX} deep, and this one is deeper")
            return
        for name, mode in self._entries(folder, prefix):
            path = prefix + name
            if stat.S_ISDIR(mode):
                self._subfolder(folder, name, path, depth)
            elif stat.S_ISREG(mode):
                self._file(folder, name, path)
            elif stat.S_ISLNK(mode):
                self._link(folder, name, path, depth)
            else:
                kind = _KINDS.get(stat.S_IFMT(mode), "something of an unknown kind")
                self._fault(path, f"expected a file, a folder or a link, found {kind}")

    def _entries(self, folder: int, prefix: str) -> list[tuple[str, int]]:
        found: list[tuple[bytes, str, int]] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_ignored(entry.name):
                        continue
                    raw = os.fsencode(entry.name)
                    if not entry.name.isprintable():
                        # Not UTF-8, or with control characters: shown in a list it could pass for another, or steer the
                        # terminal. What is printed later is printed of names that passed here.
                        self._fault(prefix + ascii(raw)[2:-1], "expected a name of printable characters in UTF-8")
                        continue
                    mode = entry.stat(follow_symlinks=False).st_mode
                    # A folder sorts as its contents do, whose paths go on with a slash.
                    found.append((raw + b"/" if stat.S_ISDIR(mode) else raw, entry.name, mode))
                    if len(found) > self.limits.files:
                        self._too_many_files()
        except OSError as error:
            self._fault(prefix, f"cannot be listed: {_why(error)}")
        found.sort()
        return [(name, mode) for _, name, mode in found]

    def _subfolder(self, parent: int, name: str, path: str, depth: int) -> None:
        try:
            folder = os.open(name, _OPEN_FLAGS | os.O_DIRECTORY, dir_fd=parent)
        except OSError as error:
            self._fault(path, f"cannot be opened: {_why(error)}")
            return
        try:
            self.folder(folder, path + "/", depth + 1)
        finally:
            os.close(folder)

    def _link(self, folder: int, name: str, path: str, depth: int) -> None:
        try:
            target = os.readlink(name, dir_fd=folder)
        except OSError as error:
            self._fault(path, f"cannot be read: {_why(error)}")
            return
        fault = link_fault(target, depth)
        if fault:
            self._fault(path, fault)
            return
        raw = os.fsencode(target)
        self._count(path, len(raw))
        self._header(b"L", path, len(raw))
        self.hash.update(raw)

    def _file(self, folder: int, name: str, path: str) -> None:
        try:
            file = os.open(name, _OPEN_FLAGS, dir_fd=folder)
        except OSError as error:
            self._fault(path, f"cannot be read: {_why(error)}")
            return
        try:
            self._open_file(file, path)
        except OSError as error:
            self._fault(path, f"cannot be read: {_why(error)}")
        finally:
            os.close(file)

    def _open_file(self, file: int, path: str) -> None:
        facts = os.fstat(file)
        if not stat.S_ISREG(facts.st_mode):
            self._fault(path, "was swapped for something that is not a file while the package was read")
            return
        self._count(path, facts.st_size)
        executable = bool(facts.st_mode & stat.S_IXUSR)
        if executable:
            self.executables.add(path)
        self._header(b"X" if executable else b"F", path, facts.st_size)
        kept = bytearray() if path in self.keep else None
        left = facts.st_size
        # One byte more is asked for than the file should have: a file that grew meanwhile shows itself.
        while chunk := os.read(file, min(_CHUNK_BYTES, left + 1)):
            left -= len(chunk)
            if left < 0:
                break
            self.hash.update(chunk)
            if kept is not None:
                kept += chunk[: max(0, self.keep_bytes_max + 1 - len(kept))]
        if left != 0:
            self._fault(path, "changed while the package was read")
        if kept is not None:
            self.kept[path] = bytes(kept)

    def _header(self, kind: bytes, path: str, size: int) -> None:
        raw = path.encode()
        self.hash.update(kind + len(raw).to_bytes(8, "big") + raw + size.to_bytes(8, "big"))
        self.paths.append(path)

    def _count(self, path: str, size: int) -> None:
        """Refuse what is above the limits before a byte of it is read."""
        if len(self.paths) >= self.limits.files:
            self._too_many_files()
        self.total_bytes += size
        if self.total_bytes > self.limits.total_bytes:
            self._fault(path, f"the package may have {_size(self.limits.total_bytes)}, and passes that here")
            raise _TooMuch

    def _too_many_files(self) -> None:
        self._fault("", f"a package may have {self.limits.files} files, and this one has more")
        raise _TooMuch

    def _fault(self, path: str, message: str) -> None:
        self.faults.append(Fault(path=path, message=message))
        if len(self.faults) >= FAULTS_MAX:
            raise _TooMuch


def is_ignored(name: str) -> bool:
    """Whether a file or folder of that name is left out of the digest, wherever it stands."""
    return name in IGNORED_NAMES or name.endswith(IGNORED_SUFFIXES) or name.startswith(".#")


def link_fault(target: str, depth: int) -> str | None:
    """What is wrong with a link to `target` that stands `depth` folders below the package's top, if something is.

    `..` may only lead: each then climbs from a real folder, so the count alone tells where it arrives. After another
    link's name it would climb from wherever that one leads. A link into what is ignored would get around the digest.
    """
    if not _is_utf8(os.fsencode(target)):
        return "expected a link whose target is UTF-8"
    parts = [part for part in target.split("/") if part not in ("", ".")]
    climbs = 0
    while climbs < len(parts) and parts[climbs] == "..":
        climbs += 1
    if target.startswith("/") or climbs > depth or ".." in parts[climbs:]:
        return f"expected a link that stays in the package, found one to {target!r}"
    if any(is_ignored(part) for part in parts):
        return f"expected a link to what the digest covers, found one to {target!r}"
    return None


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8", "strict")
    except UnicodeDecodeError:
        return False
    return True


def _size(count: int) -> str:
    return f"{count // MIB} MiB" if count >= MIB else f"{count} bytes"


def _why(error: OSError) -> str:
    if error.errno in (errno.ELOOP, errno.EMLINK):
        return "it was swapped for a link while the package was read"
    return (error.strerror or str(error)).lower()
