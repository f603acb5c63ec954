"""Source that is written from an extension point: it names what plugins can import, and answers in the right types."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, Literal, Protocol

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.cli.scaffold import Scaffold, check_name, files
from cardcage.cli.stubs import stub_of
from cardcage.contracts import extension_point, extension_point_of
from cardcage.foundation.errors import Misuse
from cardcage.foundation.names import is_plugin_name

HERE = __name__.split(".")[0]


class Color(Enum):
    RED = "red"
    BLUE = "blue"


class Spot(msgspec.Struct, kw_only=True):
    at: Annotated[int, msgspec.Meta(ge=0)]
    color: Color
    price: Decimal
    kind: Literal["a", "b"]
    tags: list[str] = []


@dataclass
class Box:
    spots: list[Spot]
    name: str = "box"


@extension_point("painter", version=2)
class Painter(Protocol):
    """Paints "things" \\ well.

    And more."""

    async def paint(self, spot: Spot, times: int = 3) -> Box | None:
        """Paint a spot."""
        ...

    async def best(self) -> Spot: ...

    def watch(self, names: list[str], options: dict[str, Any]) -> AsyncIterator[Box]: ...


def test_types_of_libraries_are_imported_and_named() -> None:
    stub = stub_of(extension_point_of(Painter), {HERE})
    paint, best, watch = stub.methods
    assert (paint.parameters, paint.result) == (", spot: Spot, times: int = 3", "Box | None")
    assert best.body == "return Spot(at=0, color=Color.RED, price=Decimal(0), kind='a')"
    assert (watch.parameters, watch.result) == (", names: list[str], options: dict[str, Any]", "Iterator[Box]")
    assert watch.body == "yield from ()"
    assert stub.imports[__name__] == ("Box", "Color", "Spot")
    assert stub.imports["decimal"] == ("Decimal",)


def test_types_that_plugins_cannot_import_are_plain_data() -> None:
    stub = stub_of(extension_point_of(Painter), ())
    paint, best, _ = stub.methods
    assert paint.parameters == ", spot: Any, times: int = 3"
    assert best.body == 'return {"at": 0, "color": \'red\', "price": Decimal(0), "kind": \'a\'}'
    assert __name__ not in stub.imports


@pytest.mark.parametrize("libraries", [{HERE}, frozenset[str]()])
def test_what_is_written_compiles(libraries: set[str]) -> None:
    stub = stub_of(extension_point_of(Painter), libraries)
    made = files(Scaffold(name="my-painter", type="painter", ref="painter@2", stub=stub))
    for path in ("plugin.py", "tests/test_plugin.py"):
        compile(made[path], path, "exec")
    assert "class MyPainter(Plugin):" in made["plugin.py"]


@given(st.text(max_size=120))
def test_exactly_the_names_that_the_platform_takes_are_taken(name: str) -> None:
    if is_plugin_name(name):
        check_name(name)
    else:
        with pytest.raises(Misuse, match="cannot name a plugin"):
            check_name(name)
