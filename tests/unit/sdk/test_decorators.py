"""The marks: what they refuse, and that they change nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cardcage_sdk import hook, on_event, schedule, tool
from cardcage_sdk.decorators import EventMark, HookMark, ScheduleMark, ToolMark, marks_of


def test_a_marked_function_is_the_same_function() -> None:
    def plain(number: int) -> int:
        return number + 1

    marked = tool(hook("post")(schedule("@daily")(on_event("cost.*")(plain))))
    assert marked is plain
    assert marks_of(marked) == (
        ToolMark(None, None),
        HookMark("post", 50),
        ScheduleMark("@daily"),
        EventMark("cost.*"),
    )


def test_an_override_without_the_decorator_has_no_mark() -> None:
    class Base:
        @hook("post")
        def run(self) -> None: ...

    class Derived(Base):
        def run(self) -> None: ...

    assert marks_of(Base.run) == (HookMark("post", 50),)
    assert marks_of(Derived.run) == ()


@pytest.mark.parametrize(
    ("mark", "told"),
    [
        (lambda: hook(""), "needs a name"),
        (lambda: hook("  "), "needs a name"),
        (lambda: hook("post", priority=0), "expected a priority from 1 to 100, found 0"),
        (lambda: hook("post", 101), "found 101"),
        (lambda: on_event(""), "1 to 200 characters, found 0"),
        (lambda: on_event("x" * 201), "found 201"),
        (lambda: schedule("often"), "expected 5 fields"),
    ],
)
def test_a_wrong_mark_is_refused_where_it_is_written(mark: Callable[[], Any], told: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        mark()
    assert told in str(caught.value)
