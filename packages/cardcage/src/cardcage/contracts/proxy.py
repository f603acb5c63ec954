"""The object that a host calls: it looks like the Protocol, and hands each checked call on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cardcage.contracts.binding import bind_arguments
from cardcage.contracts.point import ExtensionPoint, MethodSpec
from cardcage.foundation.errors import Misuse

Invoke = Callable[[MethodSpec, list[Any]], Any]
"""Carries a call out: returns an awaitable, for a stream an async iterator; in a blocking program the plain result."""


class Proxy:
    """A provider of an extension point, with one attribute for each method; `plugin` tells whose it is."""

    def __init__(self, point: ExtensionPoint, invoke: Invoke, plugin: Any, *, blocking: bool) -> None:
        self.plugin = plugin
        self._point = point
        self._blocking = blocking
        # Made once: a call is then one attribute look-up and one check away from the channel.
        for method in point.methods.values():
            setattr(self, method.name, _caller(method, invoke))

    def __getattr__(self, name: str) -> Any:
        # Reached only for names that were not set above.
        raise AttributeError(
            f"extension point {self._point.ref} has no method {name} (it has: {', '.join(self._point.methods)})"
        )

    def __repr__(self) -> str:
        kind = "blocking proxy" if self._blocking else "proxy"
        return f"<{kind} of {self._point.ref} provided by {getattr(self.plugin, 'name', self.plugin)}>"


def make_proxy(point: ExtensionPoint, invoke: Invoke, *, plugin: Any, blocking: bool = False) -> Any:
    """An object with the Protocol's methods, each of which checks its arguments and calls `invoke(method, arguments)`.

    What `invoke` returns is returned as it is; `blocking` only says in the proxy's `repr` which kind that is. A wrong
    argument raises `Misuse` at the call, before anything is awaited.
    """
    if not callable(invoke):
        raise Misuse(f"{point.ref}: the proxy needs a callable to carry its calls out, found {invoke!r}")
    return Proxy(point, invoke, plugin, blocking=blocking)


def _caller(method: MethodSpec, invoke: Invoke) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return invoke(method, bind_arguments(method, args, kwargs))

    call.__name__ = method.name
    call.__qualname__ = f"{method.interface}.{method.name}"
    call.__doc__ = method.doc
    return call
