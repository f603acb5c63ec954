"""From the arguments of a Python call to the list that travels, each checked against its declared type."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from cardcage.contracts.point import MethodSpec, ParameterSpec
from cardcage.foundation.errors import Misuse


def bind_arguments(method: MethodSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """The arguments of a call in the order of the method's parameters, defaults filled in.

    Values of the declared class pass as they are; others are converted where that loses nothing (a dict to a struct, a
    tuple to a list, an int to a float), but a text is never read as a number. Raises `Misuse` naming the interface, the
    method and the parameter, with what was expected and found.
    """
    exact_types = method.exact_types
    if kwargs or not method.required_count <= len(args) <= len(exact_types):
        return _bind_with_care(method, args, kwargs)
    bound = [*args]
    if len(args) < len(exact_types):
        bound += method.defaults[len(args) :]
    for index, value in enumerate(args):
        accepted = exact_types[index]
        if accepted is not None and type(value) not in accepted:
            bound[index] = _checked(method, method.parameters[index], value)
    return bound


def _bind_with_care(method: MethodSpec, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    parameters = method.parameters
    if len(args) > len(parameters):
        _refuse(method, None, f"takes {_count(len(parameters))}, but was given {len(args)}", found=len(args))
    given = dict(zip((parameter.name for parameter in parameters), args, strict=False))
    for name in kwargs:
        if name in given:
            _refuse(method, name, f'was given "{name}" twice, by position and by name')
    given.update(kwargs)
    bound = [_bind_one(method, parameter, given) for parameter in parameters]
    if given:
        unknown = next(iter(given))
        known = ", ".join(parameter.name for parameter in parameters) or "none"
        _refuse(method, unknown, f'has no parameter "{unknown}" (it has: {known})', found=unknown)
    return bound


def _bind_one(method: MethodSpec, parameter: ParameterSpec, given: dict[str, Any]) -> Any:
    if parameter.name not in given:
        if parameter.required:
            expected = describe_type(parameter.type)
            _refuse(
                method,
                parameter.name,
                f'needs "{parameter.name}" ({expected}), but it was not given',
                expected=expected,
                found="nothing",
            )
        return parameter.default
    return _checked(method, parameter, given.pop(parameter.name))


def _checked(method: MethodSpec, parameter: ParameterSpec, value: Any) -> Any:
    if _is_instance(value, parameter.type):
        return value
    try:
        return msgspec.convert(value, parameter.type, strict=True)
    except msgspec.ValidationError as error:
        _refuse_value(method, parameter, value, str(error))


def _is_instance(value: Any, declared: Any) -> bool:
    """Whether it is an instance of the declared class or of a subclass; a bool is not meant where an int is asked."""
    return isinstance(declared, type) and isinstance(value, declared) and not (declared is int and type(value) is bool)


def _refuse_value(method: MethodSpec, parameter: ParameterSpec, value: Any, problem: str) -> NoReturn:
    # msgspec ends its sentence with "- at `$.a[0]`" where the fault lies inside the value.
    sentence, _, place = problem.partition(" - at `$")
    inside = f" (at {parameter.name}{place.rstrip('`')}: {sentence.replace('`', '')})" if place else ""
    expected, found = describe_type(parameter.type), _describe_value(value)
    _refuse(
        method,
        parameter.name,
        f'expected {expected} for "{parameter.name}", but found {found}{inside}',
        expected=expected,
        found=found,
    )


def _refuse(method: MethodSpec, parameter: str | None, problem: str, **fields: Any) -> NoReturn:
    raise Misuse(
        f"{method} {problem}",
        code="invalid_params",
        interface=str(method.interface),
        method=method.name,
        parameter=parameter,
        **fields,
    )


def _count(number: int) -> str:
    return f"{number} argument{'' if number == 1 else 's'}"


def _describe_value(value: Any) -> str:
    """Its type, and the value itself where that is short: errors must not carry a megabyte of somebody's data."""
    if value is None:
        return "None"
    kind = describe_type(type(value))
    if isinstance(value, str | int | float) and len(str(value)) <= 40:
        return f"{kind} {value!r}"
    return kind


def describe_type(declared: Any) -> str:
    """A type as its author would write it: `str | None`, `list[Resource]`."""
    if declared is None or declared is type(None):
        return "None"
    return re.sub(r"(?:\w+\.|<locals>\.)+", "", inspect.formatannotation(declared))
