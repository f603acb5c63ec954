"""Binding the wire's arguments to parameters, apart from any connection."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage_sdk.signature import (
    InvalidArguments,
    is_async_function,
    is_convertible,
    is_stream_function,
    signature_of,
)

if TYPE_CHECKING:
    from nowhere import Unknown  # type: ignore[import-not-found]  # pyright: ignore


class Point(msgspec.Struct):
    x: int
    y: int = 0


def bind(function: Callable[..., Any], args: Any) -> tuple[list[Any], dict[str, Any]]:
    raw = msgspec.Raw(msgspec.msgpack.encode(args))
    positional, named = signature_of("f", function).bind(
        raw, lambda data, kind: msgspec.msgpack.decode(data, type=kind)
    )
    return list(positional), dict(named)


def move(point: Point, by: Decimal = Decimal(1), *, twice: bool = False) -> None: ...


def test_positions_and_names_bind_alike() -> None:
    assert bind(move, [{"x": 1}, "2.5"]) == ([Point(1), Decimal("2.5")], {})
    assert bind(move, [{"x": 1}]) == ([Point(1)], {})
    assert bind(move, {"twice": True, "point": {"x": 1}}) == ([], {"twice": True, "point": Point(1)})


def test_a_required_keyword_cannot_be_given_by_position() -> None:
    def only(*, key: str) -> None: ...

    assert bind(only, {"key": "a"}) == ([], {"key": "a"})
    with pytest.raises(InvalidArguments, match="'key' is missing"):
        bind(only, [])
    with pytest.raises(InvalidArguments, match="expected at most 0 arguments, found 1"):
        bind(only, ["a"])


def test_arguments_that_are_neither_list_nor_map_are_refused() -> None:
    with pytest.raises(InvalidArguments, match="expected a list or a map of arguments, found int"):
        bind(move, 3)


def test_an_annotation_that_cannot_be_resolved_or_decoded_counts_as_any() -> None:
    def odd(known: int, unknown: Unknown, weird: Callable[[], int] | None = None) -> None: ...  # pyright: ignore

    assert bind(odd, [1, {"any": "thing"}]) == ([1, {"any": "thing"}], {})  # pyright: ignore
    with pytest.raises(InvalidArguments, match="argument 'known': expected int, found str"):
        bind(odd, ["1", None])  # pyright: ignore


def test_a_default_of_none_lets_none_in() -> None:
    def optional(name: str = None) -> None: ...  # type: ignore[assignment]  # pyright: ignore  # noqa: RUF013

    assert bind(optional, [None]) == ([None], {})
    assert bind(optional, ["a"]) == (["a"], {})


def test_an_override_inherits_by_name_through_the_bases_and_by_place_where_it_renames() -> None:
    class Interface(Protocol):
        def run(self, point: Point, count: int) -> None: ...

    class Middle(Interface):
        def run(self, point, count, extra=0): ...  # type: ignore[no-untyped-def]  # pyright: ignore

    class Renaming(Interface):
        def run(self, where, number): ...  # type: ignore[no-untyped-def]  # pyright: ignore

    bases = [Interface.__dict__["run"]]
    inherited = signature_of("run", Middle().run, bases=bases)  # pyright: ignore
    assert [each.type for each in inherited.parameters] == [Point, int, Any]
    renamed = signature_of("run", Renaming().run, bases=bases)  # pyright: ignore
    assert [each.type for each in renamed.parameters] == [Point, int]


def test_wrappers_partials_and_callable_objects_are_seen_through() -> None:
    @functools.wraps(move)
    def wrapped(*args: Any, **kwargs: Any) -> None: ...

    class Callable_:
        def __call__(self, point: Any, by: Any = 1) -> None: ...

    assert [each.name for each in signature_of("f", wrapped).parameters] == ["point", "by", "twice"]
    assert [each.name for each in signature_of("f", Callable_()).parameters] == ["point", "by"]
    assert [each.name for each in signature_of("f", functools.partial(move, Point(1))).parameters] == ["by", "twice"]


def test_streams_and_async_functions_are_told_by_their_code_or_their_result() -> None:
    def generator() -> Any:
        yield 1

    async def asynchronous() -> None: ...

    async def async_generator() -> Any:
        yield 1

    def declared() -> Iterator[int]:
        return iter([])

    def plain() -> list[int]:
        return []

    assert [is_stream_function(each) for each in (generator, asynchronous, async_generator, declared, plain)] == [
        *(True, False, True, True, False)
    ]
    assert [is_async_function(each) for each in (generator, asynchronous, async_generator, declared, plain)] == [
        *(False, True, True, False, False)
    ]


def test_plain_data_becomes_structs_and_containers_but_not_protocols() -> None:
    class Shape(Protocol):
        x: int

    convertible: list[Any] = [Point, int, list[int], Point | None, dict[str, Point]]
    others: list[Any] = [Any, object, dict, Shape, Shape | None, Mapping[str, Any]]
    assert [is_convertible(hint) for hint in convertible] == [True] * 5
    assert [is_convertible(hint) for hint in others[:5]] == [False] * 5


def plain_data(names: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=3)
    return st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=12
    )


@given(plain_data(st.text(max_size=4) | st.sampled_from(["point", "by", "x", "y"])))
def test_any_arguments_bind_or_are_refused_with_the_method_named(args: Any) -> None:
    try:
        positional, named = bind(move, args)
    except InvalidArguments as caught:
        refusal = caught
    else:
        refusal = None
        point = named["point"] if named else positional[0]
        assert isinstance(point, Point)
    if refusal is not None:
        assert refusal.message.startswith("f: ")
        assert refusal.facts["method"] == "f"
