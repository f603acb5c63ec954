"""What a plugin is given: its config and folders, a logger, the event bus, the host's services, metrics.

All of it speaks through a `HostLink`, which the wire connection implements in a served plugin and
`cardcage_sdk.testing` in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from cardcage_sdk.wire import Call

if TYPE_CHECKING:
    import logging

    from cardcage_sdk.data_store import DataStore

EventCallback = Callable[[str, Any], Any]


class HostError(Exception):
    """The host refused or failed a call of the plugin. `code` is stable (`refused`, `method_not_found`, ...)."""

    def __init__(self, code: str, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class CallCancelled(Exception):
    """Raised by `CurrentCall.check()` when the caller no longer wants the answer, or its deadline has passed."""


class HostLink(Protocol):
    """The way to the host. `call` blocks until the answer is there, `acall` awaits it; the others never wait."""

    def call(self, name: str, args: Sequence[Any] | Mapping[str, Any], timeout_s: float | None) -> Any: ...

    async def acall(self, name: str, args: Sequence[Any] | Mapping[str, Any], timeout_s: float | None) -> Any: ...

    def publish(self, event_type: str, data: Any) -> None: ...

    def subscribe(self, pattern: str) -> None: ...

    def log(self, level: str, message: str, fields: Mapping[str, Any] | None) -> None: ...

    def metric(self, name: str, kind: str, value: float, tags: Mapping[str, str] | None) -> None: ...


class Done:
    """What `publish` and `subscribe` return: it is done already, and may be awaited all the same."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_DONE = Done()


class EventBus:
    """Publishes past-tense facts to the host's bus and takes those that others published."""

    def __init__(self, link: HostLink) -> None:
        self._link = link
        self._subscriptions: list[tuple[str, EventCallback]] = []

    def publish(self, event_type: str, data: Any = None) -> Done:
        """Tell the bus that something happened. Returns at once; need not be awaited."""
        self._link.publish(event_type, data)
        return _DONE

    def subscribe(self, pattern: str, callback: EventCallback) -> Done:
        """Call `callback(event_type, data)` for every event whose name fits `pattern` (`cost.*`); plain or async.

        The host may refuse, which raises `HostError` in a blocking plugin and is logged in an asynchronous one.
        """
        entry = (pattern, callback)
        self._subscriptions.append(entry)
        try:
            self._link.subscribe(pattern)
        except BaseException:
            self._subscriptions.remove(entry)
            raise
        return _DONE

    def unsubscribe(self, pattern: str, callback: EventCallback) -> None:
        """Stop calling `callback` for `pattern`. Harmless where it was not subscribed."""
        self._subscriptions = [entry for entry in self._subscriptions if entry != (pattern, callback)]

    def callbacks(self, event_type: str) -> list[EventCallback]:
        """The callbacks that an event of this name is for."""
        return [callback for pattern, callback in self._subscriptions if fnmatchcase(event_type, pattern)]


class ApiClient:
    """Calls the services that the host offers, each guarded by a grant.

    `api_client.call("finops.alerts.trigger", "Spike")` and `api_client.finops.alerts.trigger("Spike")` are the same.
    They wait for the answer and work everywhere. In an `async def` prefer `await api_client.acall(name, ...)`: `call`
    would keep the plugin's other calls waiting.
    """

    def __init__(self, link: HostLink) -> None:
        self._link = link

    def call(self, name: str, *args: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """Call a service and wait. Raises `HostError`; TimeoutError after `timeout_s`."""
        return self._link.call(name, _arguments(name, args, named), timeout_s)

    async def acall(self, name: str, *args: Any, timeout_s: float | None = None, **named: Any) -> Any:
        """The same, awaited. Cancelling it cancels the call at the host."""
        return await self._link.acall(name, _arguments(name, args, named), timeout_s)

    def __getattr__(self, name: str) -> Service:
        if name.startswith("_"):
            raise AttributeError(name)
        return Service(self, name)


class Service:
    """A dotted name below `api_client`, callable: `api_client.finops.alerts.trigger(...)`."""

    __slots__ = ("_client", "_name")

    def __init__(self, client: ApiClient, name: str) -> None:
        self._client = client
        self._name = name

    def __getattr__(self, name: str) -> Service:
        if name.startswith("_"):
            raise AttributeError(name)
        return Service(self._client, f"{self._name}.{name}")

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._client.call(self._name, *args, **named)


class Metrics:
    """Measurements of the plugin's own, sent to the host."""

    def __init__(self, link: HostLink) -> None:
        self._link = link

    def counter(self, name: str, increment: float = 1.0, **tags: str) -> None:
        """Add to a counter."""
        self._link.metric(name, "counter", increment, tags or None)

    def gauge(self, name: str, value: float, **tags: str) -> None:
        """Set a gauge."""
        self._link.metric(name, "gauge", value, tags or None)

    def histogram(self, name: str, value: float, **tags: str) -> None:
        """Note one observation."""
        self._link.metric(name, "histogram", value, tags or None)


@dataclass
class PluginContext:
    """What the host provides a plugin with while it runs. The folders are paths as the plugin sees them."""

    config: dict[str, Any]
    data_dir: str
    temp_dir: str
    logger: Any
    event_bus: Any
    api_client: Any
    metrics: Any = None
    plugin: str = ""
    version: str = ""
    instance: str = ""
    permissions: tuple[str, ...] = ()
    """What it asked for and was granted, in the spelling of manifests: `read:/srv/bill.csv`."""
    missing_permissions: tuple[str, ...] = ()
    """What it asked for as optional and was not granted."""
    data_store: Any = field(default_factory=lambda: None)
    """The plugin's own data, kept by the host: a `cardcage_sdk.data_store.DataStore`."""
    secrets: dict[str, str] = field(default_factory=dict[str, str], repr=False)
    """The secrets that were granted to it, by name. They are in no text that is made of the context."""

    def has_permission(self, permission: str) -> bool:
        """Whether the host granted this permission, spelt as in `permissions`."""
        return permission in self.permissions


class LinkedContext(PluginContext):
    """A context whose parts speak through a link. The logger and the data store are made when they are first used: many
    plugins need neither."""

    def __init__(self, link: HostLink, settings: Mapping[str, Any]) -> None:
        self.config = dict(settings.get("config") or {})
        self.data_dir = settings.get("data_dir") or ""
        self.temp_dir = settings.get("temp_dir") or ""
        self.event_bus = EventBus(link)
        self.api_client = ApiClient(link)
        self.metrics = Metrics(link)
        self.plugin = settings.get("plugin") or "plugin"
        self.version = settings.get("version") or ""
        self.instance = settings.get("instance") or self.plugin
        self.secrets = dict(settings.get("secrets") or {})
        self.permissions = tuple(settings.get("permissions") or ())
        self.missing_permissions = tuple(settings.get("missing_permissions") or ())
        self._link = link
        self._log_level: str = settings.get("log_level") or "info"

    def __getattr__(self, name: str) -> Any:
        if name == "logger":
            return self.open_logger()
        if name == "data_store":
            return self.open_data_store()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def open_data_store(self) -> DataStore:
        """The way to what the host keeps for this plugin. Nothing is asked of the host before it is used."""
        from cardcage_sdk.data_store import DataStore

        self.data_store = DataStore(self._link)
        return self.data_store

    def open_logger(self) -> logging.Logger:
        """Attach Python's logging to the link, and return the plugin's own logger."""
        from cardcage_sdk.logs import plugin_logger

        self.logger = plugin_logger(self._link, self.plugin, self._log_level)
        return self.logger


class CurrentCall(msgspec.Struct, eq=False):
    """The call that is being answered: how long there is, and whether the answer is still wanted.

    One is made for every call, so it is a struct, and what few ask for is worked out when they do.
    """

    call: Call
    deadline_s: float | None
    _look: Callable[[], None] | None = None
    cancelled_reason: str | None = None
    _label: str | None = None

    @property
    def method(self) -> str:
        """The name by which the host called."""
        return self.call.method

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the host told of the call besides its arguments."""
        return self.call.meta or {}

    @property
    def label(self) -> str:
        """What is running, as an error names it: of a hook or a tool, the function of the plugin's."""
        return self._label or f'method "{self.method}"'

    @label.setter
    def label(self, label: str) -> None:
        self._label = label

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, negative once it has passed; None where the call has none."""
        return None if self.deadline_s is None else self.deadline_s - monotonic()

    @property
    def cancelled(self) -> bool:
        """Whether the caller has withdrawn. Looks for a message that says so, without waiting."""
        if self.cancelled_reason is None and self._look is not None:
            self._look()
        return self.cancelled_reason is not None

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline_s is not None and monotonic() >= self.deadline_s

    def check(self) -> None:
        """Raise `CallCancelled` where the answer is no longer wanted: for loops that take long."""
        if self.cancelled:
            raise CallCancelled(self.cancelled_reason or "cancelled")
        if self.expired:
            raise CallCancelled("the deadline has passed")


_context: PluginContext | None = None
_call: ContextVar[CurrentCall | None] = ContextVar("cardcage_call", default=None)


def current_context() -> PluginContext:
    """The context of the plugin that this process runs. Raises RuntimeError where none is loaded."""
    if _context is None:
        raise RuntimeError("no plugin is loaded in this process, so there is no current context")
    return _context


def set_current_context(context: PluginContext | None) -> PluginContext | None:
    """Make `context` the current one; returns the one before. For whatever runs plugins."""
    global _context
    before, _context = _context, context
    return before


def current_call() -> CurrentCall | None:
    """The call that is being answered, or None outside of one."""
    return _call.get()


set_current_call: Callable[[CurrentCall | None], object] = _call.set
"""Makes a call the current one in this thread or task. For whatever runs plugins."""


def _arguments(name: str, args: tuple[Any, ...], named: dict[str, Any]) -> Sequence[Any] | Mapping[str, Any]:
    if args and named:
        raise TypeError(f"{name}: pass the arguments by position or by name, not both")
    return named or args
