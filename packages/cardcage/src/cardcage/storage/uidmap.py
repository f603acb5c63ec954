"""The user ids that this machine can give to instances."""

from __future__ import annotations

from pathlib import Path

from cardcage.registry.uids import DEFAULT_UID_RANGE, UidRange, choose_uid_range, parse_uid_map


def uid_range_here() -> UidRange:
    """The default range, or within a container that maps fewer ids, a range of those."""
    try:
        text = Path("/proc/self/uid_map").read_text()
    except OSError:
        return DEFAULT_UID_RANGE  # not Linux: no instance gets a user id of its own there
    return choose_uid_range(parse_uid_map(text))
