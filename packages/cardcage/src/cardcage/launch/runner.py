"""The port between the runtime and whatever starts processes.

A runner starts one process for one instance and hands back the host's end of its wire socket; it knows nothing of the
protocol spoken there. One contract suite (`tests/contract/test_runner.py`) holds every runner to what is said here.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from cardcage.foundation.names import InstanceId
from cardcage.launch.refusals import RefusalTap
from cardcage.sandbox.control_groups import ControlGroup
from cardcage.sandbox.network import Listener
from cardcage.sandbox.plan import SandboxPlan
from cardcage.sandbox.report import EnforcementReport


class ExitReason(StrEnum):
    """Why a process ended, in the order in which a runner tries to tell."""

    STOPPED = "stopped"
    """The host asked for it, or the process left with status 0 after its goodbye."""
    OUT_OF_MEMORY = "out_of_memory"
    CPU_LIMIT = "cpu_limit"
    SYSTEM_CALL = "system_call"
    """Killed by the system call filter (SIGSYS)."""
    PROCESS_LIMIT = "process_limit"
    DISK_LIMIT = "disk_limit"
    SETUP_FAILED = "setup_failed"
    """The walls could not be put up; no code of the plugin ran."""
    KILLED = "killed"
    """A signal that neither the host nor a limit sent."""
    CRASHED = "crashed"
    """Left by itself with a status other than 0, or by a signal of its own making such as SIGSEGV."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """How a process ended. `code` is its exit status, `signal` the signal's number; exactly one of them is set."""

    reason: ExitReason
    code: int | None = None
    signal: int | None = None
    detail: str = ""
    limit: str = ""
    """The name, as in a manifest, of the limit that it went over, where `reason` does not say that already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSpec:
    """What to start: the plan of its walls and the folders behind it.

    `package_dir`, `data_dir` and `temp_dir` are paths on the host. What the plugin sees them as is in the plan
    (`plan.inside`), and so are the packages that it may import besides its own.
    """

    instance: InstanceId
    plugin: str
    version: str
    plan: SandboxPlan
    package_dir: Path
    data_dir: Path
    temp_dir: Path
    encrypt: bool = False
    """Whether the wire is to be encrypted even where no other process can see it."""


OpenListener = tuple[Listener, socket.socket]
"""An endpoint's place inside, and the socket that listens there."""


@dataclass(slots=True)
class Process:
    """A started process: the host's ends of its wire socket and of its standard streams, each owned by the caller.

    `sock` is a connected AF_UNIX stream socket; `stdout` and `stderr` are readable pipe descriptors or None. `group`
    is its control group where there is one: others read it, and the runner removes it with the process. `handle` is the
    runner's own record of it, and `watch` that of whoever looks after its limits; neither is anybody else's business.
    """

    pid: int
    sock: socket.socket
    stdout: int | None
    stderr: int | None
    report: EnforcementReport
    group: ControlGroup | None = None
    handle: object = field(default=None, repr=False, compare=False)
    watch: object = field(default=None, repr=False, compare=False)
    listeners: list[OpenListener] = field(default_factory=list[OpenListener])
    """Listening sockets of the plugin's network namespace, one for each granted endpoint; the owner closes them."""
    refusals: RefusalTap | None = None
    """Where connections are heard of that never got as far as a listener; None where nobody sees them."""
    recorder: int = -1
    """Where what the plugin tries can be heard, where its plan asked for a recording; whoever takes it closes it."""

    def close_listeners(self) -> None:
        """Close those that nobody took over. Harmless twice."""
        while self.listeners:
            self.listeners.pop()[1].close()


class Runner(Protocol):
    """Starts, watches and ends processes of one kind.

    Every method may be called from one event loop only. A runner is an asynchronous context manager: leaving it ends
    every process that it started.
    """

    name: str

    async def start(self, spec: LaunchSpec) -> Process:
        """Start the process and hand back the host's ends of it.

        Raises `Refused` below the plan's floor, `PluginFault(code="setup_failed")` where the walls could not be put up,
        `Misuse` for a spec that this runner cannot run. A cancelled start leaves no process.
        """
        ...

    async def wait(self, process: Process) -> Exit:
        """Wait for the end and say why it came. May be awaited more than once; cancelling it ends nothing."""
        ...

    def kill(self, process: Process) -> None:
        """End the process and all its descendants at once. Harmless where it has ended."""
        ...

    async def aclose(self) -> None:
        """End all that is left, and the runner's own helpers."""
        ...
