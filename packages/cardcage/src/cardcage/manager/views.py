"""What the manager shows of plugins and problems: frozen data, ready to print or to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cardcage.foundation.errors import CardcageError
from cardcage.foundation.names import InterfaceRef
from cardcage.manifest import Manifest
from cardcage.registry import InstalledPlugin
from cardcage.runtime import Instance
from cardcage.supervise import PluginState


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """One loaded instance."""

    id: str
    state: PluginState
    pid: int | None
    restarts: int
    isolation: str
    error: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state.value,
            "pid": self.pid,
            "restarts": self.restarts,
            "isolation": self.isolation,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginView:
    """One registered plugin: what its manifest says, what was registered, and how its instances are."""

    name: str
    version: str
    description: str
    type: str | None
    state: PluginState
    enabled: bool
    priority: int
    digest: str
    package_dir: Path
    provides: tuple[InterfaceRef, ...]
    permissions: tuple[str, ...]
    capabilities: Mapping[str, tuple[str, ...]]
    instances: tuple[InstanceView, ...]
    problem: str | None
    manifest: Manifest

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "version": self.version,
            "description": self.description,
            "type": self.type,
            "state": self.state.value,
            "enabled": self.enabled,
            "priority": self.priority,
            "digest": self.digest,
            "package_dir": str(self.package_dir),
            "provides": [str(ref) for ref in self.provides],
            "permissions": list(self.permissions),
            "capabilities": {kind: list(names) for kind, names in self.capabilities.items()},
            "instances": [instance.to_json() for instance in self.instances],
            "problem": self.problem,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that could not be registered or started: where it is, and the whole error."""

    path: str
    error: CardcageError

    @classmethod
    def of(cls, path: object, error: CardcageError) -> Problem:
        return cls(path=str(path), error=error)

    def __str__(self) -> str:
        return f"{self.path}: {self.error.message}"

    def to_json(self) -> dict[str, Any]:
        return {"path": self.path, **self.error.to_json()}


def view_of(
    plugin: InstalledPlugin,
    *,
    priority: int,
    enabled: bool,
    provides: Sequence[InterfaceRef],
    instances: Sequence[Instance],
) -> PluginView:
    """The view of a plugin; its state is that of its default instance, or else of its first."""
    shown = sorted(instances, key=lambda instance: (instance.id != plugin.name, instance.id))
    return PluginView(
        name=plugin.name,
        version=plugin.version,
        description=plugin.manifest.description or "",
        type=plugin.manifest.type,
        state=shown[0].state if shown else PluginState.UNLOADED,
        enabled=enabled,
        priority=priority,
        digest=plugin.digest,
        package_dir=plugin.package_dir,
        provides=tuple(provides),
        permissions=tuple(str(request.permission) for request in plugin.manifest.permissions),
        capabilities=plugin.capabilities,
        instances=tuple(
            InstanceView(
                id=instance.id,
                state=instance.state,
                pid=instance.pid,
                restarts=instance.restarts,
                isolation=instance.blueprint.spec.plan.isolation,
                error=instance.error.message if instance.error else None,
            )
            for instance in shown
        ),
        problem=plugin.problem,
        manifest=plugin.manifest,
    )
