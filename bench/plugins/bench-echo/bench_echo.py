"""The plugin at the other end of every measured call."""

import os

from cardcage_sdk import Plugin


class BenchEcho(Plugin):
    """Answers with what it was given."""

    def __init__(self) -> None:
        self._born = os.urandom(8).hex()

    def born(self) -> str:
        """A word that no other process of this plugin has: whoever asks twice learns whether it is still the same."""
        return self._born

    def echo(self, text: str) -> str:
        """The same text."""
        return text
