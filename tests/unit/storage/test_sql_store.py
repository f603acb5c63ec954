"""What is particular to the SQLite file: other processes, other versions, damage, and its migrations."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

import cardcage.storage
from cardcage.foundation.errors import Misuse, Unavailable
from cardcage.registry import PutSetting
from cardcage.services import Batch, Committed, DataQuota
from cardcage.storage import SqlShelf, SqlStore, schema

OPEN_AND_PUT = """
import sys
from cardcage.registry import PutSetting
from cardcage.storage import SqlStore
sys.stdin.read()
store = SqlStore(sys.argv[1])
for number in range(20):
    store.commit(PutSetting(name=f"{sys.argv[2]}-{number}", value=number))
store.close()
"""


def test_what_was_written_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    first = SqlStore(tmp_path / "registry.db")
    first.commit(PutSetting(name="colour", value="green"))
    first.close()
    assert dict(SqlStore(f"sqlite:///{tmp_path}/registry.db").settings()) == {"colour": "green"}


@pytest.mark.parametrize("name", ["with space?x=1#y%20z.db", "ünïcode.db", ":memory", "sqlite"])
def test_a_path_may_hold_any_characters(tmp_path: Path, name: str) -> None:
    SqlStore(tmp_path / name).commit(PutSetting(name="a", value=1))
    assert (tmp_path / name).is_file()
    assert dict(SqlStore(tmp_path / name).settings()) == {"a": 1}


def test_the_file_and_its_logs_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        store = SqlStore(tmp_path / "state" / "registry.db")
        store.commit(PutSetting(name="a", value=1))
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    finally:
        os.umask(before)
    assert modes["registry.db"] == 0o600
    assert set(modes.values()) == {0o600}
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_several_processes_may_make_and_fill_one_new_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    commands = [[sys.executable, "-c", OPEN_AND_PUT, str(path), f"p{n}"] for n in range(4)]
    workers = [subprocess.Popen(each, stdin=subprocess.PIPE, stderr=subprocess.PIPE) for each in commands]
    # All have been started when the first is told to go, so that they meet at the empty file.
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.close()
        worker.stdin = None
    assert [worker.communicate(timeout=60)[1] for worker in workers] == [b""] * 4
    assert [worker.returncode for worker in workers] == [0] * 4
    assert len(SqlStore(path).settings()) == 80


def test_a_second_store_in_one_process_sees_what_the_first_wrote(tmp_path: Path) -> None:
    first, second = SqlStore(tmp_path / "registry.db"), SqlStore(tmp_path / "registry.db")
    first.commit(PutSetting(name="a", value=1))
    assert dict(second.settings()) == {"a": 1}
    second.commit(PutSetting(name="a", value=2))
    assert dict(first.settings()) == {"a": 2}


def test_a_store_that_another_holds_for_too_long_is_unavailable_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    store = SqlStore(path, busy_timeout_s=0.05)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="busy") as raised:
        store.commit(PutSetting(name="a", value=1))
    assert raised.value.code == "store_busy"
    other.execute("ROLLBACK")
    other.close()
    store.commit(PutSetting(name="b", value=1))
    assert dict(store.settings()) == {"b": 1}


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"this was never a database" * 500)
    with pytest.raises(Misuse, match="file is not a database") as raised:
        SqlStore(path)
    assert raised.value.code == "store_unusable"
    assert str(path) in str(raised.value)


def test_damage_in_the_middle_is_refused_by_name_when_it_is_met(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    store = SqlStore(path)
    store.commit(*(PutSetting(name=f"s{n}", value="x" * 200) for n in range(200)))
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * (size - 4096))
    with pytest.raises(Misuse, match="sound SQLite file") as raised:
        SqlStore(path).settings()
    assert str(path) in str(raised.value)


def test_another_programs_file_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "photos.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE photos (name TEXT)")
    other.commit()
    other.close()
    before = path.read_bytes()
    with pytest.raises(Misuse, match=r"another program's SQLite file \(tables: photos\)"):
        SqlStore(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["photos.db"]


def test_a_file_of_a_newer_cardcage_is_refused_with_both_revisions(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    SqlStore(path).close()
    newer = sqlite3.connect(path)
    newer.execute("UPDATE alembic_version SET version_num = '9001'")
    newer.commit()
    newer.close()
    with pytest.raises(Misuse, match=f"revision {schema.NEWEST_REVISION} or older, found 9001") as raised:
        SqlStore(path)
    assert raised.value.fields["found"] == "9001"
    assert raised.value.hint


def test_a_file_whose_revision_nobody_made_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    SqlStore(path).close()
    strange = sqlite3.connect(path)
    strange.execute("UPDATE alembic_version SET version_num = '0000-strange'")
    strange.commit()
    strange.close()
    with pytest.raises(Misuse, match="0000-strange") as raised:
        SqlStore(path)
    assert raised.value.code == "store_unusable"


def test_a_full_disk_is_told_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    store = SqlStore(path)
    store.commit(PutSetting(name="small", value=1))
    store._database._engine.raw_connection().driver_connection.execute("PRAGMA max_page_count = 1")  # pyright: ignore
    with pytest.raises(Unavailable, match="the disk is full"):
        store.commit(PutSetting(name="large", value="x" * 10_000_000))
    assert dict(store.settings()) == {"small": 1}


@pytest.mark.parametrize("url", ["postgresql://user:secret@db.example.com/cardcage", "mysql://x", "://"])
def test_an_address_that_is_not_sqlite_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Misuse) as raised:
        SqlStore(url)
    assert "secret" not in str(raised.value)


def test_a_path_that_cannot_hold_a_file_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misuse, match="is not a folder"):
        SqlStore(tmp_path / "file" / "registry.db")
    with pytest.raises(Misuse, match="not a regular file"):
        SqlStore(tmp_path)


def test_the_migrations_make_exactly_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    SqlStore(tmp_path / "registry.db").close()
    engine = create_engine(f"sqlite:///{tmp_path}/registry.db")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_the_newest_revision_is_the_head_of_one_line_of_migrations() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(cardcage.storage.__file__).parent / "migrations"))
    script = ScriptDirectory.from_config(config)
    assert script.get_heads() == [schema.NEWEST_REVISION]


def test_a_registry_of_the_first_revision_is_brought_up_to_date_and_keeps_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    store = SqlStore(path)
    store.commit(PutSetting(name="colour", value="green"))
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE data_entries")
        connection.execute("DROP TABLE data_spaces")
        connection.execute("UPDATE alembic_version SET version_num = '0001'")
    connection.close()
    assert dict(SqlStore(path).settings()) == {"colour": "green"}
    shelf = SqlShelf(path)
    assert isinstance(shelf.commit("ocr", Batch(puts={"a": b"1"}), quota=DataQuota()), Committed)
    shelf.close()


def test_opening_a_file_that_is_up_to_date_does_not_load_alembic(tmp_path: Path) -> None:
    SqlStore(tmp_path / "registry.db").close()
    program = (
        "import sys\n"
        "from cardcage.storage import SqlStore\n"
        "SqlStore(sys.argv[1]).plugins()\n"
        "assert 'sqlalchemy' in sys.modules\n"
        "assert 'alembic' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "registry.db")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_memory_store_does_not_load_sqlalchemy() -> None:
    program = (
        "import sys\nfrom cardcage.storage import MemoryStore\nMemoryStore()\nassert 'sqlalchemy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
