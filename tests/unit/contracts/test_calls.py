"""Arguments are bound and checked before a call leaves, and the proxy hands them on."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cardcage.contracts import (
    MethodSpec,
    bind_arguments,
    check_provider,
    extension_point,
    extension_point_of,
    make_proxy,
)
from cardcage.foundation.errors import Misuse


class Resource(msgspec.Struct):
    id: str
    hours: int = 0


class Bigger(Resource):
    rate: float = 0.0


class Colour(enum.StrEnum):
    RED = "red"


@dataclass
class Point:
    x: int


@extension_point("sample", version=2)
class Sample(Protocol):
    def simple(self, name: str, times: int = 1) -> str: ...

    def rich(self, resources: list[Resource], notes: dict[str, int] | None = None) -> list[Resource]: ...

    def one(self, resource: Resource) -> Resource: ...

    def number(self, value: float) -> float: ...

    def anything(self, value: Any) -> Any: ...

    def optional(self, value: str | None) -> str | None: ...

    def others(self, colour: Colour, point: Point, at: datetime, cost: Decimal) -> None: ...

    def nothing(self) -> None: ...

    def watch(self, name: str) -> AsyncIterator[Resource]: ...


METHODS = extension_point_of(Sample).methods


def bind(method: str, *args: Any, **kwargs: Any) -> list[Any]:
    return bind_arguments(METHODS[method], args, kwargs)


def test_arguments_come_out_in_order_with_defaults_filled() -> None:
    assert bind("simple", "a") == ["a", 1]
    assert bind("simple", "a", 2) == ["a", 2]
    assert bind("simple", times=3, name="b") == ["b", 3]
    assert bind("simple", "c", times=4) == ["c", 4]
    assert bind("nothing") == []


def test_values_that_lose_nothing_are_converted() -> None:
    assert bind("rich", ({"id": "i-1"},)) == [[Resource("i-1")], None]
    assert bind("one", {"id": "i-1", "hours": 2}) == [Resource("i-1", 2)]
    assert bind("number", 1) == [1.0]


def test_an_instance_of_a_subclass_is_taken_as_it_is() -> None:
    bigger = Bigger("i-2", rate=0.5)
    assert bind("one", bigger)[0] is bigger
    assert bind("simple", Colour.RED) == ["red", 1]


def test_enums_dataclasses_dates_and_decimals_pass() -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    assert bind("others", Colour.RED, Point(1), at, Decimal("1.10")) == [Colour.RED, Point(1), at, Decimal("1.10")]
    assert bind("others", "red", {"x": 1}, at, Decimal(1))[:2] == [Colour.RED, Point(1)]


WRONG: list[tuple[str, tuple[Any, ...], dict[str, Any], str | None, str]] = [
    ("simple", (1,), {}, "name", 'sample@2.simple expected str for "name", but found int 1'),
    ("simple", ("a", True), {}, "times", 'expected int for "times", but found bool True'),
    ("simple", ("a", "2"), {}, "times", "found str '2'"),
    ("simple", (), {}, "name", 'needs "name" .str., but it was not given'),
    ("simple", ("a", 1, 2), {}, None, "takes 2 arguments, but was given 3"),
    ("simple", ("a",), {"name": "b"}, "name", "twice, by position and by name"),
    ("simple", ("a",), {"nmae": "b"}, "nmae", r'has no parameter "nmae" \(it has: name, times\)'),
    ("rich", ([Resource("a"), {"id": 3}],), {}, "resources", r"at resources\[1\].id: Expected str, got int"),
    ("rich", ([], {"a": "b"}), {}, "notes", "notes"),
    ("one", ("text",), {}, "resource", "expected Resource"),
    ("one", (None,), {}, "resource", "found None"),
    ("optional", (3,), {}, "value", r"expected .*str.*None.* for"),
]


@pytest.mark.parametrize(("method", "args", "kwargs", "parameter", "words"), WRONG)
def test_a_wrong_argument_is_named_with_what_was_expected_and_found(
    method: str, args: tuple[Any, ...], kwargs: dict[str, Any], parameter: str | None, words: str
) -> None:
    with pytest.raises(Misuse, match=words) as caught:
        bind_arguments(METHODS[method], args, kwargs)
    assert caught.value.code == "invalid_params"
    assert caught.value.fields["interface"] == "sample@2"
    assert caught.value.fields["method"] == method
    assert caught.value.fields.get("parameter") == parameter


def test_an_error_never_carries_a_long_value() -> None:
    with pytest.raises(Misuse) as caught:
        bind("simple", ["x" * 10_000])
    assert len(str(caught.value)) < 200


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(METHODS)), st.lists(PLAIN, max_size=4))
def test_whatever_passes_the_check_can_be_encoded_and_read_as_the_declared_type(method: str, args: list[Any]) -> None:
    spec = METHODS[method]
    try:
        bound = bind_arguments(spec, args, {})
    except Misuse:
        return
    assert len(bound) == len(spec.parameters)
    for value, parameter in zip(bound, spec.parameters, strict=True):
        msgspec.msgpack.decode(msgspec.msgpack.encode(value), type=parameter.type)


@given(PLAIN, PLAIN)
def test_the_fast_check_and_the_careful_one_agree(first: Any, second: Any) -> None:
    def outcome(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return bind_arguments(METHODS["simple"], args, kwargs)
        except Misuse as error:
            return error.fields["parameter"]

    # By name the careful way is taken.
    assert outcome((first, second), {}) == outcome((), {"name": first, "times": second})


def _record(method: MethodSpec, arguments: list[Any]) -> tuple[str, list[Any]]:
    return method.name, arguments


def test_a_proxy_hands_each_checked_call_on() -> None:
    calls: list[tuple[str, list[Any]]] = []

    def invoke(method: MethodSpec, arguments: list[Any]) -> str:
        calls.append((method.name, arguments))
        return "answer"

    proxy: Sample = make_proxy(extension_point_of(Sample), invoke, plugin="polite")
    assert proxy.simple("a") == "answer"
    assert proxy.one(Resource("r")) == "answer"
    assert calls == [("simple", ["a", 1]), ("one", [Resource("r")])]
    with pytest.raises(Misuse):
        proxy.simple(1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert len(calls) == 2


async def test_a_proxy_returns_what_carries_the_call_out_returns() -> None:
    async def answer(method: MethodSpec, arguments: list[Any]) -> Any:
        return method.name, arguments

    async def items(arguments: list[Any]) -> AsyncIterator[Resource]:
        for name in arguments:
            yield Resource(name)

    def invoke(method: MethodSpec, arguments: list[Any]) -> Any:
        return items(arguments) if method.stream else answer(method, arguments)

    proxy: Any = make_proxy(extension_point_of(Sample), invoke, plugin="polite")
    assert await proxy.simple("a", 2) == ("simple", ["a", 2])
    assert [item async for item in proxy.watch("one")] == [Resource("one")]


def test_a_proxy_says_whose_it_is_and_what_it_lacks() -> None:
    proxy: Any = make_proxy(extension_point_of(Sample), _record, plugin="polite")
    assert proxy.plugin == "polite"
    assert repr(proxy) == "<proxy of sample@2 provided by polite>"
    blocking: Any = make_proxy(extension_point_of(Sample), _record, plugin="polite", blocking=True)
    assert repr(blocking) == "<blocking proxy of sample@2 provided by polite>"
    with pytest.raises(AttributeError, match=r"sample@2 has no method greet"):
        proxy.greet()


def test_a_provider_that_lacks_methods_gets_a_fault_for_each() -> None:
    names = set(METHODS) - {"simple", "one"} | {"simpel"}
    faults = check_provider(extension_point_of(Sample), names)
    assert [str(fault) for fault in faults] == [
        "provides.sample@2: expected a method simple, found none (it has simpel)",
        "provides.sample@2: expected a method one, found none",
    ]
    assert check_provider(extension_point_of(Sample), set(METHODS)) == []


def test_the_json_schema_describes_every_method_for_other_languages() -> None:
    schema = extension_point_of(Sample).json_schema()
    assert schema["title"] == "sample@2"
    assert set(schema["methods"]) == set(METHODS)
    simple = schema["methods"]["simple"]
    assert simple["params"]["x-order"] == ["name", "times"]
    assert simple["params"]["required"] == ["name"]
    assert simple["params"]["properties"]["times"] == {"type": "integer", "default": 1}
    assert simple["result"] == {"type": "string"}
    assert schema["methods"]["watch"]["items"] == {"$ref": "#/$defs/Resource"}
    assert schema["methods"]["watch"]["stream"] is True


@given(st.lists(st.builds(Resource, id=st.text(), hours=st.integers(-(2**31), 2**31))))
def test_what_the_schema_describes_is_what_is_sent(resources: list[Resource]) -> None:
    schema = extension_point_of(Sample).json_schema()
    params = {**schema["methods"]["rich"]["params"], "$defs": schema["$defs"]}
    Draft202012Validator.check_schema(params)
    validator: Any = Draft202012Validator(params)
    validator.validate(msgspec.to_builtins({"resources": resources}))
    assert not validator.is_valid({"resources": [{"hours": 1}]})
    assert not validator.is_valid({"resources": [], "unknown": 1})
