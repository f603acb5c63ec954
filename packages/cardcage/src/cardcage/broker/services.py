"""What the host offers to plugins: named methods, each behind a capability that must have been granted.

Denied by default: a name that nobody registered does not exist, and one that is registered is refused without its
capability. The plugin learns the reason, in the words of the decision.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from cardcage.broker.providers import PluginInfo
from cardcage.foundation.errors import Misuse, Refused
from cardcage.permissions import Decision, Grants, Permission, PermissionKind, decide

Handler = Callable[..., Awaitable[Any] | Any]
"""Called with the plugin's `PluginInfo` first and then the plugin's own arguments."""


OBSERVE_PLUGINS: Final = "ObservePlugins"
"""What a plugin must have been granted to hear the host's events about other plugins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One method of the host. `capability` None means that every plugin may call it."""

    name: str
    handler: Handler
    capability: str | None


class ServiceTable:
    """The host's methods by name."""

    def __init__(self, on_decision: Callable[[PluginInfo, str, Decision], None] | None = None) -> None:
        self._services: dict[str, Service] = {}
        self._on_decision = on_decision

    def register(self, name: str, handler: Handler, *, capability: str | None) -> None:
        """Offer `handler` under `name`. Raises `Misuse` where the name is taken."""
        if name in self._services:
            raise Misuse(f"the service {name} is registered already", code="duplicate_service")
        self._services[name] = Service(name=name, handler=handler, capability=capability)

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that the broker itself and the registered methods stand behind."""
        behind = {each.capability for each in self._services.values() if each.capability is not None}
        return frozenset({OBSERVE_PLUGINS, *behind})

    async def call(self, caller: PluginInfo, grants: Grants, name: str, args: Any) -> Any:
        """Run a service for a plugin, where it exists and is granted."""
        service = self._services.get(name)
        if service is None:
            raise Misuse(f"the host has no service {name!r}", code="method_not_found", method=name)
        if service.capability is not None:
            wanted = Permission(PermissionKind.CAPABILITY, service.capability)
            decision = decide(wanted, grants)
            if self._on_decision is not None:
                self._on_decision(caller, name, decision)
            if not decision.allowed:
                raise Refused(
                    f'plugin "{caller.name}" {caller.version} may not call {name}: {decision.reason}',
                    reason=decision.reason,
                    plugin=caller.name,
                    permission=str(wanted),
                    hint=f"grant it {wanted}",
                )
        answer = self._run(service, caller, args)
        return await answer if inspect.isawaitable(answer) else answer

    def _run(self, service: Service, caller: PluginInfo, args: Any) -> Any:
        by_name = isinstance(args, dict)
        positional: tuple[Any, ...] = () if by_name else tuple(args or ())
        named: dict[str, Any] = cast(dict[str, Any], args) if by_name else {}
        try:
            inspect.signature(service.handler).bind(caller, *positional, **named)
        except TypeError as error:
            raise Misuse(f"{service.name}: {error}", code="invalid_params", method=service.name) from None
        return service.handler(caller, *positional, **named)
