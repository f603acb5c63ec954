"""The records of the registry, and the changes that may be made to them.

A change is data too: whoever decides makes a list of changes, and the store applies all of them or none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cardcage.foundation.names import InstanceId
from cardcage.manifest import Manifest

DesiredState: TypeAlias = Literal["started", "stopped"]
"""What the operator asked for; what an instance is doing at the moment is the runtime's to know."""

RestartMode: TypeAlias = Literal["never", "on_failure", "always"]


def instance_id(plugin: str, label: str | None = None) -> InstanceId:
    """`plugin` for the default instance, `plugin/label` for a further one."""
    return InstanceId(f"{plugin}/{label}" if label else plugin)


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledPlugin:
    """One release that was verified and registered. A name is installed in one version at a time.

    `digest` is the SHA-256 of the package in the canonical form of `cardcage.trust.digest`, in hex. `priority` is
    1-100, and the lower starts (and is asked) first. `registered_at` is in seconds since 1970-01-01 UTC. `capabilities`
    says what the plugin offers and asks, by kind. `problem` is the sentence that keeps it from starting, if something
    does.
    """

    name: str
    version: str
    digest: str
    package_dir: Path
    manifest: Manifest
    enabled: bool = True
    priority: int = 50
    registered_at: float = 0.0
    capabilities: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    problem: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartCount:
    """How often an instance was restarted since it was made, and the last time with its reason."""

    total: int = 0
    last_at_s: float | None = None
    last_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceRecord:
    """A plugin with one config. The default instance has no label and the plugin's name as its id.

    `uid` and `restarts` belong to the store: it fills them in, and putting a record never changes them. `uid` is the
    user id under which a host that runs as root runs this instance alone; it stays the same for as long as the store
    exists.
    """

    id: InstanceId
    plugin: str
    label: str | None = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    grants: tuple[str, ...] = ()
    desired: DesiredState = "started"
    restart: RestartMode = "on_failure"
    uid: int | None = None
    restarts: RestartCount = field(default_factory=RestartCount)


@dataclass(frozen=True, slots=True, kw_only=True)
class PutPlugin:
    """Install this plugin, in place of whatever is installed under its name. Its instances stay."""

    plugin: InstalledPlugin


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovePlugin:
    """Forget a plugin and all its instances. Refused where nothing of that name is installed."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutInstance:
    """Remember this instance, in place of the one with its id. Its plugin must be installed.

    With `only_new` an instance that exists is refused instead of replaced.
    """

    record: InstanceRecord
    only_new: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveInstance:
    """Forget an instance. Refused where there is none with that id."""

    id: InstanceId


@dataclass(frozen=True, slots=True, kw_only=True)
class CountRestart:
    """Count one restart of an instance, with its reason and when it was (seconds since 1970-01-01 UTC)."""

    id: InstanceId
    at_s: float
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PutSetting:
    """Remember a setting; any JSON value. None forgets it."""

    name: str
    value: Any


Change: TypeAlias = PutPlugin | RemovePlugin | PutInstance | RemoveInstance | CountRestart | PutSetting
