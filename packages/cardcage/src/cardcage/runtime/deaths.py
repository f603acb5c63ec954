"""What is said of a process that ended by itself or over a limit: the sentence, and the limit with its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cardcage.foundation.errors import PluginFault
from cardcage.foundation.sizes import size_text
from cardcage.launch.runner import Exit, ExitReason
from cardcage.runtime.blueprint import Blueprint
from cardcage.sandbox.plan import PROCESSES, ResourceLimits


def died(blueprint: Blueprint, exit_: Exit, when: str) -> PluginFault:
    """The fault for a process that ended by itself or over a limit."""
    how = f"exit status {exit_.code}" if exit_.code is not None else f"signal {exit_.signal}"
    detail = f": {exit_.detail}" if exit_.detail else ""
    limits = blueprint.spec.plan.limits
    return PluginFault(
        f"{blueprint.label} {_words(exit_, limits)} {when} ({how}){detail}",
        code="crashed",
        plugin=blueprint.plugin,
        version=blueprint.version,
        exit_reason=exit_.reason.value,
        exit_code=exit_.code,
        signal=exit_.signal,
        limit=limit_of(exit_, limits),
    )


def limit_of(exit_: Exit, limits: ResourceLimits) -> Mapping[str, Any] | None:
    """The limit that a process ended by: its name in the manifest, its value and its text. None for other ends."""
    match exit_.reason:
        case ExitReason.OUT_OF_MEMORY if limits.memory_bytes is not None:
            return _limit("memory", limits.memory_bytes, size_text(limits.memory_bytes))
        case ExitReason.CPU_LIMIT if limits.cpu_time_s is not None:
            return _limit("cpu_time", limits.cpu_time_s, f"{limits.cpu_time_s} s")
        case ExitReason.PROCESS_LIMIT:
            count = limits.processes or PROCESSES
            return _limit("processes", count, str(count))
        case ExitReason.DISK_LIMIT if exit_.limit == "inodes" and limits.inodes is not None:
            return _limit("inodes", limits.inodes, f"{limits.inodes} files")
        case ExitReason.DISK_LIMIT if limits.disk_bytes is not None:
            return _limit("disk", limits.disk_bytes, size_text(limits.disk_bytes))
        case _:
            return None


def hit_words(limit: str, limits: ResourceLimits) -> str:
    """What is said of a plugin that ran into a limit and goes on."""
    if limit == "memory":
        amount = f"the {size_text(limits.memory_bytes)} of" if limits.memory_bytes is not None else "the"
        return f"lost a process of its own for having run out of {amount} memory it was given, and goes on"
    return f"was refused a process above the {limits.processes or PROCESSES} it was given, and goes on"


def _limit(name: str, value: int, text: str) -> Mapping[str, Any]:
    return {"name": name, "value": value, "text": text}


def _words(exit_: Exit, limits: ResourceLimits) -> str:
    limit = limit_of(exit_, limits)
    amount = f"{limit['text']} of " if limit else ""
    count = f"{limit['text']} " if limit else ""
    return {
        ExitReason.OUT_OF_MEMORY: f"ran out of the {amount}memory it was given",
        ExitReason.CPU_LIMIT: f"used up the {amount}CPU time it was given",
        ExitReason.SYSTEM_CALL: "was ended for a forbidden system call",
        ExitReason.PROCESS_LIMIT: f"used up the {count}processes it was given",
        ExitReason.DISK_LIMIT: f"used up the {count}it may have in its data folder"
        if exit_.limit == "inodes"
        else f"used up the {amount}disk it was given",
        ExitReason.KILLED: "was killed",
        ExitReason.STOPPED: "left",
        ExitReason.CRASHED: "crashed",
        ExitReason.SETUP_FAILED: "could not be walled in",
    }[exit_.reason]
