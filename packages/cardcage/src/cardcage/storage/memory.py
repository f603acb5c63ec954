"""A store that forgets everything at the end of the program."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

from cardcage.foundation.names import InstanceId
from cardcage.registry.model import (
    Change,
    CountRestart,
    InstalledPlugin,
    InstanceRecord,
    PutInstance,
    PutPlugin,
    PutSetting,
    RemoveInstance,
    RemovePlugin,
    RestartCount,
)
from cardcage.registry.uids import UidRange, next_uid
from cardcage.storage.faults import instance_exists, instance_unknown, plugin_unknown
from cardcage.storage.plain import config_text, from_text, setting_text
from cardcage.storage.uidmap import uid_range_here


@dataclass(slots=True)
class _Contents:
    plugins: dict[str, InstalledPlugin] = field(default_factory=dict[str, InstalledPlugin])
    instances: dict[str, InstanceRecord] = field(default_factory=dict[str, InstanceRecord])
    uids: dict[str, int] = field(default_factory=dict[str, int])
    settings: dict[str, str] = field(default_factory=dict[str, str])

    def copy(self) -> _Contents:
        return _Contents(dict(self.plugins), dict(self.instances), dict(self.uids), dict(self.settings))


class MemoryStore:
    """A `Store` in memory. Closing it forgets everything."""

    def __init__(self, *, uid_range: UidRange | None = None) -> None:
        self._uid_range = uid_range or uid_range_here()
        self._lock = threading.Lock()
        self._contents = _Contents()

    def plugins(self) -> tuple[InstalledPlugin, ...]:
        """Everything installed, ordered by name."""
        contents = self._contents
        return tuple(contents.plugins[name] for name in sorted(contents.plugins))

    def plugin(self, name: str) -> InstalledPlugin | None:
        """The installed plugin of that name."""
        return self._contents.plugins.get(name)

    def instances(self, plugin: str | None = None) -> tuple[InstanceRecord, ...]:
        """All instances, or those of one plugin, ordered by id."""
        contents = self._contents
        records = (contents.instances[key] for key in sorted(contents.instances))
        return tuple(record for record in records if plugin is None or record.plugin == plugin)

    def instance(self, id: InstanceId) -> InstanceRecord | None:  # noqa: A002
        """The instance with that id."""
        return self._contents.instances.get(id)

    def settings(self) -> Mapping[str, Any]:
        """Every setting that was put, by name."""
        return {name: from_text(text) for name, text in sorted(self._contents.settings.items())}

    def commit(self, *changes: Change) -> None:
        """Make all the changes, in their order, or none of them."""
        with self._lock:
            # The changes are made in a copy that is put in place at the end: a reader holds either the old or the new.
            contents = self._contents.copy()
            for change in changes:
                _apply(contents, change, self._uid_range)
            self._contents = contents

    def close(self) -> None:
        """Forget everything."""
        self._contents = _Contents()


def _apply(contents: _Contents, change: Change, uid_range: UidRange) -> None:
    match change:
        case PutPlugin(plugin=plugin):
            contents.plugins[plugin.name] = plugin
        case RemovePlugin(name=name):
            if contents.plugins.pop(name, None) is None:
                raise plugin_unknown(name)
            contents.instances = {key: each for key, each in contents.instances.items() if each.plugin != name}
        case PutInstance(record=record, only_new=only_new):
            _put_instance(contents, record, only_new, uid_range)
        case RemoveInstance(id=id):
            if contents.instances.pop(id, None) is None:
                raise instance_unknown(id)
        case CountRestart(id=id, at_s=at_s, reason=reason):
            record = contents.instances.get(id)
            if record is None:
                raise instance_unknown(id)
            counted = RestartCount(total=record.restarts.total + 1, last_at_s=at_s, last_reason=reason)
            contents.instances[id] = replace(record, restarts=counted)
        case PutSetting(name=name, value=None):
            contents.settings.pop(name, None)
        case PutSetting(name=name, value=value):
            contents.settings[name] = setting_text(name, value)
        case _:
            assert_never(change)


def _put_instance(contents: _Contents, record: InstanceRecord, only_new: bool, uid_range: UidRange) -> None:
    if record.plugin not in contents.plugins:
        raise plugin_unknown(record.plugin)
    before = contents.instances.get(record.id)
    if before and only_new:
        raise instance_exists(record.id)
    uid = contents.uids.get(record.id)
    if uid is None or uid not in uid_range:
        given = [each for each in contents.uids.values() if each in uid_range]
        uid = contents.uids[record.id] = next_uid(uid_range, max(given, default=None))
    restarts = before.restarts if before else RestartCount()
    config = from_text(config_text(record.id, record.config))
    contents.instances[record.id] = replace(record, config=config, uid=uid, restarts=restarts)
