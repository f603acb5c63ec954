"""A plugin's own configuration, as the host holds it: what its instance was given, with defaults filled in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from cardcage.broker import PluginInfo
from cardcage.contracts import service


@service("configuration", capability=None)
class Configuration(Protocol):
    """The configuration of the instance that asks. No plugin sees another's."""

    async def get(self, key: str = "", default: Any = None) -> Any:
        """The value under a dotted key (`server.port`), or `default`; without a key all of it."""
        ...


class OwnConfiguration:
    """`Configuration` over whatever knows the config of an instance by its id."""

    def __init__(self, config_of: Callable[[str], Mapping[str, Any]]) -> None:
        self._config_of = config_of

    async def get(self, caller: PluginInfo, key: str, default: Any) -> Any:
        """The value under a dotted key."""
        value: Any = dict(self._config_of(caller.instance))
        for part in key.split(".") if key else ():
            if not isinstance(value, Mapping) or part not in value:
                return default
            value = cast(Mapping[str, Any], value)[part]
        return value
