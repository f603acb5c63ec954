"""What an extension point is: its reference, its methods and their parameters, as plain frozen data."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, Union, get_args, get_origin

from cardcage.contracts.schema import interface_schema
from cardcage.foundation.names import InterfaceRef


class _Required(Enum):
    REQUIRED = "required"

    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED: Final = _Required.REQUIRED
"""Stands where a parameter has no default (None is a default like any other)."""

_BUILTIN: Final = frozenset({str, int, float, bool, bytes, list, dict, type(None)})


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterSpec:
    """One parameter of a method: its name, its declared type and its default, or `REQUIRED`."""

    name: str
    type: Any
    default: Any = REQUIRED

    @property
    def required(self) -> bool:
        """Whether a call must give it."""
        return self.default is REQUIRED


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSpec:
    """One method of an extension point.

    `result_type` is what a call returns; where `stream` is set it is the declared iterator and `item_type` the type of
    each item. `idempotent` says that a call whose answer was lost may be made again.
    """

    interface: InterfaceRef
    name: str
    parameters: tuple[ParameterSpec, ...]
    result_type: Any
    stream: bool = False
    item_type: Any = None
    idempotent: bool = False
    doc: str = ""
    exact_types: tuple[frozenset[type] | None, ...] = field(init=False, repr=False, compare=False)
    """For each parameter the classes whose instances need no further check; None where anything goes. Every call is
    checked, so the usual one must cost a set look-up an argument and no more."""
    defaults: tuple[Any, ...] = field(init=False, repr=False, compare=False)
    required_count: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "exact_types", tuple(_exact_types(parameter.type) for parameter in self.parameters))
        object.__setattr__(self, "defaults", tuple(parameter.default for parameter in self.parameters))
        object.__setattr__(self, "required_count", sum(parameter.required for parameter in self.parameters))

    def __str__(self) -> str:
        return f"{self.interface}.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtensionPoint:
    """A versioned typed interface that a host calls and plugins provide.

    `exclusive` says that only one provider is asked: the active one with the lowest priority number.
    `protocol` is the class that was decorated.
    """

    ref: InterfaceRef
    methods: Mapping[str, MethodSpec]
    protocol: type
    exclusive: bool = False
    doc: str = ""

    def json_schema(self) -> dict[str, Any]:
        """The interface as JSON: for each method the schema (draft 2020-12) of its parameters and result or items.

        Parameters are described as one object by name; `x-order` keeps their order, as arguments travel by position.
        """
        return interface_schema(self)


def _exact_types(declared: Any) -> frozenset[type] | None:
    """The classes whose own instances (not those of subclasses) fit; empty where each value has to be looked at."""
    if declared is Any:
        return None
    if get_origin(declared) in (Union, types.UnionType):
        members = [_exact_types(member) for member in get_args(declared)]
        return None if any(member is None for member in members) else frozenset[type]().union(*filter(None, members))
    if get_origin(declared) is list and get_args(declared) == (Any,):
        return frozenset({list})
    if declared is None:
        return frozenset({type(None)})
    if isinstance(declared, type) and (declared in _BUILTIN or _is_record(declared)):
        return frozenset({declared})
    return frozenset()


def _is_record(declared: type) -> bool:
    return (
        hasattr(declared, "__struct_fields__")
        or hasattr(declared, "__dataclass_fields__")
        or issubclass(declared, Enum)
    )
