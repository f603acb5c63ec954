"""Why a process ended: told from its wait status and from what the limits say. Pure."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from cardcage.launch.runner import Exit, ExitReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What was known beside the wait status when the process ended."""

    stopped_by_host: bool = False
    out_of_memory: bool = False
    """The kernel, or the host in its place, ended one of the processes for memory: not necessarily this one."""
    process_limit_hit: bool = False
    """A fork or a new thread was refused shortly before the end: whoever coped with it ended for another reason."""


NOTHING_KNOWN = Evidence()


def classify(wait_status: int, evidence: Evidence = NOTHING_KNOWN) -> Exit:
    """The exit that `wait_status` (as `os.waitpid` gives it) and `evidence` amount to.

    In order of certainty: what the host did itself, then what a limit recorded, then what the signal says.
    """
    number = wait_status & 0x7F
    code = None if number else (wait_status >> 8) & 0xFF
    reason = _reason(number, code, evidence)
    detail = _detail(number, code, reason)
    if evidence.out_of_memory and reason is ExitReason.CRASHED:
        detail += ", after the kernel had ended another of its processes for memory"
    return Exit(reason=reason, code=code, signal=number or None, detail=detail)


def _reason(number: int, code: int | None, evidence: Evidence) -> ExitReason:
    if evidence.stopped_by_host:
        return ExitReason.STOPPED
    if evidence.out_of_memory and number == signal.SIGKILL:
        return ExitReason.OUT_OF_MEMORY
    if number == signal.SIGXCPU:
        return ExitReason.CPU_LIMIT
    if number == signal.SIGSYS:
        return ExitReason.SYSTEM_CALL
    if code == 0:
        return ExitReason.STOPPED
    if number in {signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}:
        return ExitReason.KILLED
    if evidence.process_limit_hit:
        return ExitReason.PROCESS_LIMIT
    return ExitReason.CRASHED


def _detail(number: int, code: int | None, reason: ExitReason) -> str:
    if not number:
        return f"left with status {code}"
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    return f"ended by {name}" if reason is not ExitReason.STOPPED else f"ended by the host with {name}"
