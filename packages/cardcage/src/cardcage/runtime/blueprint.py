"""Everything that must be known to bring an instance to life, decided before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cardcage.contracts import ExtensionPoint
from cardcage.egress import EgressRules
from cardcage.foundation.limits import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S, START_TIMEOUT_S, STOP_TIMEOUT_S
from cardcage.foundation.names import InstanceId
from cardcage.launch.runner import LaunchSpec
from cardcage.manifest import Limits, Manifest
from cardcage.permissions import Grants
from cardcage.policy import PolicyDecision
from cardcage.supervise import RestartPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimePolicy:
    """The deadlines and the restart policy of an instance, all in seconds."""

    call_timeout_s: float = CALL_TIMEOUT_S
    connect_timeout_s: float = CONNECT_TIMEOUT_S
    start_timeout_s: float = START_TIMEOUT_S
    stop_timeout_s: float = STOP_TIMEOUT_S
    hang_grace_s: float = 5.0
    """After a missed deadline: how long the plugin may take to answer a ping before it counts as hung and is killed."""
    restart: RestartPolicy = field(default_factory=RestartPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """One instance: which release, with which config and grants, behind which walls, held to which contracts."""

    instance: InstanceId
    manifest: Manifest
    digest: str
    config: Mapping[str, Any]
    grants: Grants
    spec: LaunchSpec
    points: tuple[ExtensionPoint, ...] = ()
    policy: RuntimePolicy = field(default_factory=RuntimePolicy)
    priority: int = 50
    missing: tuple[str, ...] = ()
    """The optional permissions that were asked for and not granted."""
    verdict: PolicyDecision | None = None
    """What the operator's policy said of it."""
    secrets: tuple[str, ...] = ()
    """The names of the secrets that the plugin is handed; a start without one of them is refused."""
    optional_secrets: tuple[str, ...] = ()
    """Those that it can do without."""
    egress: EgressRules | None = None
    """Where its connections may go; None where no network is granted, and where there is no wall."""

    @property
    def plugin(self) -> str:
        return self.manifest.name

    @property
    def limits(self) -> Limits:
        """What it may use, after the policy had its say."""
        return self.manifest.limits if self.verdict is None else self.verdict.limits

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def label(self) -> str:
        """How sentences name this instance's plugin: `plugin "ocr" 1.2.0`."""
        return f'plugin "{self.plugin}" {self.version}'
