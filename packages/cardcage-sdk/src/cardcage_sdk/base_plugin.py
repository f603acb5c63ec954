"""The context-and-async-lifecycle spelling: `BasePlugin`, `PluginMetadata`, and the typed interfaces above it.

`status` follows the lifecycle methods whoever calls them, the host or a test: they are wrapped when a subclass is made.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from cardcage_sdk.context import PluginContext
from cardcage_sdk.endpoints import UNIMPLEMENTED
from cardcage_sdk.memory import resident_bytes
from cardcage_sdk.signature import is_async_function
from cardcage_sdk.status import PluginStatus

if TYPE_CHECKING:
    from click import Group

F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class PluginMetadata:
    """Who a plugin is. The host compares it with the manifest."""

    name: str
    version: str
    description: str = ""
    author: str = ""
    license: str = ""
    homepage: str | None = None
    repository: str | None = None
    keywords: list[str] | None = None
    dependencies: list[str] | None = None
    min_aitbc_version: str | None = None
    max_aitbc_version: str | None = None
    supported_platforms: list[str] | None = None


class _Step(NamedTuple):
    """The states of one lifecycle method: while it runs, and after it has succeeded."""

    during: PluginStatus
    after: PluginStatus


_STEPS: Final = {
    "initialize": _Step(PluginStatus.LOADING, PluginStatus.LOADED),
    "start": _Step(PluginStatus.LOADED, PluginStatus.ACTIVE),
    "stop": _Step(PluginStatus.ACTIVE, PluginStatus.INACTIVE),
    "cleanup": _Step(PluginStatus.UNLOADING, PluginStatus.UNLOADED),
}
_FOLLOWED: Final = "__cardcage_followed__"


class Life:
    """What is kept about a plugin beside its `status`. Apart from the object, whose names are the author's."""

    __slots__ = ("busy", "errors", "started_s")

    def __init__(self) -> None:
        self.busy = False
        """A lifecycle method is running. Only the outermost call counts, so that super() changes nothing."""
        self.errors = 0
        self.started_s: float | None = None


def life_of(plugin: BasePlugin) -> Life:
    """The record of this plugin; made when first asked for, since a subclass may not call our `__init__`."""
    return vars(plugin).setdefault("_cardcage_life", Life())


def _optional(function: F) -> F:
    setattr(function, UNIMPLEMENTED, True)
    return function


@contextmanager
def _followed(plugin: BasePlugin, step: _Step) -> Generator[Callable[[Any], Any]]:
    """Keep `status` while a lifecycle method runs. The yielded function notes its answer; without one it has failed."""
    life = life_of(plugin)
    answers: list[Any] = []
    life.busy = True
    plugin.status = step.during
    try:
        yield answers.append
    finally:
        life.busy = False
        plugin.status = step.after if answers and answers[0] is not False else PluginStatus.ERROR
        life.started_s = monotonic() if plugin.status is PluginStatus.ACTIVE else None


def _following(method: Callable[..., Any], step: _Step) -> Callable[..., Any]:
    """The method, plain or `async` as it was, with `status` kept around it."""
    if is_async_function(method):

        async def follow_async(self: BasePlugin, *args: Any, **kwargs: Any) -> Any:
            if life_of(self).busy:
                return await method(self, *args, **kwargs)
            with _followed(self, step) as note:
                answer = await method(self, *args, **kwargs)
                note(answer)
                return answer

        follow = follow_async
    else:

        def follow_plain(self: BasePlugin, *args: Any, **kwargs: Any) -> Any:
            if life_of(self).busy:
                return method(self, *args, **kwargs)
            with _followed(self, step) as note:
                answer = method(self, *args, **kwargs)
                note(answer)
                return answer

        follow = follow_plain
    setattr(follow, _FOLLOWED, True)
    return wraps(method)(follow)


class BasePlugin(ABC):
    """A plugin that is given its context at construction and lives by asynchronous methods.

    Every method has a working default, so a plugin defines what it has. False from a lifecycle method means failure.
    """

    # Class-level defaults, for subclasses whose own __init__ does not call this one.
    context: PluginContext
    metadata: PluginMetadata
    status: PluginStatus = PluginStatus.UNLOADED

    def __init__(self, context: PluginContext) -> None:
        self.context = context
        self.status = PluginStatus.UNLOADED
        self.metadata = self.get_metadata()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, step in _STEPS.items():
            method = getattr(cls, name)
            if not hasattr(method, _FOLLOWED):
                setattr(cls, name, _following(method, step))

    def get_metadata(self) -> PluginMetadata:
        """Who the plugin is; by default what its manifest says."""
        context: PluginContext | None = getattr(self, "context", None)
        return PluginMetadata(name=context.plugin if context else "", version=context.version if context else "")

    async def initialize(self) -> bool:
        """Make ready for work."""
        return True

    async def start(self) -> bool:
        """Begin to work."""
        return True

    async def stop(self) -> bool:
        """Stop working; the plugin may be started again."""
        return True

    async def cleanup(self) -> bool:
        """Let go of everything."""
        return True

    async def health_check(self) -> dict[str, Any]:
        """How the plugin is: `status`, `uptime` in seconds since its start, `memory_usage` in bytes, `error_count`."""
        life = life_of(self)
        # A plugin that keeps its own figures, under the names that this spelling has for them, knows better.
        memory: int | None = getattr(self, "_memory_usage", None)
        return {
            "status": self.status.value,
            "uptime": None if life.started_s is None else monotonic() - life.started_s,
            "memory_usage": resident_bytes() if memory is None else memory,
            "error_count": life.errors + getattr(self, "_error_count", 0),
        }

    async def handle_event(self, event_type: str, data: dict[str, Any]) -> None:  # noqa: B027 - a default, not a gap
        """Take an event that the host broadcasts; ignored by default."""

    def get_config_schema(self) -> dict[str, Any]:
        """The JSON Schema of the config; empty means any."""
        return {}


class CLIPlugin(BasePlugin):
    """A plugin that adds commands to a command line, as click groups."""

    @_optional
    def get_commands(self) -> list[Group]:
        """The command groups."""
        raise NotImplementedError

    def get_command_help(self) -> str:
        """Help for all commands; by default the help of the groups, one after the other."""
        return "\n".join(f"{group.name}: {group.get_short_help_str(limit=100)}" for group in self.get_commands())


class BlockchainPlugin(BasePlugin):
    """A plugin that speaks to a blockchain."""

    @_optional
    async def connect(self, config: dict[str, Any]) -> bool:
        """Connect to the network."""
        raise NotImplementedError

    @_optional
    async def get_balance(self, address: str) -> dict[str, Any]:
        """The balance of an account."""
        raise NotImplementedError

    @_optional
    async def send_transaction(self, tx_data: dict[str, Any]) -> str:
        """Send a transaction and return its hash."""
        raise NotImplementedError

    @_optional
    async def get_contract_events(
        self, contract_address: str, event_name: str, from_block: int | None = None
    ) -> list[dict[str, Any]]:
        """The events that a contract emitted."""
        raise NotImplementedError


class AIPlugin(BasePlugin):
    """A plugin that holds a model."""

    @_optional
    async def predict(self, input_data: dict[str, Any]) -> dict[str, Any]:
        """Make a prediction."""
        raise NotImplementedError

    @_optional
    async def train(self, training_data: list[dict[str, Any]]) -> bool:
        """Train the model."""
        raise NotImplementedError

    @_optional
    def get_model_info(self) -> dict[str, Any]:
        """What model it is."""
        raise NotImplementedError
