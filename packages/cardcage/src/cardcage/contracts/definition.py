"""Reading a Protocol class into an ExtensionPoint; whatever cannot cross a process is refused where it is written."""

from __future__ import annotations

import collections.abc
import inspect
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import msgspec

from cardcage.contracts.point import REQUIRED, ExtensionPoint, MethodSpec, ParameterSpec
from cardcage.foundation.errors import Misuse
from cardcage.foundation.names import InterfaceRef

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

# `runtime_checkable` Protocols take every attribute of the class for a member, except those that start with `_abc_`.
_POINT_ATTRIBUTE: Final = "_abc_cardcage_extension_point"
_IDEMPOTENT_ATTRIBUTE: Final = "__cardcage_idempotent__"

_STREAM_ORIGINS: Final = frozenset(
    {
        collections.abc.AsyncIterator,
        collections.abc.AsyncGenerator,
        collections.abc.Iterator,
        collections.abc.Generator,
    }
)
_BOOKKEEPING: Final = frozenset({"_is_protocol", "_is_runtime_protocol"})
"""What `typing` itself writes into a Protocol class."""
_RESERVED_NAMES: Final = frozenset({"plugin"})
"""Names that a proxy uses itself."""


def extension_point(name: str, version: int = 1, *, exclusive: bool = False) -> Callable[[type[T]], type[T]]:
    """Declare a Protocol class to be the extension point `name@version`.

    Every parameter and result must be annotated with types that msgspec can describe. `AsyncIterator[T]` or
    `Iterator[T]` as a result makes the method a stream. With `exclusive` only the first active provider is asked.
    Raises `Misuse` for a definition that could not be called from another process.
    """
    # Types defined beside a class in a function body are visible only in that function's frame.
    frame = inspect.currentframe()
    local_names = dict(frame.f_back.f_locals) if frame and frame.f_back else {}

    def decorate(cls: type[T]) -> type[T]:
        point = _read_point(cls, name, version, exclusive=exclusive, local_names=local_names)
        setattr(cls, _POINT_ATTRIBUTE, point)
        return cls

    return decorate


def idempotent(function: F) -> F:
    """Mark a method as safe to call again where the answer to the first call was lost."""
    setattr(function, _IDEMPOTENT_ATTRIBUTE, True)
    return function


def extension_point_of(cls: type) -> ExtensionPoint:
    """The extension point that `cls` was declared to be. Raises `Misuse` where it was not."""
    point = vars(cls).get(_POINT_ATTRIBUTE) if isinstance(cls, type) else None  # pyright: ignore[reportUnnecessaryIsInstance]
    if not isinstance(point, ExtensionPoint):
        raise Misuse(
            f"{getattr(cls, '__qualname__', repr(cls))} is not an extension point",
            code="not_an_extension_point",
            hint='decorate the Protocol class with @extension_point("name", version=1)',
        )
    return point


def index_points(protocols: Iterable[type]) -> dict[InterfaceRef, ExtensionPoint]:
    """The extension points of these classes by reference. Raises `Misuse` where two classes claim the same one."""
    index: dict[InterfaceRef, ExtensionPoint] = {}
    for protocol in protocols:
        point = extension_point_of(protocol)
        other = index.setdefault(point.ref, point)
        if other.protocol is not protocol:
            first, second = (f"{cls.__module__}.{cls.__qualname__}" for cls in (other.protocol, protocol))
            raise Misuse(
                f"extension point {point.ref} is defined twice: by {first} and by {second}",
                code="duplicate_extension_point",
                interface=str(point.ref),
                hint="give one of them another name or the next version",
            )
    return index


def _read_point(
    cls: type, name: str, version: int, *, exclusive: bool, local_names: Mapping[str, Any]
) -> ExtensionPoint:
    ref = InterfaceRef.parse(f"{name}@{version}")
    if ref is None:
        raise _bad(
            f"{cls.__qualname__}: an extension point is named by lower-case words and a version from 1 to 99999, "
            f"found {name!r} and {version!r}"
        )
    if not getattr(cls, "_is_protocol", False):
        raise _bad(
            f"{ref}: {cls.__qualname__} must be a typing.Protocol class", hint=f"class {cls.__name__}(Protocol): ..."
        )
    if _POINT_ATTRIBUTE in vars(cls):
        raise _bad(f"{ref}: {cls.__qualname__} is already the extension point {extension_point_of(cls).ref}")
    methods = read_methods(ref, cls, local_names)
    return ExtensionPoint(
        ref=ref, methods=methods, protocol=cls, exclusive=exclusive, doc=inspect.cleandoc(cls.__doc__ or "")
    )


def read_methods(ref: InterfaceRef, cls: type, local_names: Mapping[str, Any]) -> dict[str, MethodSpec]:
    """The methods of a Protocol class by name. Raises `Misuse` for one that could not be called across a process."""
    methods = {
        member: _read_method(ref, member, function, local_names) for member, function in _functions(ref, cls).items()
    }
    if not methods:
        raise _bad(f"{ref}: {cls.__qualname__} has no methods, and an extension point is made of them")
    return methods


def _functions(ref: InterfaceRef, cls: type) -> dict[str, Callable[..., Any]]:
    """The methods of the Protocol and of the Protocols it extends, in the order in which they are written."""
    functions: dict[str, Callable[..., Any]] = {}
    for base in reversed(cls.__mro__):
        if base in (object, typing.Protocol, typing.Generic) or not getattr(base, "_is_protocol", False):
            continue
        for name, member in vars(base).items():
            if name in _BOOKKEEPING or name.startswith("_abc_") or (name.startswith("__") and name.endswith("__")):
                continue
            functions[name] = _as_method(ref, name, member)
        for name in inspect.get_annotations(base):
            if name not in functions:
                raise _bad(f"{ref}: {name} is an attribute, but an extension point has methods only")
    return functions


def _as_method(ref: InterfaceRef, name: str, member: object) -> Callable[..., Any]:
    if not inspect.isfunction(member):
        raise _bad(f"{ref}: {name} is a {type(member).__name__}, but an extension point has plain methods only")
    if name.startswith("_"):
        raise _bad(f"{ref}.{name} starts with an underscore, but what a host calls is public")
    if name in _RESERVED_NAMES:
        raise _bad(f"{ref}.{name} has a name that the proxy uses itself ({', '.join(sorted(_RESERVED_NAMES))})")
    return member


def _read_method(
    ref: InterfaceRef, name: str, function: Callable[..., Any], local_names: Mapping[str, Any]
) -> MethodSpec:
    where = f"{ref}.{name}"
    hints = _type_hints(where, function, local_names)
    parameters = tuple(_read_parameter(where, parameter, hints) for parameter in _wire_parameters(where, function))
    if "return" not in hints:
        raise _bad(f"{where} has no result type", hint="write `-> None` where it returns nothing")
    result_type = hints["return"]
    stream = typing.get_origin(result_type) in _STREAM_ORIGINS
    if stream and inspect.iscoroutinefunction(function):
        raise _bad(
            f"{where} is a stream, so it is declared with `def`, not `async def`: it returns its iterator at once"
        )
    if result_type in _STREAM_ORIGINS:
        raise _bad(f"{where}: a stream names the type of its items, such as AsyncIterator[str]")
    item_type = typing.get_args(result_type)[0] if stream else None
    _check_describable(where, "items" if stream else "result", item_type if stream else result_type)
    return MethodSpec(
        interface=ref,
        name=name,
        parameters=parameters,
        result_type=type(None) if result_type is None else result_type,
        stream=stream,
        item_type=item_type,
        idempotent=bool(getattr(function, _IDEMPOTENT_ATTRIBUTE, False)),
        doc=inspect.cleandoc(function.__doc__ or ""),
    )


def _type_hints(where: str, function: Callable[..., Any], local_names: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, localns=dict(local_names), include_extras=True)
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise _bad(
            f"{where}: an annotation cannot be resolved: {error}",
            hint="import the type outside `if TYPE_CHECKING:`, for it is needed when the program runs",
        ) from None


def _wire_parameters(where: str, function: Callable[..., Any]) -> list[inspect.Parameter]:
    every = list(inspect.signature(function).parameters.values())
    if not every:
        raise _bad(f"{where} lacks its first parameter, self")
    parameters = every[1:]
    for parameter in parameters:
        match parameter.kind:
            case inspect.Parameter.VAR_POSITIONAL | inspect.Parameter.VAR_KEYWORD:
                stars = "*" if parameter.kind is inspect.Parameter.VAR_POSITIONAL else "**"
                raise _bad(
                    f"{where} takes {stars}{parameter.name}, but a method of an extension point names each parameter"
                )
            case inspect.Parameter.KEYWORD_ONLY:
                raise _bad(f"{where}: {parameter.name} is keyword-only, but arguments travel by position")
            case _:
                pass
    return parameters


def _read_parameter(where: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> ParameterSpec:
    if parameter.name not in hints:
        raise _bad(f"{where}: parameter {parameter.name} has no type")
    declared = hints[parameter.name]
    _check_describable(where, f"parameter {parameter.name}", declared)
    default = REQUIRED if parameter.default is inspect.Parameter.empty else parameter.default
    return ParameterSpec(name=parameter.name, type=declared, default=default)


def _check_describable(where: str, what: str, declared: Any) -> None:
    try:
        msgspec.json.schema_components([declared])
    except (TypeError, NameError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise _bad(
            f"{where}: the type of {what} cannot cross a process: {reason}",
            hint="use builtin types, msgspec structs, dataclasses, enums, dates, Decimal or containers of these",
        ) from None


def _bad(message: str, *, hint: str | None = None) -> Misuse:
    return Misuse(message, code="bad_extension_point", hint=hint)
