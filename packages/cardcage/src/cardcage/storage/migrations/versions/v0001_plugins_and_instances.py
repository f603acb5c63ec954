"""Plugins, their instances, the user ids given to them, and settings."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the four tables."""
    op.create_table(
        "plugins",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("version", sa.String, nullable=False),
        sa.Column("digest", sa.String, nullable=False),
        sa.Column("package_dir", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("registered_at", sa.Float, nullable=False),
        sa.Column("capabilities", sa.Text, nullable=False),
        sa.Column("problem", sa.Text),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("plugin", sa.String, sa.ForeignKey("plugins.name", ondelete="CASCADE"), nullable=False),
        sa.Column("label", sa.String),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("grants", sa.Text, nullable=False),
        sa.Column("desired", sa.String, sa.CheckConstraint("desired IN ('started', 'stopped')"), nullable=False),
        sa.Column(
            "restart", sa.String, sa.CheckConstraint("restart IN ('never', 'on_failure', 'always')"), nullable=False
        ),
        sa.Column("restarts_total", sa.Integer, nullable=False),
        sa.Column("restarts_last_at_s", sa.Float),
        sa.Column("restarts_last_reason", sa.Text),
    )
    op.create_index("instances_by_plugin", "instances", ["plugin"])
    op.create_table(
        "uids",
        sa.Column("instance", sa.String, primary_key=True),
        sa.Column("uid", sa.Integer, nullable=False, unique=True),
    )
    op.create_table(
        "settings",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
