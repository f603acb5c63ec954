"""Decorators that mark a plugin's functions: `hook`, `tool`, `on_event`, `schedule`.

They change nothing about the function; the marks are read when the plugin is loaded and told to the host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, overload

import msgspec

from cardcage_sdk.cron import parse_cron

F = TypeVar("F", bound=Callable[..., Any])

MARKS: Final = "__cardcage_marks__"

EVENT_PATTERN_CHARS_MAX: Final = 200
PRIORITY_MIN: Final = 1
PRIORITY_MAX: Final = 100


class HookMark(msgspec.Struct, frozen=True):
    """The function takes part in the hook chain `name`; a lower `priority` runs earlier."""

    name: str
    priority: int


class ToolMark(msgspec.Struct, frozen=True):
    """The function is offered to agents. None means: take it from the function's own name and docstring."""

    name: str | None
    description: str | None


class EventMark(msgspec.Struct, frozen=True):
    """The function wants events whose name fits `pattern`."""

    pattern: str


class ScheduleMark(msgspec.Struct, frozen=True):
    """The host calls the function, without arguments, whenever `cron` says."""

    cron: str


Mark = HookMark | ToolMark | EventMark | ScheduleMark


def marks_of(function: Any) -> tuple[Mark, ...]:
    """The marks on a function or bound method, in the order in which they were written, top to bottom."""
    return getattr(function, MARKS, ())


def _marked(function: F, mark: Mark) -> F:
    setattr(function, MARKS, (mark, *marks_of(function)))
    return function


def hook(name: str, priority: int = 50) -> Callable[[F], F]:
    """Let the function take part in the hook `name`, such as `post_cost_analysis`.

    It gets the hook's context and may return a changed one; None leaves the context as it is. `priority` goes from 1
    (first) to 100 (last). Raises ValueError for an empty name or a priority outside of that.
    """
    if not name or not name.strip():
        raise ValueError("a hook needs a name, such as 'post_cost_analysis'")
    if not PRIORITY_MIN <= priority <= PRIORITY_MAX:
        raise ValueError(f"hook {name!r}: expected a priority from {PRIORITY_MIN} to {PRIORITY_MAX}, found {priority}")
    return lambda function: _marked(function, HookMark(name, priority))


@overload
def tool(function: F, /) -> F: ...
@overload
def tool(*, name: str | None = None, description: str | None = None) -> Callable[[F], F]: ...
def tool(function: Any = None, /, *, name: str | None = None, description: str | None = None) -> Any:
    """Offer the function to agents, bare (`@tool`) or with a name and description of its own.

    The JSON Schema of its parameters comes from the annotations, its description from the docstring.
    """
    mark = ToolMark(name, description)

    def offer(offered: F) -> F:
        return _marked(offered, mark)

    return offer if function is None else offer(function)


def on_event(pattern: str) -> Callable[[F], F]:
    """Call the function with `(event_type, data)` for every event whose name fits `pattern`.

    Patterns are those of the shell: `cost.*`, `cost.spike`, `*`. Raises ValueError for an empty or overlong one.
    """
    if not pattern or len(pattern) > EVENT_PATTERN_CHARS_MAX:
        raise ValueError(f"an event pattern has 1 to {EVENT_PATTERN_CHARS_MAX} characters, found {len(pattern)}")
    return lambda function: _marked(function, EventMark(pattern))


def schedule(cron: str) -> Callable[[F], F]:
    """Call the function whenever `cron` says, such as `*/5 * * * *` or `@daily`.

    Raises ValueError for an expression that is not one.
    """
    parse_cron(cron)
    return lambda function: _marked(function, ScheduleMark(cron))
