"""A manifest as everything else sees it: checked, normalised and frozen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from cardcage.foundation.names import InterfaceRef
from cardcage.manifest.entrypoint import EntryPoint, Runtime
from cardcage.manifest.limits import Limits
from cardcage.permissions import PermissionRequest

Isolation = Literal["process", "container", "vm", "unconfined"]

PRIORITY_DEFAULT: Final = 50
"""The middle of 1 to 100, so that a plugin can be put before or after those that say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependency:
    """Another plugin that must be there and started first, with the range of its versions that will do."""

    name: str
    range: str = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """How many calls at once: on `threads` of one process, or in `processes`."""

    threads: int = 1
    processes: int = 1


class Manifest(BaseModel):
    """What a plugin says of itself.

    Made by `parse_manifest`, which holds it to every rule; `model_dump_json` and `model_validate_json` store it and
    read it back. `config_schema` is JSON Schema (draft 2020-12), or None where any configuration will do. `requires`
    maps hosts, such as `cardcage`, to version ranges. `extras` are the `x-` keys, as they were.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: str
    entrypoint: EntryPoint
    runtime: Runtime
    description: str = ""
    author: str = ""
    license: str = ""
    homepage: str | None = None
    repository: str | None = None
    keywords: tuple[str, ...] = ()
    type: str | None = None
    provides: tuple[InterfaceRef, ...] = ()
    requires: Mapping[str, str] = Field(default_factory=dict[str, str])
    dependencies: tuple[Dependency, ...] = ()
    permissions: tuple[PermissionRequest, ...] = ()
    limits: Limits = Limits()
    config_schema: dict[str, Any] | None = None
    platforms: tuple[str, ...] = ()
    isolation: Isolation | None = None
    encrypt: Literal["always"] | None = None
    """Whether its wire is to be enciphered, also where no other process can see it."""
    priority: int = PRIORITY_DEFAULT
    concurrency: Concurrency = Concurrency()
    enabled: bool = True
    target: str | None = None
    resource_types: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    system: str | None = None
    cloud: str | None = None
    extras: Mapping[str, Any] = Field(default_factory=dict[str, Any])
