"""What the host offers to plugins: named methods, each behind a capability that must have been granted.

Denied by default: a name that nobody registered does not exist, and one that is registered is refused without its
capability. The plugin learns the reason, in the words of the decision.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from cardcage.broker.providers import PluginInfo
from cardcage.broker.rates import CallRate, CallRates
from cardcage.contracts import MethodSpec, bind_arguments, service_of
from cardcage.foundation.errors import Misuse, Refused, Unavailable
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
    declared: MethodSpec | None = None
    """The types of its arguments, where it was declared with them."""


class ServiceTable:
    """The host's methods by name."""

    def __init__(
        self,
        on_decision: Callable[[PluginInfo, str, Decision], None] | None = None,
        *,
        on_excess: Callable[[PluginInfo, str], None] | None = None,
        rate: CallRate | None = None,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._services: dict[str, Service] = {}
        self._on_decision = on_decision
        self._on_excess = on_excess
        self._rates = CallRates(rate or CallRate())
        self._now_s = now_s

    def register(self, name: str, handler: Handler, *, capability: str | None) -> None:
        """Offer `handler` under `name`. Raises `Misuse` where the name is taken."""
        if name in self._services:
            raise Misuse(f"the service {name} is registered already", code="duplicate_service")
        self._services[name] = Service(name=name, handler=handler, capability=capability)

    def offer(self, declared: type, implementation: object) -> None:
        """Offer every method of a Protocol declared with `@service`; each is given the caller before its arguments.

        Raises `Misuse` where the implementation lacks one, or a name is taken.
        """
        interface = service_of(declared)
        lacking = [name for name in interface.methods if not callable(getattr(implementation, name, None))]
        taken = [name for name in interface.methods if f"{interface.name}.{name}" in self._services]
        if lacking or taken:
            problem = f"lacks {', '.join(lacking)}" if lacking else f"is registered already ({', '.join(taken)})"
            raise Misuse(
                f"the service {interface.name} {problem}", code="duplicate_service" if taken else "bad_service"
            )
        for name, method in interface.methods.items():
            full = f"{interface.name}.{name}"
            self._services[full] = Service(
                name=full, handler=getattr(implementation, name), capability=interface.capability, declared=method
            )

    def forget(self, instance: str) -> None:
        """Let go of what was counted for an instance."""
        self._rates.forget(instance)

    def capability_of(self, name: str) -> str | None:
        """The capability that a service stands behind; None where it is for everyone, or not there."""
        service = self._services.get(name)
        return None if service is None else service.capability

    @property
    def capabilities(self) -> frozenset[str]:
        """The capabilities that the broker itself and the registered methods stand behind."""
        behind = {each.capability for each in self._services.values() if each.capability is not None}
        return frozenset({OBSERVE_PLUGINS, *behind})

    async def call(self, caller: PluginInfo, grants: Grants, name: str, args: Any) -> Any:
        """Run a service for a plugin, where it exists and is granted."""
        self._heed_rate(caller, name)
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

    def _heed_rate(self, caller: PluginInfo, name: str) -> None:
        wait_s = self._rates.wait_s(caller.instance, self._now_s())
        if not wait_s:
            return
        if self._on_excess is not None:
            self._on_excess(caller, name)
        rate = self._rates.rate
        raise Unavailable(
            f'plugin "{caller.name}" {caller.version} calls the host more than {rate.per_s:g} times a second',
            code="rate_limited",
            retry_after_s=round(wait_s, 3),
            plugin=caller.name,
            method=name,
        )

    def _run(self, service: Service, caller: PluginInfo, args: Any) -> Any:
        by_name = isinstance(args, dict)
        positional: tuple[Any, ...] = () if by_name else tuple(args or ())
        named: dict[str, Any] = cast(dict[str, Any], args) if by_name else {}
        if service.declared is not None:
            return service.handler(caller, *bind_arguments(service.declared, positional, named))
        try:
            inspect.signature(service.handler).bind(caller, *positional, **named)
        except TypeError as error:
            raise Misuse(f"{service.name}: {error}", code="invalid_params", method=service.name) from None
        return service.handler(caller, *positional, **named)
