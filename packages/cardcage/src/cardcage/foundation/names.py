"""Names and identifiers: what they may look like. ASCII only, so that no name can be mistaken for another."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NewType

PluginName = NewType("PluginName", str)
InstanceId = NewType("InstanceId", str)
"""`<plugin>` for the default instance, `<plugin>/<label>` for a further one."""

PLUGIN_NAME_PATTERN: Final = r"^[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*$"
INTERFACE_NAME_PATTERN: Final = r"^[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*$"
EVENT_NAME_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9]*(?:[-_.:/][A-Za-z0-9]+)*$"

_plugin_name = re.compile(PLUGIN_NAME_PATTERN)
_interface = re.compile(r"^(?P<name>[a-z][a-z0-9]*(?:[-_.][a-z0-9]+)*)@(?P<version>[1-9][0-9]{0,4})$")

PLUGIN_NAME_CHARS_MAX: Final = 100


def is_plugin_name(text: str) -> bool:
    """Whether `text` may name a plugin: lower-case ASCII words joined by `-`, `_` or `.`, at most 100 characters."""
    return len(text) <= PLUGIN_NAME_CHARS_MAX and _plugin_name.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, order=True)
class InterfaceRef:
    """An extension point's name and version, written `greeter@1`."""

    name: str
    version: int

    @classmethod
    def parse(cls, text: str) -> InterfaceRef | None:
        """The reference that `text` spells, or None where it spells none."""
        match = _interface.fullmatch(text)
        return cls(match["name"], int(match["version"])) if match else None

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"
