"""A registry in which one instance is tried out: with another config and other grants, which nobody remembers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cardcage.foundation.names import InstanceId
from cardcage.registry import Change, InstalledPlugin, InstanceRecord, PutInstance, RemoveInstance, Store


class TrialStore:
    """The store beneath, but with `trial` in place of the instance that has its id.

    What is put for that instance is not what was tried: the record that was there is put again, or a blank one. Only
    so does the store give the instance its user id, which it keeps from run to run.
    """

    def __init__(self, store: Store, trial: InstanceRecord) -> None:
        self._store = store
        self._trial = trial
        self._blank = InstanceRecord(id=trial.id, plugin=trial.plugin, label=trial.label, desired="stopped")
        self._made_blank = False

    def forget_blank(self) -> None:
        """Take the blank record away again, where this trial made it. The user id stays the instance's own."""
        stored = self._store.instance(self._trial.id) if self._made_blank else None
        if stored is not None and replace(stored, uid=None, restarts=self._blank.restarts) == self._blank:
            self._store.commit(RemoveInstance(id=stored.id))

    def plugins(self) -> tuple[InstalledPlugin, ...]:
        return self._store.plugins()

    def plugin(self, name: str) -> InstalledPlugin | None:
        return self._store.plugin(name)

    def instances(self, plugin: str | None = None) -> tuple[InstanceRecord, ...]:
        return tuple(self._shown(record) for record in self._store.instances(plugin))

    def instance(self, id: InstanceId) -> InstanceRecord | None:  # noqa: A002 - the port's name for it
        stored = self._store.instance(id)
        if id != self._trial.id:
            return stored
        return self._trial if stored is None else self._shown(stored)

    def settings(self) -> Mapping[str, Any]:
        return self._store.settings()

    def commit(self, *changes: Change) -> None:
        self._store.commit(*map(self._remembered, changes))

    def close(self) -> None:
        self._store.close()

    def _shown(self, stored: InstanceRecord) -> InstanceRecord:
        if stored.id != self._trial.id:
            return stored
        return replace(self._trial, uid=stored.uid, restarts=stored.restarts)

    def _remembered(self, change: Change) -> Change:
        if not isinstance(change, PutInstance) or change.record.id != self._trial.id:
            return change
        stored = self._store.instance(self._trial.id)
        self._made_blank = self._made_blank or stored is None
        return PutInstance(record=stored or self._blank)
