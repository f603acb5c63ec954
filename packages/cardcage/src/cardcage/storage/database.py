"""The state folder's SQLite file: opened, brought up to date, and used by any thread of several processes.

Each change is one `BEGIN IMMEDIATE` transaction: the write lock is taken before the first row is read, so two processes
that write at once wait for each other instead of failing half-way. One connection is enough: statements take
microseconds, and a lock lets any thread use it.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DatabaseError
from sqlalchemy.pool import StaticPool

from cardcage.foundation.errors import Misuse, Unavailable
from cardcage.storage import schema

BUSY_TIMEOUT_S: Final = 10.0
"""How long a commit waits for another process's. One takes milliseconds; only a stuck disk makes it this long."""

IN_MEMORY: Final = ":memory:"


class Database:
    """The file at this path (or `sqlite:///path`, or `:memory:`), made with mode 0600 where it is missing.

    Not `durable` leaves it to the system when a commit reaches the disk: a power cut may take the last ones, whole.
    """

    def __init__(
        self, url_or_path: str | os.PathLike[str], *, busy_timeout_s: float = BUSY_TIMEOUT_S, durable: bool = True
    ) -> None:
        self.where = _database_path(url_or_path)
        self._lock = threading.RLock()
        if self.where != IN_MEMORY:
            _make_private_file(Path(self.where))
        self._engine = create_engine(
            URL.create("sqlite", database=self.where),
            poolclass=StaticPool,
            connect_args={"check_same_thread": False, "timeout": busy_timeout_s, "isolation_level": None},
        )
        event.listen(self._engine, "connect", _preparing(durable=durable))
        event.listen(self._engine, "begin", _begin)
        try:
            self._bring_up_to_date()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file. Harmless the second time."""
        with self._lock:
            self._engine.dispose()

    @contextmanager
    def reading(self) -> Generator[Connection]:
        """Several queries, which all see one state of the file."""
        with self._lock, _translated(self.where), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def asking(self) -> Generator[Connection]:
        """For one query, which sees one state of the file without a transaction around it: that takes half the time."""
        with self._lock, _translated(self.where), self._engine.connect() as connection:
            yield connection.execution_options(cardcage_begin=None)

    @contextmanager
    def writing(self) -> Generator[Connection]:
        """One transaction, which holds the write lock from its beginning; all of it is done, or nothing."""
        with self._lock, _translated(self.where), self._engine.connect() as connection:
            writing = connection.execution_options(cardcage_begin="BEGIN IMMEDIATE")
            with writing.begin():
                yield writing

    def _bring_up_to_date(self) -> None:
        with self.reading() as connection:
            if _revision(connection, self.where) == schema.NEWEST_REVISION:
                return
        with self.writing() as connection:
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


def _preparing(*, durable: bool) -> Callable[[sqlite3.Connection, object], None]:
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        # A registration that was reported must outlive a power cut, and so must the fact that a uid was given.
        connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        ours = connection.execute("PRAGMA application_id").fetchone()[0] == schema.APPLICATION_ID
        empty = connection.execute("PRAGMA page_count").fetchone()[0] == 0
        if ours or empty:  # another program's file is about to be refused, and is left as it was found
            _use_write_ahead_log(connection)

    return prepare


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
