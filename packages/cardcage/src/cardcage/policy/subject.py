"""What is known of one instance before it starts: the facts that rules look at."""

from __future__ import annotations

from dataclasses import dataclass

from cardcage.manifest import Limits, Manifest, Runtime
from cardcage.permissions import PermissionRequest
from cardcage.policy.model import NO_LIMITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom a policy judges.

    `publisher` is what the manifest claims unless `verified`. `isolation` is what the operator or the manifest chose,
    `unconfined_named` whether the operator took the walls from this plugin by its name rather than from all at once.
    `requests` have the instance's configuration filled in.
    """

    plugin: str
    version: str = ""
    publisher: str = ""
    verified: bool = False
    source: str = ""
    digest: str = ""
    type: str = ""
    provides: tuple[str, ...] = ()
    runtime: Runtime = Runtime.PYTHON
    isolation: str = "process"
    unconfined_named: bool = False
    environment: str = ""
    label: str = ""
    requests: tuple[PermissionRequest, ...] = ()
    limits: Limits = NO_LIMITS
    default_limits: Limits = NO_LIMITS
    """What the host gives where neither the manifest nor a rule says anything."""

    @property
    def words(self) -> str:
        """How sentences name it: `plugin "ocr" 1.2.0`."""
        return f'plugin "{self.plugin}" {self.version}'.rstrip()


def subject_of(
    manifest: Manifest,
    requests: tuple[PermissionRequest, ...],
    *,
    source: str,
    digest: str,
    isolation: str,
    unconfined_named: bool,
    environment: str = "",
    label: str = "",
    default_limits: Limits = NO_LIMITS,
) -> Subject:
    """The facts about one instance of a plugin. Its author is a claim: no signature is checked yet."""
    return Subject(
        plugin=manifest.name,
        version=manifest.version,
        publisher=manifest.author,
        source=source,
        digest=digest,
        type=manifest.type or "",
        provides=tuple(map(str, manifest.provides)),
        runtime=manifest.runtime,
        isolation=isolation,
        unconfined_named=unconfined_named,
        environment=environment,
        label=label,
        requests=requests,
        limits=manifest.limits,
        default_limits=default_limits,
    )
