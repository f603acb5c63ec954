"""The same manager for programs without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from cardcage import Misuse, PluginFault, extension_point
from cardcage.blocking import PluginManager
from cardcage.supervise import PluginState

WritePlugin = Callable[..., Path]


@extension_point("counter", version=1)
class Counter(Protocol):
    def double(self, number: int) -> int: ...

    def count(self, to: int) -> Iterator[int]: ...


COUNTER = """
    class Main:
        def double(self, number):
            return number * 2

        def count(self, to):
            yield from range(to)

        def fail(self):
            raise ValueError("no")
"""


def test_everything_is_called_without_await(write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path) -> None:
    write_plugin("counter", COUNTER, manifest={"provides": ["counter@1"]})
    with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (counter,) = manager.providers(Counter)
        assert counter.double(21) == 42
        assert list(counter.count(500)) == list(range(500))
        first = next(counter.count(10**9))
        assert first == 0
        with pytest.raises(PluginFault, match="no"):
            manager.call("counter", "fail")
        assert manager.list_plugins() == ["counter"]
        assert manager.stop_plugin("counter") is True
        assert manager.get_plugin_status("counter") is PluginState.INACTIVE
    with pytest.raises(Misuse, match="not open"):
        manager.list_plugins()
