"""The registry in one SQLite file, which several processes may open at once.

Each commit is one `BEGIN IMMEDIATE` transaction: the write lock is taken before the first row is read, so two processes
that register at once wait for each other instead of failing half-way. One connection is enough: statements take
microseconds, and a lock lets any thread use it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, assert_never

from sqlalchemy import Connection, bindparam, create_engine, delete, event, func, insert, select, update
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.pool import StaticPool

from cardcage.foundation.errors import Misuse, Unavailable
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
from cardcage.storage.faults import instance_exists, instance_unknown, plugin_unknown
from cardcage.storage.plain import from_text, setting_text
from cardcage.storage.uidmap import uid_range_here

BUSY_TIMEOUT_S: Final = 10.0
"""How long a commit waits for another process's. One takes milliseconds; only a stuck disk makes it this long."""

IN_MEMORY: Final = ":memory:"


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
        self.where = _database_path(url_or_path)
        self._uid_range = uid_range or uid_range_here()
        self._lock = threading.RLock()
        if self.where != IN_MEMORY:
            _make_private_file(Path(self.where))
        self._engine = create_engine(
            URL.create("sqlite", database=self.where),
            poolclass=StaticPool,
            connect_args={"check_same_thread": False, "timeout": busy_timeout_s, "isolation_level": None},
        )
        event.listen(self._engine, "connect", _prepare_connection)
        event.listen(self._engine, "begin", _begin)
        try:
            self._bring_up_to_date()
        except BaseException:
            self.close()
            raise

    def plugins(self) -> tuple[InstalledPlugin, ...]:
        """Everything installed, ordered by name."""
        with self._reading() as connection:
            rows = connection.execute(select(schema.plugins).order_by(schema.plugins.c.name)).mappings().all()
        return tuple(plugin_from_row(row) for row in rows)

    def plugin(self, name: str) -> InstalledPlugin | None:
        """The installed plugin of that name."""
        with self._asking() as connection:
            row = connection.execute(_ONE_PLUGIN, {"wanted": name}).mappings().one_or_none()
        return plugin_from_row(row) if row is not None else None

    def instances(self, plugin: str | None = None) -> tuple[InstanceRecord, ...]:
        """All instances, or those of one plugin, ordered by id."""
        query = _instance_query().order_by(schema.instances.c.id)
        if plugin is not None:
            query = query.where(schema.instances.c.plugin == plugin)
        with self._reading() as connection:
            rows = connection.execute(query).mappings().all()
        return tuple(instance_from_row(row) for row in rows)

    def instance(self, id: InstanceId) -> InstanceRecord | None:  # noqa: A002
        """The instance with that id."""
        with self._asking() as connection:
            row = connection.execute(_ONE_INSTANCE, {"wanted": id}).mappings().one_or_none()
        return instance_from_row(row) if row is not None else None

    def settings(self) -> Mapping[str, Any]:
        """Every setting that was put, by name."""
        with self._reading() as connection:
            rows = connection.execute(select(schema.settings).order_by(schema.settings.c.name)).all()
        return {name: from_text(text) for name, text in rows}

    def commit(self, *changes: Change) -> None:
        """Make all the changes, in their order, or none of them."""
        with self._writing() as connection:
            for change in changes:
                _apply(connection, change, self._uid_range)

    def close(self) -> None:
        """Close the file. Harmless the second time."""
        with self._lock:
            self._engine.dispose()

    @contextmanager
    def _reading(self) -> Generator[Connection]:
        with self._lock, _translated(self.where), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def _asking(self) -> Generator[Connection]:
        """For one query, which sees one state of the file without a transaction around it: that takes half the time."""
        with self._lock, _translated(self.where), self._engine.connect() as connection:
            yield connection.execution_options(cardcage_begin=None)

    @contextmanager
    def _writing(self) -> Generator[Connection]:
        with self._lock, _translated(self.where), self._engine.connect() as connection:
            writing = connection.execution_options(cardcage_begin="BEGIN IMMEDIATE")
            with writing.begin():
                yield writing

    def _bring_up_to_date(self) -> None:
        with self._reading() as connection:
            if _revision(connection, self.where) == schema.NEWEST_REVISION:
                return
        with self._writing() as connection:
            # Asked again under the write lock: another process may have done it meanwhile.
            if _revision(connection, self.where) != schema.NEWEST_REVISION:
                _migrate(connection, self.where)


def _database_path(url_or_path: str | os.PathLike[str]) -> str:
    text = os.fspath(url_or_path)
    if "://" not in text:
        return text if text == IN_MEMORY else str(Path(text).absolute())
    try:
        url = make_url(text)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() != "sqlite":
        raise Misuse(
            f'the registry cannot be kept at "{text.split("://")[0]}://...": expected a path or a sqlite:/// address',
            code="store_unusable",
        )
    return str(Path(url.database).absolute()) if url.database and url.database != IN_MEMORY else IN_MEMORY


def _make_private_file(path: Path) -> None:
    fault = _make_if_missing(path) or (None if os.access(path, os.R_OK | os.W_OK) else "permission denied")
    if fault:
        raise Misuse(
            f'the registry cannot be kept in "{path}": expected a file that can be read and written, found: {fault}',
            code="store_unusable",
            path=str(path),
        )


def _make_if_missing(path: Path) -> str | None:
    """Make the file, private to this user; what keeps that from being done, if something does."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        return f"{path.parent} is not a folder"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    try:
        # Only a new file is opened here: closing a descriptor of one that this process has open in another store would
        # drop the locks that SQLite holds on it.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return None if path.is_file() else "not a regular file"
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def _prepare_connection(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # A registration that was reported must outlive a power cut, and so must the fact that a uid was given.
    connection.execute("PRAGMA synchronous = FULL")
    ours = connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID
    empty = connection.execute("PRAGMA page_count").fetchone()[0] == 0
    if ours or empty:  # another program's file is about to be refused, and is left as it was found
        _use_write_ahead_log(connection)


def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # WAL lets others read during a commit. It is a property of the file, so it is set once. Setting it needs the file
    # alone, and SQLite does not wait for that as it does for a lock: of two processes that make the file at the same
    # moment one would fail. It looks again.
    give_up_at_s = time.monotonic() + BUSY_TIMEOUT_S
    while connection.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > give_up_at_s:
                raise
            time.sleep(0.005)


def _begin(connection: Connection) -> None:
    begin = connection.get_execution_options().get("cardcage_begin", "BEGIN")
    if begin is not None:
        connection.exec_driver_sql(begin)


@contextmanager
def _translated(where: str) -> Generator[None]:
    try:
        yield
    except DatabaseError as error:
        code = getattr(error.orig, "sqlite_errorcode", None)
        if code is None:
            raise
        if code & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Unavailable(
                f'the registry "{where}" is busy: another process held it for too long',
                code="store_busy",
                retry_after_s=1.0,
                path=where,
            ) from error
        if code & 0xFF == sqlite3.SQLITE_FULL:
            raise Unavailable(
                f'the registry "{where}" cannot be written: the disk is full', code="store_full", path=where
            ) from error
        if code & 0xFF in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_ERROR):
            raise
        damaged = code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
        raise Misuse(
            f'the registry "{where}" cannot be used: expected a sound SQLite file, found: {error.orig}',
            code="store_unusable",
            hint="restore it from a backup, or move it away: plugins are then registered anew" if damaged else None,
            path=where,
        ) from error


def _revision(connection: Connection, where: str) -> str | None:
    """The schema revision of the file; None where it is empty. Refuses a file that is not ours or is too new."""
    application = connection.exec_driver_sql("PRAGMA application_id").scalar_one()
    tables = {row[0] for row in connection.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables and application == 0:
        return None
    if application != schema.APPLICATION_ID or "alembic_version" not in tables:
        raise Misuse(
            f'the registry "{where}" cannot be used: expected a Cardcage registry, '
            f"found another program's SQLite file (tables: {', '.join(sorted(tables)[:5]) or 'none'})",
            code="store_unusable",
            path=where,
        )
    found = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one_or_none()
    # Revisions are numbered, so that an older Cardcage can tell a newer file from a broken one without knowing it.
    if found is None or found > schema.NEWEST_REVISION:
        raise Misuse(
            f'the registry "{where}" cannot be used: expected schema revision {schema.NEWEST_REVISION} or older, '
            f"found {found or 'none'}, which a newer Cardcage made",
            code="store_unusable",
            hint="upgrade Cardcage, or use another state folder",
            path=where,
            expected=schema.NEWEST_REVISION,
            found=found,
        )
    return str(found)


def _migrate(connection: Connection, where: str) -> None:
    # Alembic takes longer to import than the rest of opening takes to run, and is needed about once in a file's life.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
    try:
        command.upgrade(config, schema.NEWEST_REVISION)
    except CommandError as error:
        raise Misuse(
            f'the registry "{where}" cannot be used: expected a schema revision that Cardcage made, found: {error}',
            code="store_unusable",
            path=where,
        ) from error
    assert _revision(connection, where) == schema.NEWEST_REVISION


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
