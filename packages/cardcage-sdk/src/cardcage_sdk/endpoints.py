"""What can be called in a plugin: public methods, hooks, tools, event handlers and schedules, found once at load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, Final

import msgspec

from cardcage_sdk.decorators import EventMark, HookMark, ScheduleMark, ToolMark, marks_of
from cardcage_sdk.entrypoint import Style, own_functions
from cardcage_sdk.signature import (
    Signature,
    in_sdk,
    is_async_function,
    is_convertible,
    is_stream_function,
    plain_function,
    signature_of,
)
from cardcage_sdk.wire import Session

_NO_NAMES: Final[Mapping[str, Any]] = {}

UNIMPLEMENTED: Final = "__cardcage_unimplemented__"
"""Marks an interface's method that a plugin may leave out; it is then not told to the host."""

_SHARED: Final = frozenset(
    {"initialize", "start", "stop", "cleanup", "health_check", "handle_event", "get_config_schema"}
)
LIFECYCLE: Final = {
    Style.PLUGIN: _SHARED,
    Style.CLASS: _SHARED,
    Style.MODULE: _SHARED,
    Style.BASE_PLUGIN: _SHARED | {"get_metadata"},
    Style.CLOUDMIND: _SHARED | {"load", "validate", "capabilities", "shutdown"},
    Style.PLUGIN_BASE: _SHARED | {"get_tools"},
}
"""The methods that the host reaches through the lifecycle and not by name, for each spelling."""


class AttributeMap(dict[str, Any]):
    """A map whose keys are attributes too, all the way down: `context.daily_spike`.

    A key that has the name of a method of maps (`items`) is the key: what the data says goes first.
    """

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__") and name in self:
            return self[name]
        return super().__getattribute__(name)

    def __getattr__(self, name: str) -> Any:
        known = ", ".join(map(str, self)) or "nothing"
        raise AttributeError(f"the context has no {name!r} (it has: {known})")

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


class Endpoint:
    """One function that the host can have called. Its types are resolved when it is first used."""

    __slots__ = ("_bases", "_read_exact", "_signature", "doc", "function", "is_stream", "label", "name", "quick")

    def __init__(self, name: str, function: Callable[..., Any], *, bases: Sequence[Callable[..., Any]] = ()) -> None:
        self.name = name
        self.function = function
        self.label = f'method "{name}"'
        self.is_stream = is_stream_function(function)
        self.doc = clean_doc(function.__doc__)
        self.quick = False
        """Whether its last run was short, so that an answer before it may wait for its own."""
        self._bases = bases
        self._signature: Signature | None = None
        self._read_exact: Callable[[msgspec.Raw], Sequence[Any]] | None = None

    @property
    def signature(self) -> Signature:
        """The function's parameters and their types."""
        if self._signature is None:
            self._signature = signature_of(self.label, self.function, bases=self._bases)
        return self._signature

    def bind(self, raw: msgspec.Raw, session: Session) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """The positional and named arguments of a call, as the function declares them. Raises `InvalidArguments`.

        Nearly every call gives all of them by position; these are read in one step, by a reader made once.
        """
        read = self._read_exact
        if read is None:
            exact = self.signature.exact
            if exact is None:
                return self.signature.bind(raw, session.decode)
            read = self._read_exact = session.reader(exact)
        try:
            return read(raw), _NO_NAMES
        except (ValueError, TypeError, RecursionError):
            return self.signature.bind(raw, session.decode)  # the careful way, which tells what is wrong

    def call_with_context(self, context: Any) -> Any:
        """Call a hook: with its context as the type that it declares, or as a map with attributes."""
        parameters = self.signature.parameters
        if not parameters and not self.signature.rest:
            return self.function()
        if parameters and is_convertible(parameters[0].type):
            return self.function(*self.signature.bind_positional([context]))
        return self.function(with_attributes(context))


class Endpoints(msgspec.Struct):
    """All endpoints of one plugin."""

    methods: dict[str, Endpoint]
    """Public, and told to the host."""
    callable: dict[str, Endpoint]
    """What may be called by name: the methods, and those with a schedule."""
    hooks: list[tuple[HookMark, Endpoint]]
    events: list[tuple[EventMark, Endpoint]]
    schedules: list[tuple[ScheduleMark, Endpoint]]
    tools: dict[str, tuple[ToolMark, Endpoint]]

    def add_tool(self, function: Callable[..., Any]) -> None:
        """Offer a function to agents, marked or plain."""
        mark = next((mark for mark in marks_of(function) if isinstance(mark, ToolMark)), ToolMark(None, None))
        name = mark.name or getattr(function, "__name__", type(function).__name__)
        endpoint = Endpoint(name, function)
        endpoint.label = f'tool "{name}"'
        self.tools[name] = (mark, endpoint)


def endpoints_of(plugin: Any, style: Style) -> Endpoints:
    """Find all that a plugin offers."""
    found = Endpoints({}, {}, [], [], [], {})
    for name, function, bases in _functions_of(plugin):
        endpoint = Endpoint(name, function, bases=bases)
        if not name.startswith("_") and name not in LIFECYCLE[style]:
            found.methods[name] = found.callable[name] = endpoint
        for mark in marks_of(function):
            match mark:
                case HookMark():
                    found.hooks.append((mark, endpoint))
                case EventMark():
                    found.events.append((mark, endpoint))
                case ScheduleMark():
                    found.schedules.append((mark, endpoint))
                    found.callable[name] = endpoint
                case ToolMark():
                    found.add_tool(function)
    return found


def is_asynchronous(found: Any) -> bool:
    """Whether a class, object or module has `async def` functions of its own, not merely this package's defaults."""
    if isinstance(found, ModuleType):
        return any(is_async_function(function) for function in own_functions(found).values())
    cls = found if isinstance(found, type) else type(found)
    return any(
        is_async_function(value) and not in_sdk(value) and (not name.startswith("_") or bool(marks_of(value)))
        for name, value in _class_attributes(cls)
    )


def clean_doc(text: str | None) -> str:
    """A docstring without its indentation."""
    if not text:
        return ""
    first, *rest = text.expandtabs().strip().splitlines()
    margin = min((len(line) - len(line.lstrip()) for line in rest if line.strip()), default=0)
    return "\n".join([first.strip(), *(line[margin:].rstrip() for line in rest)])


def with_attributes(value: Any) -> Any:
    """Plain data with its maps made `AttributeMap`s."""
    if isinstance(value, dict):
        return AttributeMap({key: with_attributes(item) for key, item in value.items()})  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list):
        return [with_attributes(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _functions_of(plugin: Any) -> Iterator[tuple[str, Callable[..., Any], Sequence[Callable[..., Any]]]]:
    """Name, bound function, and the functions that it overrides."""
    if isinstance(plugin, ModuleType):
        for name, function in own_functions(plugin).items():
            yield name, function, ()
        return
    cls: type[Any] = plugin.__class__
    for name, value in _class_attributes(cls):
        if (name.startswith("_") and not marks_of(value)) or getattr(value, UNIMPLEMENTED, False):
            continue
        overridden = [base.__dict__[name] for base in cls.__mro__ if name in base.__dict__]
        yield name, getattr(plugin, name), overridden[1:]


def _class_attributes(cls: type) -> Iterator[tuple[str, Any]]:
    """The functions of a class as they stand in it and its bases, in the order of their definition, bases first."""
    names: dict[str, None] = {}
    for base in reversed(cls.__mro__):
        if base is not object:
            names.update(dict.fromkeys(vars(base)))
    for name in names:
        if name.startswith("__"):
            continue
        value = next((base.__dict__[name] for base in cls.__mro__ if name in base.__dict__), None)
        if not isinstance(value, type | property) and (plain_function(value) is not None or _is_callable_object(value)):
            yield name, value


def _is_callable_object(value: Any) -> bool:
    return callable(value) and not isinstance(value, type)
