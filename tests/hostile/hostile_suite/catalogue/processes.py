"""Other processes, their environments, descriptors and rights."""

from __future__ import annotations

from typing import Any, Final

from cardcage.sandbox.syscalls import MACHINE, NUMBERS

from ..behaviour import Attempt, Behaviour, Control
from ..scenarios import processes as scenes
from .words import (
    CAPS,
    DESCRIPTORS,
    ENVIRONMENT,
    FILTER,
    LIMITS,
    MOUNT,
    NO_NEW,
    NOTHING,
    PID,
    PROC,
    REFUSED_CALL,
    SCOPES,
    USER_NS,
)

_NUMBERS: Final = NUMBERS[MACHINE]
_SUCCEEDS, _AS_ROOT, _DIFFERS, _NONE = (
    Control.SUCCEEDS,
    Control.SUCCEEDS_AS_ROOT,
    Control.DIFFERS,
    Control.NONE,
)
_NO_SUCH: Final = {"ESRCH": PID, "EPERM": SCOPES, "ENOENT": PID}


def spy(method: str, *arguments: Any, stopped_by: dict[str, str], control: Control = _SUCCEEDS) -> Attempt:
    """An attempt of the plugin `process-spy`."""
    return Attempt(plugin="process-spy", method=method, arguments=arguments, stopped_by=stopped_by, control=control)


def signals(pid: str, control: Control) -> tuple[Attempt, ...]:
    """Every way to reach a process with a signal."""
    return (
        spy("signal", pid, stopped_by=_NO_SUCH, control=control),
        spy("signal_by_descriptor", pid, stopped_by=_NO_SUCH, control=control),
    )


PROCESSES: Final = (
    Behaviour(
        number=4,
        title="reads a host process's environment through /proc",
        attempts=(
            spy("search_every_environment", "$backwards", stopped_by={NOTHING: PID}),
            spy("read_command_lines", "$backwards", stopped_by={NOTHING: PID}),
            spy("list_processes", 3, stopped_by={NOTHING: PID}),
        ),
    ),
    Behaviour(
        number=5,
        title="reads the environment of the sandbox's own first process",
        attempts=(
            spy(
                "read_environment_of_init",
                stopped_by={"ENOENT": PROC, "EACCES": PROC, NOTHING: ENVIRONMENT},
                control=_NONE,
            ),
        ),
    ),
    Behaviour(
        number=6,
        title="looks for secrets in its environment",
        attempts=(
            # Without walls a plugin has no environment either; what /proc shows of its parents is the control above.
            spy("search_own_environment", "$backwards", stopped_by={NOTHING: ENVIRONMENT}, control=_NONE),
            spy("search_every_environment", "$backwards", stopped_by={NOTHING: ENVIRONMENT}),
        ),
    ),
    Behaviour(
        number=7,
        title="traces a process or reads its memory",
        attempts=(
            spy("trace", "$pid", stopped_by=REFUSED_CALL),
            spy("be_traced", stopped_by=REFUSED_CALL, control=_NONE),
            spy("trace", 1, stopped_by=REFUSED_CALL, control=_NONE),
            spy("read_memory", _NUMBERS["process_vm_readv"], "$pid", stopped_by=REFUSED_CALL, control=_DIFFERS),
            spy("read_memory", _NUMBERS["process_vm_writev"], "$pid", stopped_by=REFUSED_CALL, control=_DIFFERS),
            spy("open_memory", 1, stopped_by={"EACCES": PROC, "ENOENT": PROC, "EPERM": PROC}, control=_NONE),
        ),
    ),
    Behaviour(
        number=8,
        title="traces, signals or reads a sibling plugin",
        attempts=(
            spy("trace", "$neighbour_pid", stopped_by=REFUSED_CALL, control=_AS_ROOT),
            spy(
                "read_memory", _NUMBERS["process_vm_readv"], "$neighbour_pid", stopped_by=REFUSED_CALL, control=_DIFFERS
            ),
            spy("open_memory", "$neighbour_pid", stopped_by={"ENOENT": PID, "EACCES": PID}, control=_NONE),
            *signals("$neighbour_pid", _AS_ROOT),
        ),
        scenario=scenes.look_for_siblings,
    ),
    Behaviour(
        number=9,
        title="kills a process of the host",
        attempts=(
            *signals("$pid", _SUCCEEDS),
            spy("signal_groups_around", stopped_by={NOTHING: PID, "ESRCH": PID, "EPERM": SCOPES}, control=_NONE),
            spy("limit_another", "$pid", stopped_by=_NO_SUCH, control=_NONE),
        ),
    ),
    Behaviour(
        number=24,
        title="runs a set-id program",
        attempts=(
            *(
                spy("run_program", path, stopped_by={"EPERM": FILTER, "ENOENT": MOUNT}, control=control)
                for path, control in (
                    ("/bin/true", _SUCCEEDS),
                    ("/bin/su", _NONE),
                    ("/usr/bin/passwd", _NONE),
                    ("/lib64/ld-linux-x86-64.so.2", _NONE),
                )
            ),
            spy("run_from_memory", stopped_by=REFUSED_CALL, control=_DIFFERS),
            spy("may_gain_rights", stopped_by={NOTHING: NO_NEW}),
        ),
        scenario=scenes.run_granted_setuid_program,
    ),
    Behaviour(
        number=25,
        title="becomes root",
        attempts=(
            spy("become", 0, stopped_by=REFUSED_CALL, control=_AS_ROOT),
            spy("drop_groups", stopped_by=REFUSED_CALL, control=_AS_ROOT),
            spy("hold_capabilities", stopped_by={NOTHING: CAPS}, control=_AS_ROOT),
            spy(
                "write_id_map",
                stopped_by={"EPERM": USER_NS, "EACCES": USER_NS, "ENOENT": PROC, "EROFS": PROC},
                control=_NONE,
            ),
        ),
    ),
    Behaviour(
        number=49,
        title="uses descriptors that it inherited",
        attempts=(
            spy("use_inherited_descriptors", "$backwards", stopped_by={NOTHING: DESCRIPTORS}, control=_NONE),
            spy("take_descriptor", _NUMBERS["pidfd_getfd"], 1, stopped_by=REFUSED_CALL, control=_NONE),
        ),
    ),
    Behaviour(
        number=50,
        title="leaves a core dump with secrets",
        audit=("instance.crashed",),
        attempts=(spy("leave_core_dump", stopped_by={NOTHING: LIMITS}, control=_NONE),),
        scenario=scenes.dump_core,
    ),
    Behaviour(
        number=51,
        title="finds LD_PRELOAD, PYTHONPATH or an agent's socket of the host",
        attempts=(
            spy("inherited_variables", stopped_by={NOTHING: ENVIRONMENT}, control=_NONE),
            spy("search_own_environment", "$backwards", stopped_by={NOTHING: ENVIRONMENT}, control=_NONE),
        ),
    ),
    Behaviour(
        number=74,
        title="raises its limits or its importance",
        attempts=(
            spy("raise_limits", 300, stopped_by={"ValueError": LIMITS, "EPERM": LIMITS}, control=_AS_ROOT),
            spy("be_more_important", stopped_by={"EACCES": LIMITS, "EPERM": FILTER}, control=_AS_ROOT),
            spy("run_in_real_time", stopped_by=REFUSED_CALL, control=_NONE),
        ),
    ),
    Behaviour(
        number=75,
        title="finds what another instance was given in memory that it shares with the fork server",
        scenario=scenes.search_memory,
    ),
)
"""Behaviours after processes."""
