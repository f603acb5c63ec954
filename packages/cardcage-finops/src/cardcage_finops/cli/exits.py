"""The exit statuses that `cardcage finops` adds to those of `cardcage`."""

from __future__ import annotations

from typing import Final

from cardcage.cli.exits import ExitCode

BREACHED: Final = 5
"""A policy is broken, and `--fail-on` asked for that to be told."""

EPILOG: Final = (
    "Exit status: 0 done; 1 a plugin failed (the report says which, and holds what the others found); 2 the command "
    "line or the bill is wrong; 3 a policy of the host said no; 4 the bill changed while it was read; 5 a "
    "policy is breached and --fail-on asked to be told."
)

FAILED: Final = int(ExitCode.FAILED)
"""A plugin failed: the report is printed, and says which."""
