"""Python source for a plugin of an extension point, written from the extension point itself: methods, types, answers.

An answer is the emptiest value of the declared type, so that what is generated runs, and passes the checks of the host,
before its author has written a line.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Final, Literal, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from cardcage.contracts import ExtensionPoint, MethodSpec

_EMPTY: Final[dict[Any, str]] = {str: '""', int: "0", float: "0.0", bool: "False", bytes: 'b""', list: "[]", dict: "{}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodStub:
    """One method as source: its head, its doc and body, and a test of it."""

    name: str
    parameters: str
    result: str
    doc: str
    body: str
    arguments: str
    answer: str
    stream: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PointStub:
    """All methods of an extension point as source, and the imports that they and their tests need, by module."""

    doc: str
    methods: tuple[MethodStub, ...]
    imports: Mapping[str, tuple[str, ...]]
    test_imports: Mapping[str, tuple[str, ...]]


def stub_of(point: ExtensionPoint, libraries: Collection[str]) -> PointStub:
    """The source for `point`. Only types of `libraries`, which plugins can import, are named; others are plain data."""
    code, tests = _Source(libraries), _Source(libraries)
    methods = tuple(_method(method, code, tests) for method in point.methods.values())
    return PointStub(
        doc=_sentence(point.doc) or f"Provides {point.ref}.",
        methods=methods,
        imports=code.imports(),
        test_imports=tests.imports(),
    )


def _method(method: MethodSpec, code: _Source, tests: _Source) -> MethodStub:
    item = method.item_type if method.stream else method.result_type
    named = code.annotation(item)
    if method.stream:
        code.need("collections.abc", "Iterator")
    required = [parameter for parameter in method.parameters if parameter.required]
    return MethodStub(
        name=method.name,
        parameters="".join(
            f", {each.name}: {code.annotation(each.type)}{'' if each.required else f' = {each.default!r}'}"
            for each in method.parameters
        ),
        result=f"Iterator[{named}]" if method.stream else named,
        doc=_sentence(method.doc) or f"Answers `{method.name}`.",
        body="yield from ()" if method.stream else f"return {code.empty(item)}",
        arguments=", ".join(tests.empty(each.type) for each in required),
        answer="[]" if method.stream else tests.empty(item),
        stream=method.stream,
    )


def _sentence(doc: str) -> str:
    """The first sentence of a docstring, safe to stand in another."""
    first = " ".join(doc.split("\n\n")[0].split())
    return first.replace("\\", "").replace('"""', "'''")


class _Source:
    """Writes types and values as source, and keeps what has to be imported for them."""

    def __init__(self, libraries: Iterable[str]) -> None:
        self._libraries = frozenset(libraries)
        self._needed: dict[str, set[str]] = {}

    def need(self, module: str, name: str) -> str:
        self._needed.setdefault(module, set()).add(name)
        return name

    def imports(self) -> Mapping[str, tuple[str, ...]]:
        return {module: tuple(sorted(self._needed[module])) for module in sorted(self._needed)}

    def annotation(self, declared: Any) -> str:
        """The type as it is written in a signature."""
        origin, members = get_origin(declared), get_args(declared)
        if declared is None or declared is type(None):
            return "None"
        if origin is Annotated:
            return self.annotation(members[0])
        if origin in (Union, types.UnionType):
            return " | ".join(dict.fromkeys(map(self.annotation, members)))
        if origin is Literal:
            self.need("typing", "Literal")
            return f"Literal[{', '.join(map(repr, members))}]"
        if origin in (list, dict, tuple, set, frozenset):
            inner = ", ".join("..." if member is Ellipsis else self.annotation(member) for member in members)
            return f"{cast(type, origin).__name__}[{inner}]"
        cls = _class(declared)
        if cls is not None and self._importable(cls):
            return self._named(cls)
        return self.need("typing", "Any")

    def empty(self, declared: Any) -> str:
        """The emptiest value of the type."""
        origin, members = get_origin(declared), get_args(declared)
        if declared in (None, Any) or declared is type(None):
            return "None"
        if origin is Annotated:
            return self.empty(members[0])
        if origin in (Union, types.UnionType):
            return "None" if type(None) in members else self.empty(members[0])
        if origin is Literal:
            return repr(members[0])
        if origin in (tuple, set, frozenset):
            return "()" if origin is tuple else f"{cast(type, origin).__name__}()"
        simple = _EMPTY.get(origin or declared)
        return simple if simple is not None else self._empty_object(declared)

    def _empty_object(self, declared: Any) -> str:
        if declared is Decimal:
            return f"{self.need('decimal', 'Decimal')}(0)"
        cls = _class(declared)
        if cls is not None and issubclass(cls, Enum):
            first = next(iter(cls))
            return f"{self._named(cls)}.{first.name}" if self._importable(cls) else repr(first.value)
        values = {name: self.empty(of) for name, of in _required_fields(cls)}
        if cls is not None and self._importable(cls):
            return f"{self._named(cls)}({', '.join(f'{name}={value}' for name, value in values.items())})"
        return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"

    def _importable(self, declared: type[Any]) -> bool:
        top = declared.__module__.split(".")[0]
        return top in self._libraries or top in ("builtins", "decimal", "datetime", "uuid")

    def _named(self, declared: type[Any]) -> str:
        return (
            declared.__name__
            if declared.__module__ == "builtins"
            else self.need(declared.__module__, declared.__name__)
        )


def _class(declared: Any) -> type[Any] | None:
    """`declared` where it is a plain class, not a type with parameters."""
    return declared if isinstance(declared, type) and get_origin(declared) is None else None


def _required_fields(cls: type[Any] | None) -> list[tuple[str, Any]]:
    if cls is not None and issubclass(cls, msgspec.Struct):
        return [(field.name, field.type) for field in msgspec.structs.fields(cls) if field.required]
    if cls is not None and dataclasses.is_dataclass(cls):
        hints, nothing = get_type_hints(cls), dataclasses.MISSING
        return [
            (field.name, hints[field.name])
            for field in dataclasses.fields(cls)
            if field.default is nothing and field.default_factory is nothing
        ]
    return []
