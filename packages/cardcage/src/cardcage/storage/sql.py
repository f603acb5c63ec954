"""The registry in one SQLite file, which several processes may open at once; see `database` for how."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, assert_never

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

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
)
from cardcage.registry.uids import UidRange, next_uid
from cardcage.storage import schema
from cardcage.storage.codec import (
    instance_from_row,
    instance_to_row,
    plugin_from_row,
    plugin_to_row,
)
from cardcage.storage.database import BUSY_TIMEOUT_S, Database
from cardcage.storage.faults import instance_exists, instance_unknown, plugin_unknown
from cardcage.storage.plain import from_text, setting_text
from cardcage.storage.uidmap import uid_range_here


class SqlStore:
    """A `Store` in the SQLite file at this path (or `sqlite:///path`, or `:memory:`).

    Opening makes the file (mode 0600: configs may hold secrets) or brings an older one up to date. Raises `Misuse` with
    code `store_unusable` where the file is damaged, is not a registry, or was made by a newer Cardcage. Instances get
    their user ids from `uid_range`, by default one that this machine can use.
    """

    def __init__(
        self,
        url_or_path: str | os.PathLike[str],
        *,
        uid_range: UidRange | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
    ) -> None:
        self._uid_range = uid_range or uid_range_here()
        self._database = Database(url_or_path, busy_timeout_s=busy_timeout_s)
        self.where = self._database.where

    def plugins(self) -> tuple[InstalledPlugin, ...]:
        """Everything installed, ordered by name."""
        with self._database.reading() as connection:
            rows = connection.execute(select(schema.plugins).order_by(schema.plugins.c.name)).mappings().all()
        return tuple(plugin_from_row(row) for row in rows)

    def plugin(self, name: str) -> InstalledPlugin | None:
        """The installed plugin of that name."""
        with self._database.asking() as connection:
            row = connection.execute(_ONE_PLUGIN, {"wanted": name}).mappings().one_or_none()
        return plugin_from_row(row) if row is not None else None

    def instances(self, plugin: str | None = None) -> tuple[InstanceRecord, ...]:
        """All instances, or those of one plugin, ordered by id."""
        query = _instance_query().order_by(schema.instances.c.id)
        if plugin is not None:
            query = query.where(schema.instances.c.plugin == plugin)
        with self._database.reading() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(instance_from_row(row) for row in rows)

    def instance(self, id: InstanceId) -> InstanceRecord | None:  # noqa: A002
        """The instance with that id."""
        with self._database.asking() as connection:
            row = connection.execute(_ONE_INSTANCE, {"wanted": id}).mappings().one_or_none()
        return instance_from_row(row) if row is not None else None

    def settings(self) -> Mapping[str, Any]:
        """Every setting that was put, by name."""
        with self._database.reading() as connection:
            rows = connection.execute(select(schema.settings).order_by(schema.settings.c.name)).all()
        return {name: from_text(text) for name, text in rows}

    def commit(self, *changes: Change) -> None:
        """Make all the changes, in their order, or none of them."""
        with self._database.writing() as connection:
            for change in changes:
                _apply(connection, change, self._uid_range)

    def close(self) -> None:
        """Close the file. Harmless the second time."""
        self._database.close()


def _instance_query() -> Any:
    joined = schema.instances.outerjoin(schema.uids, schema.uids.c.instance == schema.instances.c.id)
    return select(schema.instances, schema.uids.c.uid).select_from(joined)


# Made once: each start asks both, and to make a query takes as long as to run it.
_ONE_PLUGIN: Final = select(schema.plugins).where(schema.plugins.c.name == bindparam("wanted"))
_ONE_INSTANCE: Final = _instance_query().where(schema.instances.c.id == bindparam("wanted"))


def _apply(connection: Connection, change: Change, uid_range: UidRange) -> None:
    match change:
        case PutPlugin(plugin=plugin):
            _put_plugin(connection, plugin)
        case RemovePlugin(name=name):
            if not connection.execute(delete(schema.plugins).where(schema.plugins.c.name == name)).rowcount:
                raise plugin_unknown(name)
        case PutInstance(record=record, only_new=only_new):
            _put_instance(connection, record, only_new, uid_range)
        case RemoveInstance(id=id):
            if not connection.execute(delete(schema.instances).where(schema.instances.c.id == id)).rowcount:
                raise instance_unknown(id)
        case CountRestart():
            _count_restart(connection, change)
        case PutSetting(name=name, value=value):
            connection.execute(delete(schema.settings).where(schema.settings.c.name == name))
            if value is not None:
                connection.execute(insert(schema.settings).values(name=name, value=setting_text(name, value)))
        case _:
            assert_never(change)


def _put_plugin(connection: Connection, plugin: InstalledPlugin) -> None:
    row = plugin_to_row(plugin)
    changed = connection.execute(update(schema.plugins).where(schema.plugins.c.name == plugin.name).values(row))
    # Not "insert or replace": replacing would delete the row first, and its instances with it.
    if not changed.rowcount:
        connection.execute(insert(schema.plugins).values(row))


def _put_instance(connection: Connection, record: InstanceRecord, only_new: bool, uid_range: UidRange) -> None:
    known = select(schema.plugins.c.name).where(schema.plugins.c.name == record.plugin)
    if connection.execute(known).first() is None:
        raise plugin_unknown(record.plugin)
    row = instance_to_row(record)
    here = schema.instances.c.id == record.id
    exists = connection.execute(select(schema.instances.c.id).where(here)).first() is not None
    if exists and only_new:
        raise instance_exists(record.id)
    if exists:
        connection.execute(update(schema.instances).where(here).values(row))
    else:
        connection.execute(insert(schema.instances).values(**row, restarts_total=0))
    _give_uid(connection, record.id, uid_range)


def _give_uid(connection: Connection, instance: str, uid_range: UidRange) -> None:
    own = connection.execute(select(schema.uids.c.uid).where(schema.uids.c.instance == instance)).scalar_one_or_none()
    if own is not None and own in uid_range:
        return
    in_range = schema.uids.c.uid.between(uid_range.base, uid_range.base + uid_range.count - 1)
    highest = connection.execute(select(func.max(schema.uids.c.uid)).where(in_range)).scalar_one()
    connection.execute(delete(schema.uids).where(schema.uids.c.instance == instance))
    connection.execute(insert(schema.uids).values(instance=instance, uid=next_uid(uid_range, highest)))


def _count_restart(connection: Connection, change: CountRestart) -> None:
    table = schema.instances
    counted = (
        update(table)
        .where(table.c.id == change.id)
        .values(
            restarts_total=table.c.restarts_total + 1,
            restarts_last_at_s=change.at_s,
            restarts_last_reason=change.reason,
        )
    )
    if not connection.execute(counted).rowcount:
        raise instance_unknown(change.id)
