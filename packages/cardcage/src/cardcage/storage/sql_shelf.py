"""Plugins' data in the state folder's SQLite file.

How much a plugin keeps is counted in the same transaction that changes it, so that a quota holds for several processes
at once and costs one row to check.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, bindparam, delete, select
from sqlalchemy.dialects.sqlite import insert

from cardcage.services.quota import DataQuota
from cardcage.services.shelf import Batch, Committed, Conflict, Item, Usage, size_of
from cardcage.storage.database import BUSY_TIMEOUT_S, Database
from cardcage.storage.schema import data_entries, data_spaces

# Made once: to make a statement takes longer than to run it.
_HERE: Final = and_(data_entries.c.namespace == bindparam("of"), data_entries.c.key == bindparam("at"))
_READ: Final = select(data_entries.c.value, data_entries.c.revision).where(_HERE)
_REVISION: Final = select(data_entries.c.revision).where(_HERE)
_DROP: Final = delete(data_entries).where(_HERE).returning(data_entries.c.size_bytes)
_PUT: Final = insert(data_entries)
_SPACE: Final = select(data_spaces).where(data_spaces.c.namespace == bindparam("of"))
_SAVE_NEW: Final = insert(data_spaces)
_SAVE: Final = _SAVE_NEW.on_conflict_do_update(
    index_elements=[data_spaces.c.namespace],
    set_={name: _SAVE_NEW.excluded[name] for name in ("revision", "entries", "total_bytes")},
)


class SqlShelf:
    """A `Shelf` in the SQLite file at this path. A power cut may take the last commits, each of them whole."""

    def __init__(self, url_or_path: str | os.PathLike[str], *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        self._database = Database(url_or_path, busy_timeout_s=busy_timeout_s, durable=False)

    def read(self, namespace: str, key: str) -> Item | None:
        """What is kept under a key."""
        with self._database.asking() as connection:
            row = connection.execute(_READ, {"of": namespace, "at": key}).one_or_none()
        return Item(value=row.value, revision=row.revision) if row is not None else None

    def keys(self, namespace: str, *, prefix: str, after: str, limit: int) -> list[str]:
        """The keys with this prefix, after `after`. Text is compared as UTF-8, which is by code points."""
        column = data_entries.c.key
        query = select(column).where(data_entries.c.namespace == namespace, column > after).order_by(column)
        if prefix:
            # Not LIKE, which knows wildcards and takes letters of either case for the same.
            query = query.where(column >= prefix, column < prefix + chr(0x10FFFF))
        with self._database.asking() as connection:
            return list(connection.execute(query.limit(limit)).scalars())

    def usage(self, namespace: str) -> Usage:
        """How much a namespace holds."""
        with self._database.asking() as connection:
            space = _space(connection, namespace)
        return Usage(entries=space.entries, total_bytes=space.total_bytes)

    def commit(self, namespace: str, batch: Batch, *, quota: DataQuota) -> Committed | Conflict:
        """Make the changes, all or none."""
        with self._database.writing() as connection:
            for key, revision in batch.expected.items():
                found = connection.execute(_REVISION, {"of": namespace, "at": key}).scalar_one_or_none() or 0
                if found != revision:
                    return Conflict(key=key, revision=found)
            space = _space(connection, namespace)
            deleted = frozenset(key for key in batch.deletes if space.drop(connection, key))
            for key, value in batch.puts.items():
                space.put(connection, key, value)
            if batch.puts:
                quota.check_total(entries=space.entries, total_bytes=space.total_bytes)
            space.save(connection)
        return Committed(revision=space.revision, deleted=deleted)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


@dataclass(slots=True, kw_only=True)
class _Space:
    """The row of a namespace while a commit changes it; `revision` is the one that the commit gives."""

    namespace: str
    revision: int
    entries: int
    total_bytes: int

    def drop(self, connection: Connection, key: str) -> bool:
        """Take an entry away, where there is one."""
        size = connection.execute(_DROP, {"of": self.namespace, "at": key}).scalar_one_or_none()
        if size is None:
            return False
        self.entries -= 1
        self.total_bytes -= size
        return True

    def put(self, connection: Connection, key: str, value: bytes) -> None:
        """Put an entry in place of what may be there."""
        self.drop(connection, key)
        size = size_of(key, value)
        row = {"namespace": self.namespace, "key": key, "value": value, "size_bytes": size, "revision": self.revision}
        connection.execute(_PUT, row)
        self.entries += 1
        self.total_bytes += size

    def save(self, connection: Connection) -> None:
        """Write the row."""
        numbers = {"revision": self.revision, "entries": self.entries, "total_bytes": self.total_bytes}
        connection.execute(_SAVE, {"namespace": self.namespace, **numbers})


def _space(connection: Connection, namespace: str) -> _Space:
    """The namespace as it is, with the revision that the next commit gives."""
    row = connection.execute(_SPACE, {"of": namespace}).one_or_none()
    if row is None:
        return _Space(namespace=namespace, revision=1, entries=0, total_bytes=0)
    return _Space(namespace=namespace, revision=row.revision + 1, entries=row.entries, total_bytes=row.total_bytes)
