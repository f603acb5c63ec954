"""How much memory this process holds."""

from __future__ import annotations

import os


def resident_bytes() -> int:
    """The memory that this process holds now. Where the system does not tell, the most that it ever held."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
