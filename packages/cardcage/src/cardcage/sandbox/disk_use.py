"""What a folder that a plugin may write takes up, measured by walking it, with hostile contents in mind.

No link is followed, a file with several names counts once, and what cannot be looked into is a problem of its own: it
could hold anything.
"""

from __future__ import annotations

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
    waiting = [os.fspath(folder)]
    while waiting:
        try:
            entries = os.scandir(waiting.pop())
        except FileNotFoundError:
            continue  # removed since it was seen
        except OSError as error:
            return DiskUse(
                used_bytes=used, files=files, problem=f"a folder in it cannot be looked into: {error.strerror}"
            )
        with entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    return DiskUse(used_bytes=used, files=files, problem=f"a file in it has no size: {error.strerror}")
                files += 1
                if stat.S_ISDIR(found.st_mode):
                    waiting.append(entry.path)
                elif found.st_nlink > 1:
                    if found.st_ino in seen:
                        continue
                    seen.add(found.st_ino)
                used += found.st_blocks * 512
                if files > files_max:
                    return DiskUse(used_bytes=used, files=files)
    return DiskUse(used_bytes=used, files=files)


def disk_layer() -> Layer:
    """What the report says of the disk limit: no file system was found that bounds a folder by itself."""
    detail = f"{TEMP_DIR} and each file by the kernel; the data folder as a whole is measured, and who is over it ended"
    return Layer(name=LayerName.DISK_LIMITS, status=LayerStatus.BEST_EFFORT, detail=detail)
