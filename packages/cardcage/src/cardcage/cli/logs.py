"""What plugins said in earlier runs: one file of JSON lines for each instance, bounded, under the host's folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

from cardcage.foundation.limits import PLUGIN_LOG_HISTORY_LINES

LOG_FILE_BYTES_MAX: Final = 1024 * 1024
"""Each instance keeps at most two files of this size: some thousand lines, which is days of a well-behaved plugin."""

_FOLLOW_INTERVAL_S: Final = 0.2


class LogFiles:
    """The folder of all log files."""

    def __init__(self, root: Path) -> None:
        self._root = root / "logs"

    def path(self, instance: str) -> Path:
        """The newest file of an instance."""
        return self._root / f"{instance.replace('/', '@')}.jsonl"

    def append(self, instance: str, line: dict[str, Any]) -> None:
        """Add one line; begins a new file where this one is full, and drops the one before."""
        path = self.path(instance)
        self._root.mkdir(mode=0o700, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size >= LOG_FILE_BYTES_MAX:
                path.replace(_older(path))
        text = json.dumps(line, ensure_ascii=True, default=str)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")

    def last(self, instance: str, count: int) -> list[dict[str, Any]]:
        """The last `count` lines, the oldest first."""
        kept: deque[dict[str, Any]] = deque(maxlen=min(count, PLUGIN_LOG_HISTORY_LINES))
        path = self.path(instance)
        for each in (_older(path), path):
            with contextlib.suppress(FileNotFoundError), each.open(encoding="ascii", errors="replace") as file:
                kept.extend(_parsed(file))
        return list(kept)

    def follow(self, instance: str) -> Iterator[dict[str, Any]]:
        """Lines as they are written, from now on, without end."""
        path = self.path(instance)
        file = _opened(path, at_end=True)
        while True:
            if file is not None:
                yield from _parsed(file)
            if file is None or _was_replaced(file, path):
                file = _opened(path, at_end=False)
            time.sleep(_FOLLOW_INTERVAL_S)


class LogRecorder(logging.Handler):
    """Takes the lines of all plugins of a run from the host's logger into the files, and to whoever watches."""

    def __init__(self, files: LogFiles, instances: dict[str, str], watch: Callable[[str, Any], None] | None) -> None:
        """`instances` names the instance of each plugin that is not its default one."""
        super().__init__()
        self._files = files
        self._instances = instances
        self._watch = watch

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line down. A full disk must not end the run that is being logged."""
        line: Any = getattr(record, "plugin_line", None)
        plugin: str | None = getattr(record, "plugin", None)
        if line is None or plugin is None:
            return
        if self._watch is not None:
            self._watch(plugin, line)
        with contextlib.suppress(OSError):
            self._files.append(self._instances.get(plugin) or plugin, line.to_json())


def _older(path: Path) -> Path:
    return path.with_suffix(".1.jsonl")


def _opened(path: Path, *, at_end: bool) -> IO[str] | None:
    try:
        file = path.open(encoding="ascii", errors="replace")
    except FileNotFoundError:
        return None
    if at_end:
        file.seek(0, os.SEEK_END)
    return file


def _was_replaced(file: IO[str], path: Path) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _parsed(file: IO[str]) -> Iterator[dict[str, Any]]:
    for text in iter(file.readline, ""):
        with contextlib.suppress(ValueError):
            line = json.loads(text)
            if isinstance(line, dict):
                yield cast(dict[str, Any], line)
