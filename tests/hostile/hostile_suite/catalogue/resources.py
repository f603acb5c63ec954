"""What can be exhausted."""

from __future__ import annotations

from typing import Any, Final

from cardcage.sandbox.syscalls import MACHINE, NUMBERS

from ..behaviour import Attempt, Behaviour, Control
from ..scenarios import resources as scenes
from .words import CGROUP, FILTER, LIMITS, MOUNT

_NONE, _AS_ROOT = Control.NONE, Control.SUCCEEDS_AS_ROOT


def hog(
    method: str,
    *arguments: Any,
    stopped_by: dict[str, str],
    control: Control = Control.SUCCEEDS,
    needs: str | None = None,
) -> Attempt:
    """An attempt of the plugin `resource-hog`: 96 MiB, 24 processes, 64 descriptors, 8 MiB of disk."""
    return Attempt(
        plugin="resource-hog",
        method=method,
        arguments=arguments,
        stopped_by=stopped_by,
        control=control,
        needs=needs,
        timeout_s=30.0,
    )


_NO_MORE_PROCESSES: Final = {"EAGAIN": LIMITS, "RuntimeError": LIMITS, "process_limit": CGROUP}
_NO_MORE_MEMORY: Final = {"MemoryError": LIMITS, "ENOMEM": LIMITS, "out_of_memory": CGROUP}

RESOURCES: Final = (
    Behaviour(
        number=10,
        title="is a fork bomb",
        attempts=(
            hog("fork", 60, stopped_by=_NO_MORE_PROCESSES),
            hog("fork_in_generations", 60, stopped_by=_NO_MORE_PROCESSES, control=_NONE),
            hog("threads", 60, stopped_by=_NO_MORE_PROCESSES),
        ),
    ),
    Behaviour(
        number=11,
        title="is a memory bomb",
        audit=("limit.hit",),
        audit_where="cgroup_limits",
        attempts=(
            hog("memory", 256, stopped_by=_NO_MORE_MEMORY),
            hog("stacks", 256, stopped_by=_NO_MORE_MEMORY, control=_NONE),
            hog("shared_memory", 256, stopped_by=_NO_MORE_MEMORY, needs=CGROUP),
            hog("memory_in_files", 200, stopped_by=_NO_MORE_MEMORY, needs=CGROUP, control=_NONE),
            hog("lock_memory", stopped_by={"ENOMEM": LIMITS, "EPERM": LIMITS}, control=_AS_ROOT),
        ),
    ),
    Behaviour(number=12, title="spins on the CPU", audit=("instance.crashed",), scenario=scenes.spin),
    Behaviour(
        number=13,
        title="opens descriptors without end",
        attempts=(
            hog("descriptors", 500, stopped_by={"EMFILE": LIMITS}),
            hog("descriptors_in_flight", 20_000, stopped_by={"ETOOMANYREFS": LIMITS, "EMFILE": LIMITS}, control=_NONE),
        ),
    ),
    Behaviour(
        number=14,
        title="fills the disk",
        attempts=(
            hog("fill", "/tmp/large", 32, stopped_by={"ENOSPC": MOUNT, "EFBIG": LIMITS}),
            hog("fill", "/dev/shm/large", 32, stopped_by={"ENOSPC": MOUNT, "EFBIG": LIMITS}),
            hog(
                "fill",
                "/data/large",
                32,
                stopped_by={"EFBIG": LIMITS, "EDQUOT": LIMITS, "ENOSPC": LIMITS},
                control=_NONE,
            ),
        ),
        scenario=scenes.hoard,
    ),
    Behaviour(
        number=15,
        title="fills the inodes",
        attempts=(
            hog("many_files", "/tmp", 17_000, stopped_by={"ENOSPC": MOUNT}),
            hog("many_files", "/dev/shm", 17_000, stopped_by={"ENOSPC": MOUNT}, control=_NONE),
        ),
    ),
    Behaviour(
        number=76,
        title="hoards in System V and POSIX queues, which outlive processes",
        attempts=(hog("message_queue", NUMBERS[MACHINE]["mq_open"], stopped_by={"EPERM": FILTER}, control=_NONE),),
    ),
)
"""Behaviours after the machine itself."""
