"""The plugin at the other end of every measured call."""

from cardcage_sdk import Plugin


class BenchEcho(Plugin):
    """Answers with what it was given."""

    def echo(self, text: str) -> str:
        """The same text."""
        return text
