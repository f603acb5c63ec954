"""The host's configuration of its plugins: which are enabled, in which order, with which config."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final

from cardcage.egress.addresses import parse_address
from cardcage.foundation.errors import Fault, InvalidDocument
from cardcage.foundation.names import PLUGIN_NAME_PATTERN
from cardcage.launch.oci_runtimes import RUNTIMES
from cardcage.manager.secrets import SECRETS_SCHEMA, HostSecrets, read_secrets
from cardcage.manifest import Limits, read_limits, validate_config
from cardcage.permissions.credentials import Credential, parse_credentials
from cardcage.permissions.network import parse_endpoint
from cardcage.sandbox.plan import MIB, OPEN_FILES, PROCESSES, TEMP_INODES
from cardcage.services import DataQuota

DEFAULT_LIMITS: Final = Limits(
    memory_bytes=512 * MIB,
    cpu_cores=1.0,
    processes=PROCESSES,
    descriptors=OPEN_FILES,
    disk_bytes=1024 * MIB,
    inodes=TEMP_INODES,
)
"""What a plugin gets that states no limits: plenty for what plugins do, and little enough for a machine to bear several
that run wild at once."""

HOST_SCHEMA: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "plugins": {
            "type": "object",
            "additionalProperties": False,
            "patternProperties": {
                PLUGIN_NAME_PATTERN: {
                    "type": "object",
                    "additionalProperties": False,
                    "properties": {
                        "enabled": {"type": "boolean"},
                        "priority": {"type": "integer", "minimum": 1, "maximum": 100},
                        "config": {"type": "object"},
                        "dependencies": {"type": "array", "items": {"type": "string"}},
                        "grants": {"type": "array", "items": {"type": "string"}},
                        "credentials": {"type": "array"},
                        "isolation": {"enum": ["process", "container", "vm", "unconfined"]},
                        "data_quota": {
                            "type": "object",
                            "additionalProperties": False,
                            "properties": {one.name: {"type": "integer", "minimum": 0} for one in fields(DataQuota)},
                        },
                    },
                    "required": ["enabled"],
                }
            },
        },
        "network": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "hosts": {"type": "object", "additionalProperties": {"type": "string"}},
                "ca_file": {"type": "string"},
            },
        },
        "secrets": SECRETS_SCHEMA,
        "plugin_paths": {"type": "array", "items": {"type": "string"}},
        "default_limits": {"type": "object"},
        "auto_load": {"type": "boolean"},
        "audit": {"type": "boolean"},
        "policy": {"type": "string", "minLength": 1},
        "environment": {"type": "string", "minLength": 1, "maxLength": 100},
        "container_runtime": {"enum": list(RUNTIMES)},
        "encrypt": {"const": "always"},
        "health_check_interval": {"type": "integer", "minimum": 1},
    },
}
"""What a host configuration may hold; docs/reference/host-configuration.md says what each key means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginSettings:
    """What the operator says of one plugin; None leaves it to the manifest."""

    enabled: bool = True
    priority: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dependencies: tuple[str, ...] = ()
    grants: tuple[str, ...] = ()
    credentials: tuple[Credential, ...] = ()
    """What the host adds to the plugin's requests."""
    isolation: str | None = None
    data_quota: Mapping[str, int] = field(default_factory=dict[str, int])
    """How much it may keep in the data store, by the names of `DataQuota`, where that is not what every plugin may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """The whole configuration."""

    plugins: Mapping[str, PluginSettings] = field(default_factory=dict[str, PluginSettings])
    plugin_paths: tuple[Path, ...] = ()
    auto_load: bool = True
    audit: bool = True
    """Whether decisions are recorded in the audit log of the state folder."""
    health_check_interval_s: float | None = None
    default_limits: Limits = DEFAULT_LIMITS
    """For plugins that state none of their own; each limit apart."""
    policy: str | None = None
    """A level, or the path of a policy file."""
    environment: str | None = None
    """What kind of place this host is, such as `production`: rules of the policy may ask for it."""
    container_runtime: str | None = None
    """The OCI runtime that makes containers; None takes the first that is installed."""
    encrypt: bool = False
    """Whether the wire of every plugin is enciphered, also where no other process can see it."""
    hosts: Mapping[str, str] = field(default_factory=dict[str, str])
    """Names that stand for an address of the operator's choice when a plugin connects to them."""
    ca_file: Path | None = None
    """By which certificates servers are checked where a credential is added; None for the system's."""
    secrets: HostSecrets = field(default_factory=HostSecrets)

    def of(self, plugin: str) -> PluginSettings:
        return self.plugins.get(plugin) or PluginSettings()


def read_settings(document: Mapping[str, Any] | None) -> HostSettings:
    """The settings in `document`. Raises `InvalidDocument` with every fault."""
    if not document:
        return HostSettings()
    checked = validate_config(HOST_SCHEMA, dict(document), subject="the host configuration")
    return HostSettings(
        plugins={
            name: PluginSettings(
                enabled=entry["enabled"],
                priority=entry.get("priority"),
                config=entry.get("config", {}),
                dependencies=tuple(entry.get("dependencies", ())),
                grants=tuple(entry.get("grants", ())),
                credentials=parse_credentials(
                    entry.get("credentials", ()), subject=f'the list of credentials of plugin "{name}"'
                ),
                isolation=entry.get("isolation"),
                data_quota=entry.get("data_quota", {}),
            )
            for name, entry in checked.get("plugins", {}).items()
        },
        plugin_paths=tuple(Path(path).expanduser() for path in checked.get("plugin_paths", ())),
        auto_load=checked.get("auto_load", True),
        audit=checked.get("audit", True),
        health_check_interval_s=checked.get("health_check_interval"),
        default_limits=_default_limits(checked.get("default_limits", {})),
        policy=checked.get("policy"),
        environment=checked.get("environment"),
        container_runtime=checked.get("container_runtime"),
        encrypt=checked.get("encrypt") == "always",
        hosts=_hosts(checked.get("network", {}).get("hosts", {})),
        ca_file=_path(checked.get("network", {}).get("ca_file")),
        secrets=read_secrets(checked.get("secrets", {})),
    )


def _default_limits(written: Mapping[str, Any]) -> Limits:
    """The operator's defaults over ours, written as in a manifest."""
    limits, faults = read_limits(written)
    if faults:
        raise InvalidDocument(
            "the host configuration",
            [Fault(path=f"default_limits.{fault.path}", message=fault.message) for fault in faults],
            code="config_invalid",
        )
    given = {name: value for name, value in asdict(limits).items() if value is not None}
    return replace(DEFAULT_LIMITS, **given)


def _path(text: str | None) -> Path | None:
    return Path(text).expanduser() if text else None


def _hosts(entries: Mapping[str, str]) -> dict[str, str]:
    """The operator's names with their addresses. Raises `InvalidDocument` with every one that is none."""
    hosts: dict[str, str] = {}
    faults: list[Fault] = []
    for name, address in entries.items():
        try:
            endpoint = parse_endpoint(f"{name}:1")
            if endpoint.addresses is not None or endpoint.host.startswith("*"):
                raise ValueError(f"expected a name, found {name!r:.80}")
            hosts[endpoint.host] = str(parse_address(address))
        except ValueError as error:
            faults.append(Fault(path=f"network.hosts.{name}", message=str(error)))
    if faults:
        raise InvalidDocument("the host configuration", faults, code="config_invalid")
    return hosts
