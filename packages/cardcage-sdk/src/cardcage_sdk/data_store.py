"""The data store as a plugin sees it: `context.data_store`. Needs the capability `DataStore`.

Each method waits for the host; the one with an `a` before its name is awaited, for `async def` code. Values are plain:
numbers, texts, bytes, lists, maps with text keys. Raises `HostError`: its `code` is `refused` without the capability
and above the quota (`data["code"]` is `quota_exceeded` then), `invalid_params` for a key that is none, `unavailable`
for calls that come too fast.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from cardcage_sdk.context import HostLink

PAGE_KEYS = 500


class Entry(NamedTuple):
    """A value and its revision, which every change of the key makes a new one."""

    value: Any
    revision: int


class DataStore:
    """A plugin's own data, kept between starts and shared by all its instances."""

    def __init__(self, link: HostLink, timeout_s: float | None = None) -> None:
        self._link = link
        self._timeout_s = timeout_s

    def get(self, key: str, default: Any = None) -> Any:
        """The value under a key, or `default`."""
        found = self.entry(key)
        return default if found is None else found.value

    def entry(self, key: str) -> Entry | None:
        """The value with its revision; None where there is none."""
        return _entry(self._call("entry", key))

    def put(self, key: str, value: Any) -> int:
        """Keep a value; returns its revision."""
        return self._call("put", key, value)

    def delete(self, key: str) -> bool:
        """Remove a key; whether it was there."""
        return self._call("delete", key)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """All keys that begin with `prefix`, in order, fetched as they are needed."""
        after = ""
        while page := self._call("keys", prefix, after, PAGE_KEYS):
            yield from page
            after = page[-1]
            if len(page) < PAGE_KEYS:
                return

    def compare_and_set(self, key: str, value: Any, revision: int) -> bool:
        """Keep a value if the key still has this revision (0: if it is not there); whether that was done."""
        return self._call("compare_and_set", key, value, revision)["done"]

    def commit(
        self,
        puts: Mapping[str, Any] | None = None,
        deletes: Sequence[str] = (),
        expected: Mapping[str, int] | None = None,
    ) -> bool:
        """Make several changes, all or none, if every key in `expected` still has its revision."""
        return self._call("commit", dict(puts or {}), list(deletes), dict(expected or {}))["done"]

    def space(self) -> dict[str, int]:
        """`entries`, `total_bytes`, and what they may be at most (`entries_max`, `total_bytes_max`, ...)."""
        return self._call("space")

    async def aget(self, key: str, default: Any = None) -> Any:
        """`get`, awaited."""
        found = await self.aentry(key)
        return default if found is None else found.value

    async def aentry(self, key: str) -> Entry | None:
        """`entry`, awaited."""
        return _entry(await self._acall("entry", key))

    async def aput(self, key: str, value: Any) -> int:
        """`put`, awaited."""
        return await self._acall("put", key, value)

    async def adelete(self, key: str) -> bool:
        """`delete`, awaited."""
        return await self._acall("delete", key)

    async def akeys(self, prefix: str = "") -> AsyncIterator[str]:
        """`keys`, for `async for`."""
        after = ""
        while page := await self._acall("keys", prefix, after, PAGE_KEYS):
            for key in page:
                yield key
            after = page[-1]
            if len(page) < PAGE_KEYS:
                return

    async def acompare_and_set(self, key: str, value: Any, revision: int) -> bool:
        """`compare_and_set`, awaited."""
        return (await self._acall("compare_and_set", key, value, revision))["done"]

    async def acommit(
        self,
        puts: Mapping[str, Any] | None = None,
        deletes: Sequence[str] = (),
        expected: Mapping[str, int] | None = None,
    ) -> bool:
        """`commit`, awaited."""
        return (await self._acall("commit", dict(puts or {}), list(deletes), dict(expected or {})))["done"]

    async def aspace(self) -> dict[str, int]:
        """`space`, awaited."""
        return await self._acall("space")

    def _call(self, method: str, *args: Any) -> Any:
        return self._link.call(f"data_store.{method}", args, self._timeout_s)

    async def _acall(self, method: str, *args: Any) -> Any:
        return await self._link.acall(f"data_store.{method}", args, self._timeout_s)


def _entry(found: Any) -> Entry | None:
    return None if found is None else Entry(found["value"], found["revision"])
