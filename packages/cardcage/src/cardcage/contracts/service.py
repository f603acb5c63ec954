"""Services: a Protocol whose methods plugins may call in the host, behind the capability that stands beside its name.

It is read as an extension point is, so arguments are held against their declared types, and the fault names the path.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from cardcage.contracts.definition import read_methods
from cardcage.contracts.point import MethodSpec
from cardcage.foundation.errors import Misuse
from cardcage.foundation.names import InterfaceRef

T = TypeVar("T")

_ATTRIBUTE: Final = "_abc_cardcage_service"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInterface:
    """A service's name, its methods, and the capability without which none of them is answered; None asks for none."""

    name: str
    capability: str | None
    methods: Mapping[str, MethodSpec]
    doc: str = ""


def service(name: str, *, capability: str | None) -> Callable[[type[T]], type[T]]:
    """Declare a Protocol class to be the service `name`: its methods are called as `name.method`.

    What implements it gets the caller before the arguments. Raises `Misuse` for a definition that could not be called
    from another process.
    """
    frame = inspect.currentframe()
    local_names = dict(frame.f_back.f_locals) if frame and frame.f_back else {}

    def decorate(cls: type[T]) -> type[T]:
        setattr(cls, _ATTRIBUTE, _read(cls, name, capability, local_names))
        return cls

    return decorate


def service_of(cls: type) -> ServiceInterface:
    """The service that `cls` was declared to be. Raises `Misuse` where it was not."""
    found = vars(cls).get(_ATTRIBUTE)
    if not isinstance(found, ServiceInterface):
        raise Misuse(
            f"{cls.__qualname__} is not a service",
            code="not_a_service",
            hint='decorate the Protocol class with @service("name", capability="Name")',
        )
    return found


def _read(cls: type, name: str, capability: str | None, local_names: Mapping[str, Any]) -> ServiceInterface:
    ref = InterfaceRef.parse(f"{name}@1")
    if ref is None or not getattr(cls, "_is_protocol", False):
        raise Misuse(
            f"{cls.__qualname__}: a service is a Protocol class with a lower-case name, found {name!r}",
            code="bad_service",
        )
    methods = read_methods(ref, cls, local_names)
    for method in methods.values():
        if method.stream:
            raise Misuse(f"{name}.{method.name} is a stream, and services answer with one value", code="bad_service")
    return ServiceInterface(name=name, capability=capability, methods=methods, doc=inspect.cleandoc(cls.__doc__ or ""))
