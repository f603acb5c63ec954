"""Protocols become extension points, or are refused where they are written."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import msgspec
import pytest

from cardcage.contracts import extension_point, extension_point_of, idempotent, index_points
from cardcage.foundation.errors import Misuse
from cardcage.foundation.names import InterfaceRef


class Resource(msgspec.Struct):
    id: str
    hours: int = 0


@extension_point("optimizer", version=3, exclusive=True)
class Optimizer(Protocol):
    """Finds savings."""

    async def analyze(self, resource: Resource, metrics: dict[str, Any], limit: int = 10) -> list[str]:
        """Look at one resource."""
        ...

    @idempotent
    def describe(self) -> str: ...

    def follow(self, since: float | None = None) -> AsyncIterator[Resource]: ...

    def lines(self) -> Iterator[str]: ...

    async def forget(self, resource_id: str) -> None: ...


def test_an_extension_point_holds_what_the_protocol_says() -> None:
    point = extension_point_of(Optimizer)
    assert point.ref == InterfaceRef("optimizer", 3)
    assert point.protocol is Optimizer
    assert point.exclusive
    assert point.doc == "Finds savings."
    assert list(point.methods) == ["analyze", "describe", "follow", "lines", "forget"]
    analyze = point.methods["analyze"]
    assert [(parameter.name, parameter.type) for parameter in analyze.parameters] == [
        ("resource", Resource),
        ("metrics", dict[str, Any]),
        ("limit", int),
    ]
    assert [parameter.required for parameter in analyze.parameters] == [True, True, False]
    assert analyze.parameters[2].default == 10
    assert analyze.result_type == list[str]
    assert analyze.doc == "Look at one resource."
    assert not analyze.stream
    assert not analyze.idempotent
    assert point.methods["describe"].idempotent
    assert point.methods["forget"].result_type is type(None)


def test_a_method_that_returns_an_iterator_is_a_stream_of_its_items() -> None:
    methods = extension_point_of(Optimizer).methods
    assert (methods["follow"].stream, methods["follow"].item_type) == (True, Resource)
    assert (methods["lines"].stream, methods["lines"].item_type) == (True, str)


def test_types_that_stand_beside_the_class_in_a_function_are_found() -> None:
    class Local(msgspec.Struct):
        name: str

    @extension_point("local")
    class UsesLocal(Protocol):
        def take(self, value: Local) -> Local: ...

    assert extension_point_of(UsesLocal).methods["take"].result_type is Local


def test_methods_of_the_protocols_it_extends_belong_to_it() -> None:
    class Base(Protocol):
        def name(self) -> str: ...

    @extension_point("derived")
    class Derived(Base, Protocol):
        def size(self) -> int: ...

    assert list(extension_point_of(Derived).methods) == ["name", "size"]


def test_a_runtime_checkable_protocol_still_checks_methods_only() -> None:
    @runtime_checkable
    @extension_point("sized")
    class Sized(Protocol):
        def size(self) -> int: ...

    class Good:
        def size(self) -> int:
            return 1

    assert isinstance(Good(), Sized)
    assert not isinstance(object(), Sized)


def test_a_subclass_is_not_the_extension_point_itself() -> None:
    class Mine(Optimizer):
        pass

    with pytest.raises(Misuse, match="Mine is not an extension point"):
        extension_point_of(Mine)


def _not_a_protocol() -> None:
    @extension_point("bad")
    class Bad:  # pyright: ignore[reportUnusedClass]
        def method(self) -> int:
            return 1


def _unannotated_parameter() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self, value) -> int: ...  # type: ignore[no-untyped-def]  # pyright: ignore


def _no_result_type() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self, value: int): ...  # type: ignore[no-untyped-def]  # pyright: ignore


def _any_number_of_arguments() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self, *values: int) -> int: ...


def _any_names() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self, **values: int) -> int: ...


def _keyword_only() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self, *, value: int) -> int: ...


def _twice() -> None:
    @extension_point("bad", version=2)
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self) -> int: ...


def _unknown_type() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self, value: Nowhere) -> int: ...  # type: ignore[name-defined] # noqa: F821 # pyright: ignore


def _type_that_cannot_travel() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self, value: Callable[[], int]) -> int: ...


def _result_that_cannot_travel() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self) -> object: ...


def _stream_by_coroutine() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        async def method(self) -> AsyncIterator[int]: ...


def _stream_of_anything() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self) -> AsyncIterator: ...  # type: ignore[type-arg]  # pyright: ignore


def _attribute() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        size: int

        def method(self) -> int: ...


def _static() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        @staticmethod
        def method() -> int: ...


def _private() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def _method(self) -> int: ...


def _reserved() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def plugin(self) -> int: ...


def _empty() -> None:
    @extension_point("bad")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        pass


def _bad_name() -> None:
    @extension_point("Bad Name")
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self) -> int: ...


def _bad_version() -> None:
    @extension_point("bad", version=0)
    class Bad(Protocol):  # pyright: ignore[reportUnusedClass]
        def method(self) -> int: ...


@pytest.mark.parametrize(
    ("define", "words"),
    [
        (_not_a_protocol, "must be a typing.Protocol class"),
        (_unannotated_parameter, "bad@1.method: parameter value has no type"),
        (_no_result_type, "bad@1.method has no result type"),
        (_any_number_of_arguments, r"takes \*values"),
        (_any_names, r"takes \*\*values"),
        (_keyword_only, "value is keyword-only"),
        (_twice, "is already the extension point bad@1"),
        (_unknown_type, "cannot be resolved: name 'Nowhere'"),
        (_type_that_cannot_travel, "type of parameter value cannot cross a process"),
        (_result_that_cannot_travel, "type of result cannot cross a process"),
        (_stream_by_coroutine, "declared with `def`, not `async def`"),
        (_stream_of_anything, "names the type of its items"),
        (_attribute, "size is an attribute"),
        (_static, "is a staticmethod"),
        (_private, "starts with an underscore"),
        (_reserved, "the proxy uses itself"),
        (_empty, "has no methods"),
        (_bad_name, "found 'Bad Name' and 1"),
        (_bad_version, "found 'bad' and 0"),
    ],
)
def test_a_definition_that_cannot_be_called_from_outside_is_refused(define: Callable[[], None], words: str) -> None:
    with pytest.raises(Misuse, match=words) as caught:
        define()
    assert caught.value.code == "bad_extension_point"


def test_two_classes_that_claim_one_reference_are_refused_by_name() -> None:
    @extension_point("twin")
    class First(Protocol):
        def method(self) -> int: ...

    @extension_point("twin")
    class Second(Protocol):
        def method(self) -> int: ...

    assert list(index_points([First, First, Optimizer])) == [InterfaceRef("twin", 1), InterfaceRef("optimizer", 3)]
    with pytest.raises(Misuse, match=r"twin@1 is defined twice: by .*First and by .*Second"):
        index_points([First, Second])


def test_what_is_no_extension_point_is_said_to_be_none() -> None:
    with pytest.raises(Misuse, match="int is not an extension point") as caught:
        extension_point_of(int)
    assert "@extension_point" in (caught.value.hint or "")
