"""Manifests: what a plugin says of itself, read from untrusted YAML or JSON with every fault at once. Pure."""

from cardcage.manifest.config import check_metadata, validate_config
from cardcage.manifest.config_schema import normalise_config_schema
from cardcage.manifest.entrypoint import EntryPoint, Runtime, resolve_entry_point
from cardcage.manifest.json_schema import manifest_json_schema
from cardcage.manifest.limits import Limits, read_limits
from cardcage.manifest.model import Concurrency, Dependency, Isolation, Manifest
from cardcage.manifest.parse import manifest_faults, parse_manifest
from cardcage.manifest.versions import parse_version, range_fault, version_matches

__all__ = [
    "Concurrency",
    "Dependency",
    "EntryPoint",
    "Isolation",
    "Limits",
    "Manifest",
    "Runtime",
    "check_metadata",
    "manifest_faults",
    "manifest_json_schema",
    "normalise_config_schema",
    "parse_manifest",
    "parse_version",
    "range_fault",
    "read_limits",
    "resolve_entry_point",
    "validate_config",
    "version_matches",
]
