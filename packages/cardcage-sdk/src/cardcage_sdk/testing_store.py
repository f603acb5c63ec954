"""The host's data store as a test stands in for it: in memory, with revisions, without quotas."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


class LocalDataStore:
    """Answers `data_store.*` as the host does. `values` holds what the plugin keeps."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self._revisions: dict[str, int] = {}
        self._revision = 0

    def services(self) -> dict[str, Callable[..., Any]]:
        """Each method by the name under which plugins call it."""
        names = ("get", "entry", "put", "delete", "keys", "compare_and_set", "commit", "space")
        return {f"data_store.{name}": getattr(self, name) for name in names}

    def get(self, key: str) -> Any:
        """The value under a key."""
        return self.values.get(key)

    def entry(self, key: str) -> dict[str, Any] | None:
        """The value with its revision."""
        return {"value": self.values[key], "revision": self._revisions[key]} if key in self.values else None

    def put(self, key: str, value: Any) -> int:
        """Keep a value."""
        return self.commit({key: value}, [])["revision"]

    def delete(self, key: str) -> bool:
        """Remove a key."""
        there = key in self.values
        self.commit({}, [key])
        return there

    def keys(self, prefix: str = "", after: str = "", limit: int = 100) -> list[str]:
        """Keys in order."""
        return sorted(key for key in self.values if key.startswith(prefix) and key > after)[:limit]

    def compare_and_set(self, key: str, value: Any, revision: int) -> dict[str, Any]:
        """Keep a value if the key still has this revision."""
        return self.commit({key: value}, [], {key: revision})

    def commit(
        self, puts: Mapping[str, Any], deletes: Sequence[str], expected: Mapping[str, int] | None = None
    ) -> dict[str, Any]:
        """Make several changes, all or none."""
        for key, revision in (expected or {}).items():
            found = self._revisions[key] if key in self.values else 0
            if found != revision:
                return {"done": False, "revision": found, "key": key}
        self._revision += 1
        for key in deletes:
            self.values.pop(key, None)
        self.values.update(puts)
        self._revisions.update(dict.fromkeys(puts, self._revision))
        return {"done": True, "revision": self._revision, "key": ""}

    def space(self) -> dict[str, int]:
        """How much is kept; nothing bounds it here."""
        return {"entries": len(self.values), "total_bytes": 0}
