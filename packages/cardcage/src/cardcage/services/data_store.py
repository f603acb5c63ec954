"""The data store: plain data under keys, for each plugin its own, kept between starts and shared by its instances."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec

from cardcage.broker import PluginInfo
from cardcage.contracts import service
from cardcage.foundation.errors import Misuse
from cardcage.services.quota import DataQuota, check_key
from cardcage.services.shelf import Batch, Committed, Conflict, Shelf

KEYS_MAX = 1000
"""Of one answer; `after` continues it."""
CHANGES_MAX = 100
"""Of one commit."""


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A value and its revision."""

    value: Any
    revision: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a conditional change. `revision` is the new one, or, where it was not done, the one found."""

    done: bool
    revision: int
    key: str = ""
    """The key that had another revision."""


class Space(msgspec.Struct, frozen=True, kw_only=True):
    """What a plugin keeps, and what it may keep."""

    entries: int
    entries_max: int
    total_bytes: int
    total_bytes_max: int
    value_bytes_max: int


@service("data_store", capability="DataStore")
class DataStore(Protocol):
    """A plugin's own data. Values are plain: numbers, texts, bytes, lists, maps with text keys."""

    async def get(self, key: str) -> Any:
        """The value under a key; None where there is none."""
        ...

    async def entry(self, key: str) -> Entry | None:
        """The value with its revision; None where there is none."""
        ...

    async def put(self, key: str, value: Any) -> int:
        """Keep a value; returns its revision."""
        ...

    async def delete(self, key: str) -> bool:
        """Remove a key; whether it was there."""
        ...

    async def keys(self, prefix: str = "", after: str = "", limit: int = 100) -> list[str]:
        """Keys that begin with `prefix` and come after `after`, in order, at most `limit`."""
        ...

    async def compare_and_set(self, key: str, value: Any, revision: int) -> Outcome:
        """Keep a value if the key still has this revision; 0 stands for a key that must not be there."""
        ...

    async def commit(
        self,
        puts: dict[str, Any],
        deletes: list[str],
        expected: dict[str, int] = {},  # noqa: B006
    ) -> Outcome:
        """Make several changes, all or none, if every key in `expected` still has its revision."""
        ...

    async def space(self) -> Space:
        """How much is kept, and how much may be."""
        ...


class PluginDataStore:
    """`DataStore` over a shelf. The shelf is opened by the first call, and its disk never keeps the loop waiting."""

    def __init__(self, open_shelf: Callable[[], Shelf], *, quota_of: Callable[[str], DataQuota]) -> None:
        """`quota_of` says how much a plugin may keep, by its name."""
        self._open_shelf = open_shelf
        self._quota_of = quota_of
        self._shelf: Shelf | None = None
        self._opening = asyncio.Lock()

    async def get(self, caller: PluginInfo, key: str) -> Any:
        """The value under a key."""
        found = await self.entry(caller, key)
        return found.value if found is not None else None

    async def entry(self, caller: PluginInfo, key: str) -> Entry | None:
        """The value with its revision."""
        check_key(key)
        shelf = await self._opened()
        item = await asyncio.to_thread(shelf.read, caller.name, key)
        return Entry(value=msgspec.msgpack.decode(item.value), revision=item.revision) if item is not None else None

    async def put(self, caller: PluginInfo, key: str, value: Any) -> int:
        """Keep a value."""
        return (await self._commit(caller, {key: value}, [], {})).revision

    async def delete(self, caller: PluginInfo, key: str) -> bool:
        """Remove a key."""
        check_key(key)
        shelf = await self._opened()
        quota = self._quota_of(caller.name)
        done = await asyncio.to_thread(shelf.commit, caller.name, Batch(deletes=frozenset({key})), quota=quota)
        return isinstance(done, Committed) and key in done.deleted

    async def keys(self, caller: PluginInfo, prefix: str, after: str, limit: int) -> list[str]:
        """Keys in order."""
        if not 0 < limit <= KEYS_MAX:
            raise Misuse(f"data_store.keys: limit is from 1 to {KEYS_MAX}, found {limit}", code="invalid_params")
        for text in filter(None, (prefix, after)):
            check_key(text)
        shelf = await self._opened()
        return await asyncio.to_thread(shelf.keys, caller.name, prefix=prefix, after=after, limit=limit)

    async def compare_and_set(self, caller: PluginInfo, key: str, value: Any, revision: int) -> Outcome:
        """Keep a value if the key still has this revision."""
        return await self._commit(caller, {key: value}, [], {key: revision})

    async def commit(
        self, caller: PluginInfo, puts: dict[str, Any], deletes: list[str], expected: dict[str, int]
    ) -> Outcome:
        """Make several changes, all or none."""
        return await self._commit(caller, puts, deletes, expected)

    async def space(self, caller: PluginInfo) -> Space:
        """How much is kept, and how much may be."""
        shelf = await self._opened()
        usage = await asyncio.to_thread(shelf.usage, caller.name)
        quota = self._quota_of(caller.name)
        return Space(
            entries=usage.entries,
            entries_max=quota.entries,
            total_bytes=usage.total_bytes,
            total_bytes_max=quota.total_bytes,
            value_bytes_max=quota.value_bytes,
        )

    async def aclose(self) -> None:
        """Close the shelf, where it was opened."""
        shelf, self._shelf = self._shelf, None
        if shelf is not None:
            await asyncio.to_thread(shelf.close)

    async def _opened(self) -> Shelf:
        if self._shelf is not None:
            return self._shelf
        async with self._opening:
            if self._shelf is None:
                self._shelf = await asyncio.to_thread(self._open_shelf)
            return self._shelf

    async def _commit(
        self, caller: PluginInfo, puts: Mapping[str, Any], deletes: list[str], expected: Mapping[str, int]
    ) -> Outcome:
        quota = self._quota_of(caller.name)
        batch = _batch(puts, deletes, expected, quota)
        shelf = await self._opened()
        match await asyncio.to_thread(shelf.commit, caller.name, batch, quota=quota):
            case Committed(revision=revision):
                return Outcome(done=True, revision=revision)
            case Conflict(key=key, revision=revision):
                return Outcome(done=False, revision=revision, key=key)


def _batch(puts: Mapping[str, Any], deletes: list[str], expected: Mapping[str, int], quota: DataQuota) -> Batch:
    for key in (*puts, *deletes, *expected):
        check_key(key)
    if both := puts.keys() & set(deletes):
        raise Misuse(f"data_store.commit: {min(both)!r} is both put and deleted", code="invalid_params")
    count = len(puts) + len(deletes) + len(expected)
    if count > CHANGES_MAX:
        raise Misuse(f"data_store.commit takes at most {CHANGES_MAX} keys, found {count}", code="invalid_params")
    encoded = {key: msgspec.msgpack.encode(value) for key, value in puts.items()}
    for key, value in encoded.items():
        quota.check_value(key, len(value))
    return Batch(puts=encoded, deletes=frozenset(deletes), expected=dict(expected))
