"""A host for the length of one command: the state folder opened, a manager over it, the log kept, all closed again."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from cardcage.cli import environment
from cardcage.cli.host_file import read_host_file, with_isolation
from cardcage.cli.logs import LogFiles, LogRecorder
from cardcage.foundation.errors import Misuse
from cardcage.foundation.limits import STOP_TIMEOUT_S
from cardcage.foundation.names import InstanceId

if TYPE_CHECKING:
    from cardcage.manager import PluginManager
    from cardcage.manager.home import Home
    from cardcage.registry import InstalledPlugin, InstanceRecord, Store
    from cardcage.runtime import LogLine, RuntimePolicy

Watch = Callable[[str, "LogLine"], None]

UNCONFINED_BANNER: Final = (
    "!! UNCONFINED: plugins run WITHOUT WALLS, with all rights of this user over files, network and processes !!"
)

_HANG_GRACE_S: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """What commands work with. `store` is the registry itself, whatever the manager is told to try out."""

    manager: PluginManager
    store: Store
    home: Home
    logs: LogFiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The plugin and instance that a command names: `NAME` or `NAME/LABEL`."""

    plugin: str
    label: str | None

    @classmethod
    def parse(cls, text: str) -> Target:
        plugin, _, label = text.partition("/")
        return cls(plugin=plugin, label=label or None)

    @property
    def instance(self) -> str:
        return f"{self.plugin}/{self.label}" if self.label else self.plugin


@contextlib.asynccontextmanager
async def open_host(
    state_dir: Path | None,
    *,
    target: Target | None = None,
    config: dict[str, Any] | None = None,
    grants: list[str] | None = None,
    timeout_s: float | None = None,
    isolation: str = "process",
    policy: str | None = None,
    watch: Watch | None = None,
) -> AsyncGenerator[Host]:
    """Open the state folder and a manager. Nothing is started.

    With a `target`, its instance is used with this `config` and these `grants` where they are given, and with those
    that are remembered otherwise; nothing of it is remembered. `isolation` is that of the target's plugin alone.
    `watch` sees each log line with its plugin's name. The host configuration is `host.yaml` of the state folder.
    """
    from cardcage.cli.trial import TrialStore
    from cardcage.manager import PluginManager
    from cardcage.manager.home import Home, default_state_dir
    from cardcage.storage import SqlStore

    home = Home.open(state_dir or default_state_dir())
    store = SqlStore(home.registry)
    trial: TrialStore | None = None
    try:
        if target is not None:
            trial = TrialStore(store, trial_record(store, target, config=config, grants=grants))
        files = LogFiles(home.root)
        instances = {target.plugin: target.instance} if target else {}
        document = read_host_file(home.root)
        if target is not None and isolation != "process":
            document = with_isolation(document, target.plugin, isolation)
        manager = PluginManager(
            document,
            state_dir=home.root,
            store=trial or store,
            auto_start=False,
            policy=policy,
            deadlines=_deadlines(timeout_s),
        )
        with _recorded(LogRecorder(files, instances, watch)), _warned_loudly():
            async with manager:
                yield Host(manager=manager, store=store, home=home, logs=files)
    finally:
        if trial is not None:
            trial.forget_blank()
        store.close()


def trial_record(
    store: Store, target: Target, *, config: dict[str, Any] | None, grants: list[str] | None
) -> InstanceRecord:
    """The instance as it is remembered, with `config` and `grants` in place of its own where they are given."""
    from cardcage.registry import InstanceRecord

    record = store.instance(InstanceId(target.instance)) or InstanceRecord(
        id=InstanceId(target.instance), plugin=target.plugin, label=target.label
    )
    if config is not None:
        record = replace(record, config=config)
    if grants:
        record = replace(record, grants=tuple(grants))
    return record


def installed(store: Store, target: Target) -> InstalledPlugin:
    """The plugin that is named. Raises `Misuse` where none of that name is registered."""
    plugin = store.plugin(target.plugin)
    if plugin is None:
        known = ", ".join(each.name for each in store.plugins()) or "none"
        raise Misuse(
            f"no plugin {target.plugin!r} is registered (registered: {known})",
            code="unknown_plugin",
            hint="register one: cardcage plugin load PATH",
            plugin=target.plugin,
        )
    return plugin


def _deadlines(timeout_s: float | None) -> RuntimePolicy:
    from cardcage.runtime import RuntimePolicy

    if timeout_s is None:
        return RuntimePolicy()
    # What missed its deadline is ended with the command anyway, so it gets little time to say that it is alive.
    return RuntimePolicy(
        call_timeout_s=timeout_s,
        start_timeout_s=timeout_s,
        stop_timeout_s=min(timeout_s, STOP_TIMEOUT_S),
        hang_grace_s=min(timeout_s, _HANG_GRACE_S),
    )


@contextlib.contextmanager
def _recorded(recorder: LogRecorder) -> Generator[None]:
    logger = logging.getLogger("cardcage.plugin")
    before = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    logger.addHandler(recorder)
    try:
        yield
    finally:
        logger.removeHandler(recorder)
        logger.level, logger.propagate = before


@contextlib.contextmanager
def _warned_loudly() -> Generator[None]:
    """Say in capitals what Python would whisper as a warning."""
    from cardcage.manager import UnconfinedWarning

    def show(message: Warning | str, category: type[Warning], *rest: Any, **named: Any) -> None:
        if issubclass(category, UnconfinedWarning):
            coloured = sys.stderr.isatty() and not os.environ.get(environment.NO_COLOR)
            banner = f"\x1b[1;41;97m{UNCONFINED_BANNER}\x1b[0m" if coloured else UNCONFINED_BANNER
            print(banner, file=sys.stderr, flush=True)
        else:
            print(f"cardcage: warning: {message}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", UnconfinedWarning)
        warnings.showwarning = show
        yield
