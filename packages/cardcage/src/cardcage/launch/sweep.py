"""Ending a tree of processes where no pid namespace does it.

Orphans come to the nearest ancestor that has declared itself their reaper, so whoever is that finds them among its
children, and their children in turn once they have ended. Nobody new can appear meanwhile: without the supervisor that
decides on it, which is gone or answers no more, the filter lets no process be made. Standard library alone.
"""

import os
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Container

_PR_SET_CHILD_SUBREAPER = 36
_SIGKILL = 9

_PATIENCE_S = 5.0
"""For a process that was killed to be gone: it may be writing to a slow disk, and nothing can be done about that."""

_PAUSE_S = 0.002


def become_reaper(prctl: "Callable[..., int]") -> None:
    """Have orphans below this process come to it."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children_of(pid: int) -> list[int]:
    """The children of a process; none where it is gone. Slower on kernels that do not list them."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            return [int(word) for word in file.read().split()]
    except ProcessLookupError:
        return []
    except FileNotFoundError:
        return _children_by_search(pid) if not os.path.exists(f"/proc/self/task/{os.getpid()}/children") else []


def _children_by_search(parent: int) -> list[int]:
    found: list[int] = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    state = file.read()
            except OSError:
                continue
            # The command's name, in parentheses, may hold anything.
            if int(state[state.rindex(b")") + 2 :].split()[1]) == parent:
                found.append(int(name))
    return found


def descendants_of(pid: int) -> list[int]:
    """All that come of a process, nearest first."""
    found: list[int] = []
    waiting = children_of(pid)
    while waiting:
        one = waiting.pop()
        found.append(one)
        waiting += children_of(one)
    return found


def count_tasks(pids: "list[int]") -> int:
    """How many processes and threads these processes are."""
    total = 0
    for pid in pids:
        try:
            total += len(os.listdir(f"/proc/{pid}/task"))
        except OSError:
            continue
    return total


def end_children(keep: "Container[int]" = (), ended: "Callable[[int, int], None] | None" = None) -> bool:
    """Kill and take in every child but those to keep, and what they leave behind. False where one would not go.

    `ended` is told of every child that ends meanwhile, with its wait status.
    """
    deadline_s = time.monotonic() + _PATIENCE_S
    while True:
        doomed = [pid for pid in children_of(os.getpid()) if pid not in keep]
        if not doomed:
            return True
        for pid in doomed:
            try:
                os.kill(pid, _SIGKILL)  # a child is not another's until it has been taken in, which happens below
            except ProcessLookupError:
                pass
        if not _take_in(ended):
            if time.monotonic() > deadline_s:
                return False
            time.sleep(_PAUSE_S)


def _take_in(ended: "Callable[[int, int], None] | None") -> bool:
    """Whether any child had ended."""
    any_ended = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return True
        if not pid:
            return any_ended
        any_ended = True
        if ended is not None:
            ended(pid, status)
