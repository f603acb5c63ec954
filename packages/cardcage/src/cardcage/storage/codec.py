"""Records to rows and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping

from cardcage.foundation.names import InstanceId
from cardcage.manifest import Manifest
from cardcage.registry.model import InstalledPlugin, InstanceRecord, RestartCount
from cardcage.storage.plain import config_text, from_text


def plugin_to_row(plugin: InstalledPlugin) -> dict[str, Any]:
    """The columns of one plugin."""
    return {
        "name": plugin.name,
        "version": plugin.version,
        "digest": plugin.digest,
        "package_dir": str(plugin.package_dir),
        "manifest": plugin.manifest.model_dump_json(),
        "enabled": plugin.enabled,
        "priority": plugin.priority,
        "registered_at": plugin.registered_at,
        "capabilities": json.dumps(dict(plugin.capabilities)),
        "problem": plugin.problem,
    }


def plugin_from_row(row: RowMapping) -> InstalledPlugin:
    """The plugin of one row."""
    return InstalledPlugin(
        name=row["name"],
        version=row["version"],
        digest=row["digest"],
        package_dir=Path(row["package_dir"]),
        manifest=Manifest.model_validate_json(row["manifest"]),
        enabled=row["enabled"],
        priority=row["priority"],
        registered_at=row["registered_at"],
        capabilities={kind: tuple(values) for kind, values in json.loads(row["capabilities"]).items()},
        problem=row["problem"],
    )


def instance_to_row(record: InstanceRecord) -> dict[str, Any]:
    """The columns of one instance that its record decides: not those that belong to the store."""
    return {
        "id": record.id,
        "plugin": record.plugin,
        "label": record.label,
        "config": config_text(record.id, record.config),
        "grants": json.dumps(record.grants),
        "desired": record.desired,
        "restart": record.restart,
    }


def instance_from_row(row: RowMapping) -> InstanceRecord:
    """The instance of one row, joined with its uid."""
    return InstanceRecord(
        id=InstanceId(row["id"]),
        plugin=row["plugin"],
        label=row["label"],
        config=from_text(row["config"]),
        grants=tuple(json.loads(row["grants"])),
        desired=row["desired"],
        restart=row["restart"],
        uid=row["uid"],
        restarts=RestartCount(
            total=row["restarts_total"],
            last_at_s=row["restarts_last_at_s"],
            last_reason=row["restarts_last_reason"],
        ),
    )
