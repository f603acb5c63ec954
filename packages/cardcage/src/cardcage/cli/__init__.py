"""The `cardcage` command: the same story as the library, told in a shell.

Importing this is cheap; what a command needs is imported when it runs.
"""

from cardcage.cli.entry import main

__all__ = ["main"]
