"""What a function takes: its parameters with their types, and the wire's arguments bound to them.

Types are resolved once for each function. A parameter without annotation takes that of the same method further up the
class's order of bases, so that an override need not repeat what its interface says.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import CodeType, FunctionType, GeneratorType
from typing import Any, Final, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

_VARARGS: Final = 0x04
_VARKEYWORDS: Final = 0x08
_GENERATOR: Final = 0x20
_COROUTINE: Final = 0x80
_ITERABLE_COROUTINE: Final = 0x100
_ASYNC_GENERATOR: Final = 0x200

_STREAM_NAMES: Final = ("Iterator", "AsyncIterator", "Generator", "AsyncGenerator")

_SCALAR_MODULES: Final = ("builtins", "decimal", "datetime", "uuid")

Decode = Callable[[msgspec.Raw, Any], Any]


class InvalidArguments(Exception):
    """The arguments of a call do not fit. `facts` holds method, path, expected and found."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts


class Parameter(NamedTuple):
    """One parameter. `type` is Any where nothing was declared."""

    name: str
    type: Any
    required: bool
    by_position: bool
    default: Any = None


class Signature:
    """A function's parameters, and the ways to bind arguments to them."""

    def __init__(self, label: str, parameters: Sequence[Parameter], *, rest: bool, named_rest: bool) -> None:
        self.label = label
        self.parameters = tuple(parameters)
        self.rest = rest
        self.named_rest = named_rest
        self._positional = tuple(each for each in self.parameters if each.by_position)
        self._by_name = {each.name: each for each in self.parameters}
        keyword_needed = any(each.required and not each.by_position for each in self.parameters)
        # The whole argument list decoded in one go, for the usual call: by position, nothing left out.
        self.exact: Any = None if rest or keyword_needed else _tuple_type(self._positional)

    def bind(self, raw: msgspec.Raw, decode: Decode) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The positional and named arguments for the function. Raises `InvalidArguments`."""
        if self.exact is not None:
            try:
                return decode(raw, self.exact), {}
            except msgspec.ValidationError:
                pass  # arguments by name, or some left out, or wrong ones: the careful way tells which
        try:
            given = decode(raw, Any)
        except msgspec.MsgspecError as error:
            raise InvalidArguments(f"{self.label}: the arguments are malformed: {error}", method=self.label) from None
        if isinstance(given, dict):
            return self.bind_named(given)  # pyright: ignore[reportUnknownArgumentType]
        if isinstance(given, list):
            return self.bind_positional(given), {}  # pyright: ignore[reportUnknownArgumentType]
        raise InvalidArguments(
            f"{self.label}: expected a list or a map of arguments, found {_kind(given)}",
            method=self.label,
            expected="array or object",
            found=_kind(given),
        )

    def bind_positional(self, given: Sequence[Any]) -> list[Any]:
        """Convert arguments given by position."""
        limit = len(self._positional)
        if len(given) > limit and not self.rest:
            raise self._wrong_count(given)
        missing = [each.name for each in self._positional[len(given) :] if each.required]
        missing += [each.name for each in self.parameters if each.required and not each.by_position]
        if missing:
            raise self._missing(missing)
        values = [self._convert(each, value) for each, value in zip(self._positional, given, strict=False)]
        return [*values, *given[limit:]]

    def bind_named(self, given: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        """Convert arguments given by name."""
        unknown = [name for name in given if name not in self._by_name]
        if unknown and not self.named_rest:
            known = ", ".join(self._by_name) or "none"
            raise InvalidArguments(
                f"{self.label}: argument {unknown[0]!r} is not known (it takes: {known})",
                method=self.label,
                path=unknown[0],
                expected=known,
                found=unknown[0],
            )
        missing = [each.name for each in self.parameters if each.required and each.name not in given]
        if missing:
            raise self._missing(missing)
        return [], {
            name: self._convert(self._by_name[name], value) if name in self._by_name else value
            for name, value in given.items()
        }

    def _convert(self, parameter: Parameter, value: Any) -> Any:
        if parameter.type is Any:
            return value
        try:
            return msgspec.convert(value, parameter.type)
        except msgspec.ValidationError as error:
            raise self._wrong_type(parameter, error) from None

    def _wrong_type(self, parameter: Parameter, error: msgspec.ValidationError) -> InvalidArguments:
        text, _, place = str(error).partition(" - at `$")
        path = parameter.name + place.rstrip("`")
        expected, found = _expected_and_found(text)
        return InvalidArguments(
            f"{self.label}: argument {path!r}: {_lower_first(text)}",
            method=self.label,
            path=path,
            expected=expected,
            found=found,
        )

    def _missing(self, names: list[str]) -> InvalidArguments:
        listed = ", ".join(repr(name) for name in names)
        return InvalidArguments(
            f"{self.label}: argument {listed} is missing",
            method=self.label,
            path=names[0],
            expected=", ".join(self._by_name),
            found="nothing",
        )

    def _wrong_count(self, given: Sequence[Any]) -> InvalidArguments:
        names = ", ".join(each.name for each in self._positional)
        expected = f"{len(self._positional)}" + (f" ({names})" if names else "")
        return InvalidArguments(
            f"{self.label}: expected at most {expected} argument{'' if len(self._positional) == 1 else 's'}, "
            f"found {len(given)}",
            method=self.label,
            path="",
            expected=expected,
            found=str(len(given)),
        )


def signature_of(label: str, function: Callable[..., Any], *, bases: Sequence[Callable[..., Any]] = ()) -> Signature:
    """The signature of a function or bound method. `bases` are the functions that it overrides, nearest first."""
    plain = plain_function(function)
    if plain is None:
        return _foreign_signature(label, function)
    skip = 1 if _is_bound(function) else 0
    names, positional_count = _parameter_names(plain.__code__)
    hints = _hints(plain, names[skip:], bases)
    defaults = _defaults(plain, names, positional_count)
    parameters = [
        Parameter(
            name,
            _with_none(hints.get(name, Any), defaults, name),
            name not in defaults,
            index < positional_count,
            defaults.get(name),
        )
        for index, name in enumerate(names)
        if index >= skip
    ]
    flags = plain.__code__.co_flags
    return Signature(label, parameters, rest=bool(flags & _VARARGS), named_rest=bool(flags & _VARKEYWORDS))


def plain_function(function: Any) -> FunctionType | None:
    """The Python function inside of bound methods and well-behaved wrappers; None for anything else."""
    seen = 0
    while seen < 100:
        seen += 1
        inner = getattr(function, "__func__", None) or getattr(function, "__wrapped__", None)
        if inner is None:
            break
        function = inner
    return function if isinstance(function, FunctionType) else None


def is_async_function(function: Any) -> bool:
    """Whether the function is an `async def`, a generator or not."""
    plain = plain_function(function)
    return plain is not None and bool(plain.__code__.co_flags & (_COROUTINE | _ITERABLE_COROUTINE | _ASYNC_GENERATOR))


def is_stream_function(function: Any) -> bool:
    """Whether the function gives a stream: a generator of either kind, or one that says it returns an iterator."""
    plain = plain_function(function)
    if plain is None:
        return False
    if plain.__code__.co_flags & (_GENERATOR | _ASYNC_GENERATOR):
        return True
    declared = _annotations(plain).get("return")
    text = declared if isinstance(declared, str) else str(getattr(declared, "__name__", declared))
    return text.partition("[")[0].rpartition(".")[2].strip() in _STREAM_NAMES


def is_generator(value: Any) -> bool:
    """Whether a value is a running generator, of the plain kind."""
    return isinstance(value, GeneratorType)


def is_convertible(hint: Any) -> bool:
    """Whether plain data can become `hint`: structs, dataclasses, containers and scalars can, a Protocol cannot."""
    if hint in (Any, object):
        return False
    if isinstance(hint, type) and get_origin(hint) is None:
        return hint is not dict and (
            _has_fields(hint) or hint.__module__ in ("builtins", "decimal", "datetime", "uuid")
        )
    return any(is_convertible(part) for part in get_args(hint) if part is not type(None))


def _has_fields(cls: Any) -> bool:
    return any(
        hasattr(cls, mark)
        for mark in ("__struct_fields__", "__dataclass_fields__", "__attrs_attrs__", "__total__", "_fields")
    )


def _is_bound(function: Any) -> bool:
    return getattr(function, "__self__", None) is not None and hasattr(function, "__func__")


def _parameter_names(code: CodeType) -> tuple[tuple[str, ...], int]:
    return code.co_varnames[: code.co_argcount + code.co_kwonlyargcount], code.co_argcount


def _defaults(function: FunctionType, names: Sequence[str], positional_count: int) -> dict[str, Any]:
    values = function.__defaults__ or ()
    defaults = dict(zip(names[positional_count - len(values) : positional_count], values, strict=True))
    return defaults | (function.__kwdefaults__ or {})


def _with_none(hint: Any, defaults: Mapping[str, Any], name: str) -> Any:
    """`hint`, and None besides where that is the default: people write `name: str = None`."""
    if hint is Any or name not in defaults or defaults[name] is not None:
        return hint
    return hint | None if not isinstance(hint, str) else Any


def _hints(function: FunctionType, names: Sequence[str], bases: Sequence[Callable[..., Any]]) -> dict[str, Any]:
    """The types of `names`: the function's own, then those of the same name above it, then those of the same place."""
    hints = resolve_hints(function)
    wanting = [name for name in names if name not in hints]
    unannotated = len(wanting) == len(names)
    for base in bases:
        plain = plain_function(base)
        if plain is None or not wanting:
            continue
        above = resolve_hints(plain)
        base_names, _ = _parameter_names(plain.__code__)
        base_names = base_names[1:]
        for place, name in enumerate(names):
            if name in hints:
                continue
            if name in above:
                hints[name] = above[name]
            elif unannotated and place < len(base_names) and base_names[place] in above:
                hints[name] = above[base_names[place]]
        wanting = [name for name in names if name not in hints]
    return hints


def resolve_hints(function: FunctionType) -> dict[str, Any]:
    """The function's annotations as types. One that cannot be resolved is left out, and so counts as Any."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except Exception:
        hints = dict(_resolved_one_by_one(function))
    return {name: hint for name, hint in hints.items() if name != "return" and _is_supported(hint)}


def _annotations(function: FunctionType) -> dict[str, Any]:
    """The annotations as they stand. Where Python evaluates them late (3.14) and one has no meaning, there are none."""
    try:
        return function.__annotations__
    except Exception:
        return {}


def _resolved_one_by_one(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, annotation in _annotations(function).items():
        alone = _Annotated(function, {name: annotation})
        try:
            yield from get_type_hints(alone, include_extras=True).items()
        except Exception:  # noqa: S112 -- names imported for type checkers alone, or text that is no type
            continue


class _Annotated:
    """A stand-in that has one annotation of a function, for `typing.get_type_hints`."""

    def __init__(self, function: FunctionType, annotations: dict[str, Any]) -> None:
        self.__annotations__ = annotations
        self.__globals__ = function.__globals__


def _is_supported(hint: Any) -> bool:
    """Whether msgspec can decode into `hint`."""
    try:
        msgspec.convert(None, hint)
    except msgspec.ValidationError:
        return True
    except Exception:
        return False
    return True


def _tuple_type(parameters: Sequence[Parameter]) -> Any:
    return tuple[tuple(each.type for each in parameters)] if parameters else tuple[()]


def _foreign_signature(label: str, function: Callable[..., Any]) -> Signature:
    """Callables that are no Python functions: partials, callable objects, builtins."""
    from inspect import Parameter as InspectParameter
    from inspect import signature

    try:
        found = signature(function).parameters.values()
    except (TypeError, ValueError):
        return Signature(label, (), rest=True, named_rest=True)
    plain = (InspectParameter.POSITIONAL_ONLY, InspectParameter.POSITIONAL_OR_KEYWORD)
    return Signature(
        label,
        [
            Parameter(each.name, Any, each.default is InspectParameter.empty, each.kind in plain)
            for each in found
            if each.kind not in (InspectParameter.VAR_POSITIONAL, InspectParameter.VAR_KEYWORD)
        ],
        rest=any(each.kind is InspectParameter.VAR_POSITIONAL for each in found),
        named_rest=any(each.kind is InspectParameter.VAR_KEYWORD for each in found),
    )


def _expected_and_found(text: str) -> tuple[str, str]:
    """Cut msgspec's "Expected `int`, got `str`" in two; other sentences are the expectation as a whole."""
    head, comma, tail = text.partition(", got ")
    if comma and head.startswith("Expected "):
        return head.removeprefix("Expected ").replace("`", ""), tail.replace("`", "")
    return text.replace("`", ""), ""


def _lower_first(text: str) -> str:
    return (text[:1].lower() + text[1:]).replace("`", "").replace(", got ", ", found ")


def _kind(value: Any) -> str:
    return type(value).__name__ if value is not None else "nothing"


def module_of(function: Any) -> str:
    """The name of the module that a function comes from."""
    plain = plain_function(function)
    return (plain.__module__ if plain is not None else getattr(function, "__module__", "")) or ""


def in_sdk(function: Any) -> bool:
    """Whether a function is one of this package's own defaults rather than the plugin's."""
    name = module_of(function)
    return name == "cardcage_sdk" or name.startswith("cardcage_sdk.")


def defining_module(cls: type) -> Any:
    """The module object that a class was defined in, or None."""
    return sys.modules.get(cls.__module__)
