"""A notification channel that appends JSON lines to a file."""

from __future__ import annotations

import os
from typing import Any

import msgspec

from cardcage_finops.interfaces import NotificationChannelPlugin
from cardcage_finops.models import Delivery, Notification

FILE_MODE = 0o640


class FileNotifier(NotificationChannelPlugin):
    """Appends to the configured file, or to one in the plugin's own data folder."""

    def load(self, config: dict[str, Any]) -> None:
        """Decide which file to write."""
        self.path = str(config.get("path") or "") or os.path.join(self.context.data_dir, "notifications.jsonl")

    def send(self, notification: Notification) -> Delivery:
        """Append one line. A file that cannot be written is told as not delivered."""
        line = msgspec.json.encode(notification) + b"\n"
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            try:
                written = os.write(descriptor, line)
            finally:
                os.close(descriptor)
        except OSError as error:
            return Delivery(delivered=False, channel="file", detail=f'cannot write "{self.path}": {error.strerror}')
        if written != len(line):
            detail = f'"{self.path}" took {written} of {len(line)} bytes: the disk is full'
            return Delivery(delivered=False, channel="file", detail=detail)
        return Delivery(delivered=True, channel="file", detail=self.path)
