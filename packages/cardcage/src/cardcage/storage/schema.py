"""The tables of the SQLite registry, as the newest migration leaves them.

A test compares these with what the migrations really make.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

APPLICATION_ID: Final = 0x43434147
"""Written into the file's header (`CCAG`), so that another program's SQLite file is never taken for ours."""

NEWEST_REVISION: Final = "0002"

metadata: Final = MetaData()

plugins: Final = Table(
    "plugins",
    metadata,
    Column("name", String, primary_key=True),
    Column("version", String, nullable=False),
    Column("digest", String, nullable=False),
    Column("package_dir", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("registered_at", Float, nullable=False),
    Column("capabilities", Text, nullable=False),
    Column("problem", Text),
)

instances: Final = Table(
    "instances",
    metadata,
    Column("id", String, primary_key=True),
    Column("plugin", String, ForeignKey("plugins.name", ondelete="CASCADE"), nullable=False),
    Column("label", String),
    Column("config", Text, nullable=False),
    Column("grants", Text, nullable=False),
    Column("desired", String, CheckConstraint("desired IN ('started', 'stopped')"), nullable=False),
    Column("restart", String, CheckConstraint("restart IN ('never', 'on_failure', 'always')"), nullable=False),
    Column("restarts_total", Integer, nullable=False),
    Column("restarts_last_at_s", Float),
    Column("restarts_last_reason", Text),
    Index("instances_by_plugin", "plugin"),
)

uids: Final = Table(
    "uids",
    metadata,
    # No foreign key: the row outlives its instance, because files that belong to the uid may.
    Column("instance", String, primary_key=True),
    Column("uid", Integer, nullable=False, unique=True),
)

settings: Final = Table(
    "settings",
    metadata,
    Column("name", String, primary_key=True),
    Column("value", Text, nullable=False),
)

data_spaces: Final = Table(
    "data_spaces",
    metadata,
    # No foreign key: what a plugin keeps outlives its registration, as its data folder does.
    Column("namespace", String, primary_key=True),
    Column("revision", Integer, nullable=False),
    Column("entries", Integer, nullable=False),
    Column("total_bytes", Integer, nullable=False),
)

data_entries: Final = Table(
    "data_entries",
    metadata,
    Column("namespace", String, primary_key=True),
    Column("key", String, primary_key=True),
    Column("value", LargeBinary, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("revision", Integer, nullable=False),
)
