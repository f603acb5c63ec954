"""The folder of a host's containers, and what is left of hosts that were killed: taken away by the next one.

A folder belongs to a host for as long as that host holds a lock on it, which the kernel lets go of however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from cardcage.launch.bundle import mounted_beneath

PREFIX: Final = "cardcage-containers-"


class ContainersFolder:
    """A folder of its own for one runner's containers."""

    def __init__(self) -> None:
        sweep_remains()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        # Containers' users pass through to their own, which they reach by a name that was told to nobody else.
        self.path.chmod(0o711)

    def remove(self) -> None:
        """Take it away with all that is in it, unless something is mounted there."""
        if not mounted_beneath(self.path):
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)


def sweep_remains() -> int:
    """Remove the folders of this user's hosts that are gone; how many there were."""
    removed = 0
    with suppress(OSError):
        for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):
                removed += _sweep(place)
    return removed


def _sweep(place: Path) -> bool:
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(folder).st_uid != os.geteuid() or mounted_beneath(place):
            return False
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held by a host that lives, and then this fails
        if not os.listdir(folder):
            return False  # perhaps made this instant, and not locked yet
        shutil.rmtree(place, ignore_errors=True)
        return True
    finally:
        os.close(folder)
