"""Services: what may be declared, and what a table of them takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import pytest

from cardcage.broker import PluginInfo, ServiceTable
from cardcage.contracts import service, service_of
from cardcage.foundation.errors import Misuse, Refused
from cardcage.permissions import Decision, Grants

CALLER = PluginInfo(name="ocr", version="1.0.0", isolation="process", instance="ocr")
GRANTED = Grants.parse(["capability:Sums"])


@service("sums", capability="Sums")
class Sums(Protocol):
    """Adds."""

    async def add(self, numbers: list[int], more: int = 0) -> int:
        """The sum."""
        ...

    def plain(self, text: str | None = None) -> str:
        """Not awaited."""
        ...


class Adding:
    async def add(self, caller: PluginInfo, numbers: list[int], more: int) -> int:
        return sum(numbers) + more

    def plain(self, caller: PluginInfo, text: str | None) -> str:
        return f"{caller.name} {text}"


@pytest.fixture
def table() -> ServiceTable:
    made = ServiceTable()
    made.offer(Sums, Adding())
    return made


def test_what_was_declared_can_be_read() -> None:
    interface = service_of(Sums)
    assert (interface.name, interface.capability, list(interface.methods)) == ("sums", "Sums", ["add", "plain"])
    assert interface.methods["add"].doc == "The sum."


@pytest.mark.parametrize(
    ("args", "answer"), [([[1, 2]], 3), ([[1, 2], 3], 6), ({"numbers": [1], "more": 2}, 3), ([[0]], 0)]
)
async def test_arguments_come_by_place_or_by_name_with_defaults(table: ServiceTable, args: Any, answer: int) -> None:
    assert await table.call(CALLER, GRANTED, "sums.add", args) == answer


async def test_a_plain_method_answers_too(table: ServiceTable) -> None:
    assert await table.call(CALLER, GRANTED, "sums.plain", []) == "ocr None"


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ([[1, "2"]], "numbers[1]"),
        ([["1"]], "numbers[0]"),
        ({"number": [1]}, 'needs "numbers"'),
        ([1], 'expected list[int] for "numbers", but found int 1'),
        ([[1], 2, 3], "takes 2 arguments"),
        ([[True]], "numbers[0]"),
    ],
)
async def test_a_wrong_argument_is_refused_with_its_place(table: ServiceTable, args: Any, named: str) -> None:
    with pytest.raises(Misuse) as raised:
        await table.call(CALLER, GRANTED, "sums.add", args)
    assert raised.value.code == "invalid_params"
    assert named in raised.value.message


async def test_without_the_capability_arguments_are_not_even_looked_at() -> None:
    told: list[Decision] = []
    table = ServiceTable(on_decision=lambda caller, name, decision: told.append(decision))
    table.offer(Sums, Adding())
    with pytest.raises(Refused, match="not granted"):
        await table.call(CALLER, Grants(), "sums.add", ["nonsense"])
    assert [decision.allowed for decision in told] == [False]
    assert "Sums" in table.capabilities


def test_a_service_is_a_protocol_without_streams_whose_types_can_travel() -> None:
    with pytest.raises(Misuse, match="Protocol class"):
        service("a", capability=None)(Adding)

    class Streaming(Protocol):
        def follow(self) -> AsyncIterator[int]: ...

    with pytest.raises(Misuse, match="is a stream"):
        service("a", capability=None)(Streaming)

    class Untyped(Protocol):
        def take(self, value) -> None: ...  # type: ignore[no-untyped-def]  # pyright: ignore

    with pytest.raises(Misuse, match="has no type"):
        service("a", capability=None)(Untyped)

    with pytest.raises(Misuse, match="lower-case name"):
        service("Not A Name", capability=None)(Streaming)
    with pytest.raises(Misuse, match="is not a service"):
        service_of(Adding)


def test_a_name_is_offered_once(table: ServiceTable) -> None:
    with pytest.raises(Misuse, match="registered already") as raised:
        table.offer(Sums, Adding())
    assert raised.value.code == "duplicate_service"
