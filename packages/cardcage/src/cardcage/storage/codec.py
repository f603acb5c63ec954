"""Records to rows and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import RowMapping

from cardcage.foundation.names import InstanceId
from cardcage.manifest import Manifest
from cardcage.registry.model import InstalledPlugin, InstanceRecord, RestartCount


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
        "capabilities": _to_text(plugin.capabilities),
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
        "config": _to_text(record.config),
        "grants": _to_text(record.grants),
        "desired": record.desired,
        "restart": record.restart,
    }


def instance_from_row(row: RowMapping) -> InstanceRecord:
    """The instance of one row, joined with its uid."""
    return InstanceRecord(
        id=InstanceId(row["id"]),
        plugin=row["plugin"],
        label=row["label"],
        config=json.loads(row["config"]),
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


def setting_to_text(value: Any) -> str:
    """A setting's value as it is kept."""
    return json.dumps(value)


def setting_from_text(text: str) -> Any:
    """The value that was kept."""
    return json.loads(text)


def _to_text(value: Mapping[str, Any] | tuple[str, ...]) -> str:
    return json.dumps(value, sort_keys=True)
