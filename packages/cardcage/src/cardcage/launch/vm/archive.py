"""A cpio archive as the kernel takes it for its first file tree (`newc`, Documentation/driver-api/early-userspace).

Written here and not by the `cpio` program, so that the same files always make the same bytes: owners are root, times
are zero, and numbers count up.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from typing import Final

_MAGIC: Final = b"070701"
_END: Final = "TRAILER!!!"


def write_archive(
    files: Mapping[str, bytes],
    *,
    links: Mapping[str, str],
    folders: Iterable[str] = (),
    executable: Iterable[str] = (),
) -> bytes:
    """The archive of `files` (absolute path to content), with every folder that leads to one and `folders` besides.

    `links` are symbolic: path to target. `executable` names the files that are programs; all others are to be read.
    """
    programs = frozenset(executable)
    entries: dict[str, tuple[int, bytes]] = {}
    for path in sorted({*folders, *files, *links}):
        for folder in _leading_to(path):
            entries.setdefault(folder, (stat.S_IFDIR | 0o755, b""))
        if path in links:
            entries[path.strip("/")] = (stat.S_IFLNK | 0o777, links[path].encode())
        elif path in files:
            entries[path.strip("/")] = (stat.S_IFREG | (0o755 if path in programs else 0o644), files[path])
        else:
            entries.setdefault(path.strip("/"), (stat.S_IFDIR | 0o755, b""))
    parts = [_entry(number, name, mode, content) for number, (name, (mode, content)) in enumerate(entries.items(), 1)]
    return b"".join([*parts, _entry(0, _END, 0, b"")])


def _leading_to(path: str) -> list[str]:
    names = path.strip("/").split("/")[:-1]
    return ["/".join(names[: count + 1]) for count in range(len(names))]


def _entry(number: int, name: str, mode: int, content: bytes) -> bytes:
    encoded = name.encode() + b"\0"
    links = 2 if stat.S_ISDIR(mode) else 1
    fields = (number, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
    head = _MAGIC + b"".join(b"%08X" % field for field in fields) + encoded
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)
