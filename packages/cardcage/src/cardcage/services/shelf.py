"""Where plugins' data is kept: the port `Shelf`, and the one in memory. One contract suite holds every shelf to this.

A namespace is a plugin. Each commit gives what it writes the namespace's next revision, which never comes again, not
even for a key that was deleted: who compares revisions cannot be fooled.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cardcage.services.quota import DataQuota


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A value as it is kept, and the revision of the commit that wrote it."""

    value: bytes
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Changes that are made together or not at all.

    `expected` names the revision that keys must have for that, 0 for a key that must not be there. A key is put or
    deleted, not both.
    """

    puts: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    deletes: frozenset[str] = frozenset()
    expected: Mapping[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """It was done. `deleted` are the keys that were there to be deleted."""

    revision: int
    deleted: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """Nothing was done: `key` has this revision and not the one that was expected."""

    key: str
    revision: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a namespace holds."""

    entries: int = 0
    total_bytes: int = 0


class Shelf(Protocol):
    """Keeps data by namespace and key. May be used from any thread."""

    def read(self, namespace: str, key: str) -> Item | None:
        """What is kept under a key."""
        ...

    def keys(self, namespace: str, *, prefix: str, after: str, limit: int) -> list[str]:
        """The keys that begin with `prefix` and come after `after`, by code points, at most `limit`."""
        ...

    def usage(self, namespace: str) -> Usage:
        """How much a namespace holds."""
        ...

    def commit(self, namespace: str, batch: Batch, *, quota: DataQuota) -> Committed | Conflict:
        """Make the changes, all or none. Raises `Refused` (code `quota_exceeded`), and then makes none."""
        ...

    def close(self) -> None:
        """Let go of files. Harmless twice."""
        ...


@dataclass(slots=True)
class _Space:
    revision: int = 0
    items: dict[str, Item] = field(default_factory=dict[str, Item])


class MemoryShelf:
    """A shelf that forgets everything at the end of the program."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spaces: dict[str, _Space] = {}

    def read(self, namespace: str, key: str) -> Item | None:
        """What is kept under a key."""
        with self._lock:
            return self._space(namespace).items.get(key)

    def keys(self, namespace: str, *, prefix: str, after: str, limit: int) -> list[str]:
        """The keys with this prefix, after `after`."""
        with self._lock:
            found = [key for key in self._space(namespace).items if key.startswith(prefix) and key > after]
        return sorted(found)[:limit]

    def usage(self, namespace: str) -> Usage:
        """How much a namespace holds."""
        with self._lock:
            return _usage(self._space(namespace).items)

    def commit(self, namespace: str, batch: Batch, *, quota: DataQuota) -> Committed | Conflict:
        """Make the changes, all or none."""
        with self._lock:
            space = self._space(namespace)
            for key, revision in batch.expected.items():
                found = space.items[key].revision if key in space.items else 0
                if found != revision:
                    return Conflict(key=key, revision=found)
            revision = space.revision + 1
            after = {key: item for key, item in space.items.items() if key not in batch.deletes}
            after |= {key: Item(value=value, revision=revision) for key, value in batch.puts.items()}
            if batch.puts:
                usage = _usage(after)
                quota.check_total(entries=usage.entries, total_bytes=usage.total_bytes)
            deleted = frozenset(batch.deletes & space.items.keys())
            space.items, space.revision = after, revision
        return Committed(revision=revision, deleted=deleted)

    def close(self) -> None:
        """Nothing to do."""

    def _space(self, namespace: str) -> _Space:
        return self._spaces.setdefault(namespace, _Space())


def size_of(key: str, value: bytes) -> int:
    """The bytes that an entry counts."""
    return len(key.encode()) + len(value)


def _usage(items: Mapping[str, Item]) -> Usage:
    return Usage(entries=len(items), total_bytes=sum(size_of(key, item.value) for key, item in items.items()))
