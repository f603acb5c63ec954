"""What is really enforced: by this machine in general (`MachineReport`) and around one process (`EnforcementReport`).

A layer is called enforced only where it was seen to work: the doctor tries each one, and a started process says itself
what it put on.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class LayerStatus(StrEnum):
    """How far a layer can be relied on."""

    ENFORCED = "enforced"
    BEST_EFFORT = "best-effort"
    """On, but with a gap that `Layer.detail` names."""
    UNAVAILABLE = "unavailable"
    """Asked for, and this machine cannot do it."""
    OFF = "off"
    """Not asked for."""


class LayerName(StrEnum):
    """The layers, in the order in which they are printed."""

    USER_NAMESPACE = "user_namespace"
    PID_NAMESPACE = "pid_namespace"
    MOUNT_NAMESPACE = "mount_namespace"
    NETWORK_NAMESPACE = "network_namespace"
    IPC_NAMESPACE = "ipc_namespace"
    UTS_NAMESPACE = "uts_namespace"
    CGROUP_NAMESPACE = "cgroup_namespace"
    TIME_NAMESPACE = "time_namespace"
    READ_ONLY_ROOT = "read_only_root"
    PRIVATE_PROC = "private_proc"
    OWN_UID = "own_uid"
    CAPABILITIES = "capabilities"
    NO_NEW_PRIVILEGES = "no_new_privileges"
    LANDLOCK_FILES = "landlock_files"
    LANDLOCK_NETWORK = "landlock_network"
    LANDLOCK_SCOPES = "landlock_scopes"
    SYSTEM_CALL_FILTER = "system_call_filter"
    SUPERVISED_CALLS = "supervised_calls"
    RESOURCE_LIMITS = "resource_limits"
    DESCRIPTORS = "descriptors"
    ENVIRONMENT = "environment"
    CGROUP_LIMITS = "cgroup_limits"
    DISK_LIMITS = "disk_limits"
    EGRESS = "egress"
    ENCRYPTION = "encryption"
    VIRTUAL_MACHINE = "virtual_machine"
    HYPERVISOR_WALLS = "hypervisor_walls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer: its name, how far it holds, what was seen, and what an operator could do about it."""

    name: str
    status: LayerStatus
    detail: str = ""
    hint: str = ""

    def to_json(self) -> dict[str, Any]:
        """The layer as plain data; empty texts are left out."""
        document: dict[str, Any] = {"name": str(self.name), "status": str(self.status)}
        if self.detail:
            document["detail"] = self.detail
        if self.hint:
            document["hint"] = self.hint
        return document


def _status_of(layers: Iterable[Layer], name: str) -> LayerStatus:
    return next((layer.status for layer in layers if layer.name == name), LayerStatus.OFF)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnforcementReport:
    """The walls around one process, as the process itself put them up before any code of the plugin ran."""

    layers: tuple[Layer, ...]

    def status(self, name: str) -> LayerStatus:
        """The status of the layer called `name`; a layer that is not listed is off."""
        return _status_of(self.layers, name)

    @property
    def enforced(self) -> tuple[Layer, ...]:
        """The layers that hold."""
        return tuple(layer for layer in self.layers if layer.status is LayerStatus.ENFORCED)

    @property
    def asked(self) -> tuple[Layer, ...]:
        """The layers that were asked for, whether they hold or not."""
        return tuple(layer for layer in self.layers if layer.status is not LayerStatus.OFF)

    def with_layer(self, layer: Layer) -> EnforcementReport:
        """The same with `layer` in the place of the one of that name, or at its end."""
        kept = {str(each.name): each for each in self.layers} | {str(layer.name): layer}
        order = [str(name) for name in LayerName if name in kept]
        return EnforcementReport(layers=tuple(kept[name] for name in order))

    def below(self, floor: Iterable[str]) -> tuple[str, ...]:
        """The names in `floor` that are not enforced."""
        return tuple(name for name in floor if self.status(name) is not LayerStatus.ENFORCED)

    def summary(self) -> str:
        """One line for people, such as `walls: 18 of 20 enforced`."""
        return f"walls: {len(self.enforced)} of {len(self.asked)} enforced"

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "enforced": len(self.enforced),
            "asked": len(self.asked),
            "layers": [layer.to_json() for layer in self.layers],
        }


class Mode(StrEnum):
    """How walls are put up here."""

    ROOT = "root"
    """The host is root with CAP_SYS_ADMIN: every instance runs as an unprivileged uid of its own."""
    USER = "user"
    """The host is an ordinary user: instances run as that user, inside namespaces that only it could make."""
    FALLBACK = "fallback"
    """Namespaces are forbidden here: a weaker wall of Landlock, the system call filter and a supervisor of calls."""
    NONE = "none"
    """No walls can be put up on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineReport:
    """What this machine can enforce, found by trying each layer, and the facts that plans depend on."""

    system: str
    kernel: str
    architecture: str
    mode: Mode
    uid: int
    gid: int
    layers: tuple[Layer, ...]
    landlock_abi: int = 0
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def status(self, name: str) -> LayerStatus:
        """The status of the layer called `name`; a layer that is not listed is off."""
        return _status_of(self.layers, name)

    def below(self, floor: Iterable[str]) -> tuple[Layer, ...]:
        """The layers of `floor` that this machine does not enforce, each with its detail and hint.

        An own uid is asked of root alone: an ordinary user has no other to give away, and its own is unprivileged.
        """
        known = {str(layer.name): layer for layer in self.layers}
        return tuple(
            known.get(name, Layer(name=name, status=LayerStatus.UNAVAILABLE, detail="not examined"))
            for name in map(str, floor)
            if self.status(name) is not LayerStatus.ENFORCED and not self._needs_no(name)
        )

    def _needs_no(self, name: str) -> bool:
        has_no_uid_to_give = self.mode is Mode.USER or (self.mode is Mode.FALLBACK and self.uid != 0)
        return name == LayerName.OWN_UID and has_no_uid_to_give

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {
            "system": self.system,
            "kernel": self.kernel,
            "architecture": self.architecture,
            "mode": str(self.mode),
            "uid": self.uid,
            "landlock_abi": self.landlock_abi,
            "layers": [layer.to_json() for layer in self.layers],
            "facts": self.facts,
        }
