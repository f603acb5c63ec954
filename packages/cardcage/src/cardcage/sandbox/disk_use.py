"""What a folder that a plugin may write takes up, measured by walking it, with hostile contents in mind.

No link is followed, a file with several names counts once, and what cannot be looked into is a problem of its own: it
could hold anything.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cardcage.sandbox.plan import TEMP_DIR
from cardcage.sandbox.report import Layer, LayerName, LayerStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class DiskUse:
    """Bytes taken up on the disk, not lengths: a hole takes up nothing. `files` counts folders too."""

    used_bytes: int = 0
    files: int = 0
    problem: str = ""
    """Why the rest could not be measured."""


def measure(folder: Path, *, files_max: int) -> DiskUse:
    """What is in `folder`. Gives up with what it has found above `files_max`: that is over the limit in any case."""
    used, files = 0, 0
    seen: set[int] = set()
    waiting: list[tuple[str, os.stat_result | None]] = [(os.fspath(folder), None)]
    while waiting:
        path, seen_as = waiting.pop()
        try:
            descriptor = _open_folder(path, seen_as)
        except FileNotFoundError:
            continue  # removed since it was seen
        except OSError as error:
            return DiskUse(
                used_bytes=used, files=files, problem=f"a folder in it cannot be looked into: {error.strerror}"
            )
        try:
            with os.scandir(descriptor) as entries:
                for entry in entries:
                    try:
                        found = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        problem = f"a file in it has no size: {error.strerror}"
                        return DiskUse(used_bytes=used, files=files, problem=problem)
                    files += 1
                    if stat.S_ISDIR(found.st_mode):
                        waiting.append((f"{path}/{entry.name}", found))
                    elif found.st_nlink > 1:
                        if found.st_ino in seen:
                            continue
                        seen.add(found.st_ino)
                    used += found.st_blocks * 512
                    if files > files_max:
                        return DiskUse(used_bytes=used, files=files)
        finally:
            os.close(descriptor)
    return DiskUse(used_bytes=used, files=files)


def _open_folder(path: str, seen_as: os.stat_result | None) -> int:
    """Open the folder that was seen at `path`, and no other.

    Its owner may have put a link there meanwhile, or in the place of a folder above it: where that leads is no affair
    of the plugin's. Raises `FileNotFoundError` where it is no longer there.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except NotADirectoryError:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None
    if seen_as is not None and not os.path.samestat(os.fstat(descriptor), seen_as):
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return descriptor


def disk_layer() -> Layer:
    """What the report says of the disk limit: no file system was found that bounds a folder by itself."""
    detail = f"{TEMP_DIR} and each file by the kernel; the data folder as a whole is measured, and who is over it ended"
    return Layer(name=LayerName.DISK_LIMITS, status=LayerStatus.BEST_EFFORT, detail=detail)
