"""What was verified is what runs."""

from __future__ import annotations

import os
import py_compile
from collections.abc import Callable
from pathlib import Path

import pytest

from cardcage import PluginManager, Refused

WritePlugin = Callable[..., Path]

MAIN = """
    from helper import word
    from parts.deep import number

    class Main:
        def say(self):
            return [word(), number()]
"""


def poison(source: Path, evil: str) -> None:
    """Leave a cache file that Python takes for that of `source`: it has its size and time, and other code."""
    good, before = source.read_text(), source.stat()
    assert len(evil) == len(good), "a cache file is believed where size and time of the source fit"
    source.write_text(evil)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert py_compile.compile(str(source), doraise=True)
    source.write_text(good)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


async def test_byte_code_beside_verified_sources_is_not_run(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    folder = write_plugin("honest", MAIN)
    (folder / "parts").mkdir()
    (folder / "parts" / "__init__.py").write_text("")
    (folder / "helper.py").write_text("def word():\n    return 'good'\n")
    (folder / "parts" / "deep.py").write_text("def number():\n    return 1\n")
    poison(folder / "helper.py", "def word():\n    return 'evil'\n")
    poison(folder / "parts" / "deep.py", "def number():\n    return 6\n")
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        assert await manager.call("honest", "say") == ["good", 1]


async def test_a_source_that_changed_after_registration_is_not_started(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    folder = write_plugin("honest", "class Main:\n    def say(self):\n        return 'good'\n")
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        (folder / "honest.py").write_text("class Main:\n    def say(self):\n        return 'evil'\n")
        with pytest.raises(Refused, match="was changed after it was verified") as raised:
            await manager.start_plugin("honest")
        assert raised.value.code == "digest_mismatch"
