"""What the exit status of every `cardcage` command means: one table, and the rule that maps errors to it."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from cardcage.foundation.errors import CardcageError, Misuse, PluginFault, Refused, Unavailable


class ExitCode(IntEnum):
    """The statuses with which a command ends."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNAVAILABLE = 4
    BUG = 70
    INTERRUPTED = 130


MEANINGS: Final = {
    ExitCode.OK: "The command did what it was asked.",
    ExitCode.FAILED: "It ran, and the answer is no: a plugin failed, `doctor` or `audit verify` found something wrong.",
    ExitCode.USAGE: "The command line, a manifest, a config, or the name or arguments of a call are wrong.",
    ExitCode.REFUSED: "A policy said no: a permission not granted, a package that has changed, a wall that is missing.",
    ExitCode.UNAVAILABLE: "Not now, but perhaps later: the plugin is restarting, or the registry is locked.",
    ExitCode.BUG: "A bug in Cardcage itself; `CARDCAGE_DEBUG=1` shows where.",
    ExitCode.INTERRUPTED: "Ctrl-C.",
}

_BRANCHES: Final = (
    (Misuse, ExitCode.USAGE),
    (Refused, ExitCode.REFUSED),
    (Unavailable, ExitCode.UNAVAILABLE),
    (PluginFault, ExitCode.FAILED),
)


def exit_code_of(error: CardcageError) -> ExitCode:
    """The status for an error: by its branch, which says whose fault it was."""
    return next((code for branch, code in _BRANCHES if isinstance(error, branch)), ExitCode.FAILED)
