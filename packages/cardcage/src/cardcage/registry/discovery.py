"""Finds plugin packages in folders. A package that is wrong is reported beside the others and stops none of them."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cardcage.foundation.errors import CardcageError, Misuse
from cardcage.foundation.limits import PACKAGE_FILES_MAX
from cardcage.trust.digest import DEPTH_MAX, is_ignored
from cardcage.trust.host import Host, this_host
from cardcage.trust.verify import MANIFEST_FILES, VerifiedRelease, verify

CACHE_ENTRIES_MAX: Final = 20_000
"""Packages remembered between scans: more than any host has, and about 100 MiB where every manifest is a long one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One package that was found: `release` where it is sound, `fault` where it is not (exactly one of them is set).

    `shadowed_by` is the folder of the package of the same name that was found earlier, and is taken instead.
    """

    package_dir: Path
    release: VerifiedRelease | None = None
    fault: CardcageError | None = None
    shadowed_by: Path | None = None

    @property
    def name(self) -> str | None:
        """The plugin's name, where its manifest could be read."""
        return self.release.manifest.name if self.release else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Discovery:
    """Everything found, in the order of the paths, and in each path by folder name."""

    candidates: tuple[Candidate, ...]

    @property
    def releases(self) -> tuple[VerifiedRelease, ...]:
        """The sound packages that no other shadows."""
        return tuple(each.release for each in self.candidates if each.release and not each.shadowed_by)

    @property
    def rejected(self) -> tuple[Candidate, ...]:
        """The packages that are wrong, each with its fault."""
        return tuple(each for each in self.candidates if each.fault)

    @property
    def shadowed(self) -> tuple[Candidate, ...]:
        """The packages that are sound but come second."""
        return tuple(each for each in self.candidates if each.shadowed_by)


class CandidateCache(Protocol):
    """Remembers what a package was found to be. It saves time and decides nothing: each start confirms the digest."""

    def get(self, key: str) -> Candidate | None:
        """What was put under this key, if it is still known."""
        ...

    def put(self, key: str, candidate: Candidate) -> None:
        """Remember this. May forget others."""
        ...


class MemoryCache:
    """A `CandidateCache` that forgets the longest unused first, and everything at the end of the program."""

    def __init__(self, entries_max: int = CACHE_ENTRIES_MAX) -> None:
        self._entries_max = entries_max
        self._entries: OrderedDict[str, Candidate] = OrderedDict()

    def get(self, key: str) -> Candidate | None:
        """What was put under this key, if it is still known."""
        found = self._entries.get(key)
        if found is not None:
            self._entries.move_to_end(key)
        return found

    def put(self, key: str, candidate: Candidate) -> None:
        """Remember this, and forget the longest unused where there are too many."""
        self._entries[key] = candidate
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)


def discover(
    paths: Iterable[Path | str], *, cache: CandidateCache | None = None, host: Host | None = None
) -> Discovery:
    """Every package under these paths, each of which is one plugin's folder or a folder of plugins' folders.

    Where two have the same name the one on the earlier path (or of the earlier folder name) is taken and the other is
    reported. With a cache, a package whose files are as they were is not read again.
    """
    known_host = host or this_host()
    first: dict[str, Path] = {}
    seen: set[Path] = set()
    candidates: list[Candidate] = []
    for package_dir in _package_dirs(paths):
        if isinstance(package_dir, Candidate):
            candidates.append(package_dir)
            continue
        if package_dir in seen:
            continue  # named twice, or two paths lead to it
        seen.add(package_dir)
        candidate = _examine(package_dir, cache, known_host)
        name = candidate.name
        if name is not None and name in first:
            candidate = Candidate(package_dir=package_dir, release=candidate.release, shadowed_by=first[name])
        elif name is not None:
            first[name] = package_dir
        candidates.append(candidate)
    return Discovery(candidates=tuple(candidates))


def _package_dirs(paths: Iterable[Path | str]) -> Iterator[Path | Candidate]:
    for path in paths:
        folder = Path(path).expanduser()
        try:
            names = _folder_names(folder)
        except OSError as error:
            found = (error.strerror or str(error)).lower()
            fault = Misuse(
                f'the plugin path "{folder}" cannot be read: expected a folder of plugins, found: {found}',
                code="plugin_path_unusable",
                path=str(folder),
            )
            yield Candidate(package_dir=folder, fault=fault)
            continue
        folder = folder.resolve()
        if names is None:
            yield folder
        else:
            yield from ((folder / name).resolve() for name in names if _has_manifest(folder / name))


def _folder_names(folder: Path) -> list[str] | None:
    """The names of the folders in it that may be packages, in order; None where it is a package itself."""
    names: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name in MANIFEST_FILES:
                return None
            if not entry.name.startswith(".") and not is_ignored(entry.name) and entry.is_dir():
                names.append(entry.name)
    return sorted(names)


def _has_manifest(folder: Path) -> bool:
    """Whether the folder means to be a package. One that cannot be listed does, so that it is reported."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name in MANIFEST_FILES for entry in entries)
    except OSError:
        return True


def _examine(package_dir: Path, cache: CandidateCache | None, host: Host) -> Candidate:
    key = _fingerprint(package_dir, host) if cache is not None else None
    known = cache.get(key) if cache is not None and key is not None else None
    if known is not None:
        return known
    try:
        candidate = Candidate(package_dir=package_dir, release=verify(package_dir, host=host))
    except CardcageError as fault:
        candidate = Candidate(package_dir=package_dir, fault=fault)
    if cache is not None and key is not None:
        cache.put(key, candidate)
    return candidate


def _fingerprint(package_dir: Path, host: Host) -> str | None:
    """A key that changes when a file of the package does; None where that cannot be told.

    Made of the path, mode, size, times and inode of everything that counts for the digest, which takes a tenth of the
    time of reading it. The change time is there because the modification time can be set back.
    """
    found = hashlib.sha256(repr((str(package_dir), host)).encode("utf-8", "surrogateescape"))
    waiting = [(package_dir, 0)]
    files = 0
    try:
        while waiting:
            folder, depth = waiting.pop()
            with os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda each: each.name):
                    if is_ignored(entry.name):
                        continue
                    facts = entry.stat(follow_symlinks=False)
                    times = (facts.st_mtime_ns, facts.st_ctime_ns)
                    line = repr((entry.path, facts.st_mode, facts.st_size, *times, facts.st_ino, facts.st_dev))
                    found.update(line.encode("utf-8", "surrogateescape"))
                    files += 1
                    if files > PACKAGE_FILES_MAX or depth > DEPTH_MAX:
                        return None
                    if stat.S_ISDIR(facts.st_mode):
                        waiting.append((folder / entry.name, depth + 1))
    except OSError:
        return None
    return found.hexdigest()
