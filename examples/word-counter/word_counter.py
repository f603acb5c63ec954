"""The lifecycle with a context: initialize, start, stop, cleanup, health_check and handle_event, all asynchronous."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from cardcage_sdk import BasePlugin, PluginMetadata


class WordCounter(BasePlugin):
    """Counts the words of every text that it is given, and remembers the counts in its data folder."""

    def get_metadata(self) -> PluginMetadata:
        return PluginMetadata(
            name="word-counter",
            version="1.0.0",
            description="Counts words over its whole life, by an asynchronous lifecycle with a context.",
            author="The Cardcage authors",
            license="Apache-2.0",
        )

    async def initialize(self) -> bool:
        self._file = Path(self.context.data_dir) / "counts.json"
        self._counts: Counter[str] = Counter(json.loads(self._file.read_text()) if self._file.exists() else {})
        self.context.logger.info("%d words known", len(self._counts))
        return True

    async def stop(self) -> bool:
        self._file.write_text(json.dumps(self._counts))
        return True

    async def count(self, text: str) -> dict[str, int]:
        """Count the words of `text`; returns the most frequent words so far."""
        self._counts.update(text.lower().split())
        return dict(self._counts.most_common(self.context.config["longest"]))

    async def handle_event(self, event_type: str, data: dict[str, Any]) -> None:
        if event_type == "words.forget":
            self._counts.clear()

    async def health_check(self) -> dict[str, Any]:
        return {**await super().health_check(), "words": len(self._counts)}
