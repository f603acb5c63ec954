"""The port through which the registry is remembered.

`tests/contract/test_store.py` holds every implementation to what is said here. `cardcage.storage` has two: `SqlStore`,
one SQLite file that several processes may open, and `MemoryStore`, for embedders that want nothing to stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from cardcage.foundation.names import InstanceId
from cardcage.registry.model import Change, InstalledPlugin, InstanceRecord


class Store(Protocol):
    """Remembers plugins, instances and settings. Methods block, but shortly, and may be called from any thread."""

    def plugins(self) -> tuple[InstalledPlugin, ...]:
        """Everything installed, ordered by name."""
        ...

    def plugin(self, name: str) -> InstalledPlugin | None:
        """The installed plugin of that name."""
        ...

    def instances(self, plugin: str | None = None) -> tuple[InstanceRecord, ...]:
        """All instances, or those of one plugin, ordered by id."""
        ...

    def instance(self, id: InstanceId) -> InstanceRecord | None:  # noqa: A002 - the field is called `id` everywhere
        """The instance with that id."""
        ...

    def settings(self) -> Mapping[str, Any]:
        """Every setting that was put, by name."""
        ...

    def commit(self, *changes: Change) -> None:
        """Make all the changes, in their order, or none of them.

        Raises `Misuse` with code `plugin_unknown`, `instance_unknown`, `instance_exists` or `uids_exhausted`; nothing
        was changed then. Raises `Unavailable` where another process holds the store for too long, or the disk is full.
        """
        ...

    def close(self) -> None:
        """Let go of the file or the connection. Harmless the second time."""
        ...
