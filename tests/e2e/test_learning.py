"""What learning comes to for plugins whose needs are known: exactly those, and real walls agree."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from cardcage import PluginManager
from cardcage.foundation.errors import CardcageError, Misuse
from cardcage.manager.learned import Bounds, Learned
from cardcage.manager.learning import Exercise, Lesson, learn_permissions
from cardcage.manifest.rewrite import with_permissions
from cardcage.permissions import Permission
from cardcage.sandbox import landlock
from cardcage.sandbox.mode import detect_mode
from cardcage.sandbox.report import Mode

pytestmark = pytest.mark.skipif(
    detect_mode() not in (Mode.ROOT, Mode.USER), reason="a recording needs walls with namespaces"
)

FILES = """
import os
import subprocess
from cardcage_sdk import Plugin

class Main(Plugin):
    def work(self, folder, program):
        for noise in ("noise.txt", "none.txt"):
            try:
                open(os.path.join(folder, noise)).close()
            except OSError:
                pass
        with open(os.path.join(folder, "in.txt")) as file:
            text = file.read()
        if os.listdir(os.path.join(folder, "listed")) != ["one"]:
            raise ValueError("not listed")
        with open(os.path.join(folder, "out", "made.txt"), "w") as file:
            file.write(text.upper())
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout
"""
NETWORK = """
import socket
from cardcage_sdk import Plugin

class Main(Plugin):
    def fetch(self, host, port):
        try:
            socket.create_connection(("unneeded.test", 443), timeout=5).close()
        except OSError:
            pass
        with socket.create_connection((host, port), timeout=5) as connection:
            connection.sendall(b"hello")
            return connection.recv(100).decode()
"""
ASKING = """
from cardcage_sdk import HostError, Plugin

class Main(Plugin):
    def ask(self):
        try:
            self.context.api_client.call("spare.thing")
        except HostError:
            pass
        return self.context.api_client.call("cost.read", 20)
"""
CLIMBER = """
import os
from cardcage_sdk import Plugin

class Main(Plugin):
    def climb(self, folder, target):
        os.makedirs(os.path.join(folder, "made"), exist_ok=True)
        link = os.path.join(folder, "link")
        try:
            os.symlink(target, link)
        except FileExistsError:
            pass
        with open(link) as file:
            return file.read()
"""
SECRET = """
from cardcage_sdk import Plugin

class Main(Plugin):
    def length(self):
        return len(self.context.secrets["NEEDED_TOKEN"])
"""
TESTED = """
from cardcage_sdk import Plugin

PATH = {path!r}

def read():
    with open(PATH) as file:
        return file.read()

class Main(Plugin):
    def read(self):
        return read()
"""
TESTS = """
import unittest
import tested

class Reading(unittest.TestCase):
    def test_it_reads(self):
        self.assertEqual(tested.read(), "payload")
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files that a plugin may want, beneath a folder that is not for everybody."""
    folder = tmp_path / "host"
    for name in ("out", "listed"):
        (folder / name).mkdir(parents=True)
    for name in ("in.txt", "noise.txt", "listed/one"):
        (folder / name).write_text("payload")
    return folder


@pytest.fixture
async def echo() -> AsyncIterator[int]:
    """The port of a server on the loopback interface that says back what it hears."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


def grants(learned: Learned) -> list[str]:
    assert learned.passed, learned
    assert learned.minimal
    return list(map(str, learned.permissions))


async def passes(package: Path, lesson: Lesson, asked: Sequence[str], state: Path) -> bool:
    """Whether a lesson passes in an ordinary host, behind the walls that exactly these grants give."""
    manifest = package / "plugin.yaml"
    manifest.write_text(with_permissions(manifest.read_text(), map(Permission.parse, asked)))
    name = package.name
    config = {
        "network": {"hosts": dict(lesson.hosts)},
        "secrets": {"environment": {secret: secret for secret in lesson.secrets}},
    }
    manager = PluginManager(config, state_dir=state, grants={name: asked}, audit=False, packs=())
    if lesson.prepare is not None:
        lesson.prepare(manager)
    try:
        async with manager:
            await manager.start_plugin(str(package))
            for exercise in lesson.exercises:
                await manager.call(name, exercise.method, *exercise.args)
    except CardcageError:
        return False
    finally:
        shutil.rmtree(state, ignore_errors=True)
    return True


async def check(package: Path, lesson: Lesson, found: list[str], state: Path) -> None:
    """Real walls let it pass with exactly what was found, and not without any one of that."""
    assert await passes(package, lesson, found, state)
    for left_out in found:
        assert not await passes(package, lesson, [each for each in found if each != left_out], state), left_out


async def test_files_and_programs_are_learnt_exactly(write_plugin: Any, tree: Path, state_dir: Path) -> None:
    package = write_plugin("filer", FILES)
    program = os.path.realpath(shutil.which("env") or "/usr/bin/env")
    lesson = Lesson(package_dir=package, exercises=(Exercise(method="work", args=(str(tree), program)),), packs=())
    learned = await learn_permissions(lesson, Bounds(within=(str(tree),)))
    found = grants(learned)
    assert found == [
        f"read:{tree}/in.txt",
        f"read:{tree}/listed/",
        f"subprocess:{program}",
        f"write:{tree}/out/",
    ]
    assert (f"read:{tree}/noise.txt", "the tests pass without it") in [
        (each.what, each.reason) for each in learned.left_out
    ]
    await check(package, lesson, found, state_dir)


async def test_files_that_are_not_for_everybody_are_given_only_beneath_folders_to_try(
    write_plugin: Any, tree: Path
) -> None:
    package = write_plugin("filer", FILES)
    (tree / "in.txt").chmod(0o600)
    lesson = Lesson(
        package_dir=package, exercises=(Exercise(method="work", args=(str(tree), "/usr/bin/env")),), packs=()
    )
    learned = await learn_permissions(lesson, Bounds())
    assert not learned.passed
    assert "in.txt" in learned.reason
    assert f"read:{tree}/in.txt" in [each.what for each in learned.left_out]
    assert not (tree / "out" / "made.txt").exists()


async def test_a_name_and_port_are_learnt_and_connected_to_only_where_that_is_allowed(
    write_plugin: Any, echo: int, state_dir: Path
) -> None:
    package = write_plugin("caller", NETWORK)
    lesson = Lesson(
        package_dir=package,
        exercises=(Exercise(method="fetch", args=("api.test", echo), expected="hello", has_expected=True),),
        hosts={"api.test": "127.0.0.1"},
        packs=(),
    )
    closed = await learn_permissions(lesson, Bounds())
    assert not closed.passed
    assert {each.what for each in closed.left_out} >= {f"network:api.test:{echo}", "network:unneeded.test:443"}
    learned = await learn_permissions(lesson, Bounds(network=True))
    found = grants(learned)
    assert found == [f"network:api.test:{echo}"]
    await check(package, lesson, found, state_dir)


async def test_an_address_is_learnt_as_an_address(write_plugin: Any, echo: int) -> None:
    package = write_plugin("caller", NETWORK)
    lesson = Lesson(package_dir=package, exercises=(Exercise(method="fetch", args=("127.0.0.1", echo)),), packs=())
    assert grants(await learn_permissions(lesson, Bounds(network=True))) == [f"network:127.0.0.1:{echo}"]


async def test_capabilities_are_learnt_from_the_services_that_are_called(write_plugin: Any, state_dir: Path) -> None:
    package = write_plugin("asker", ASKING)

    def double(caller: Any, number: int) -> int:
        return number * 2

    def nothing(caller: Any) -> None:
        return None

    def prepare(manager: PluginManager) -> None:
        manager.register_service("cost.read", double, capability="ReadCostData")
        manager.register_service("spare.thing", nothing, capability="Spare")

    lesson = Lesson(package_dir=package, exercises=(Exercise(method="ask"),), packs=(), prepare=prepare)
    found = grants(await learn_permissions(lesson, Bounds()))
    assert found == ["capability:ReadCostData"]
    await check(package, lesson, found, state_dir)


async def test_a_secret_is_learnt_from_those_that_may_be_handed(
    write_plugin: Any, state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEEDED_TOKEN", "abc")
    monkeypatch.setenv("SPARE_TOKEN", "def")
    package = write_plugin("keeper", SECRET)
    lesson = Lesson(
        package_dir=package,
        exercises=(Exercise(method="length", expected=3, has_expected=True),),
        secrets=("NEEDED_TOKEN", "SPARE_TOKEN"),
        packs=(),
    )
    learned = await learn_permissions(lesson, Bounds())
    assert grants(learned) == ["secret:NEEDED_TOKEN"]
    assert "abc" not in repr(learned)
    await check(package, lesson, ["secret:NEEDED_TOKEN"], state_dir)


async def test_a_plugins_own_tests_are_run_behind_its_walls(write_plugin: Any, tree: Path) -> None:
    package = write_plugin("tested", TESTED.format(path=str(tree / "in.txt")))
    with pytest.raises(Misuse, match="has no tests of its own"):
        await learn_permissions(Lesson(package_dir=package, packs=()), Bounds(within=(str(tree),)))
    (package / "tests").mkdir()
    (package / "tests" / "test_reading.py").write_text(TESTS)
    before = (package / "plugin.yaml").read_text()
    learned = await learn_permissions(Lesson(package_dir=package, packs=()), Bounds(within=(str(tree),)))
    assert grants(learned) == [f"read:{tree}/in.txt"]
    assert (package / "plugin.yaml").read_text() == before
    assert sorted(path.name for path in package.iterdir()) == ["plugin.yaml", "tested.py", "tests"]


async def test_a_plugin_that_needs_nothing_is_found_to_need_nothing(write_plugin: Any) -> None:
    package = write_plugin(
        "plain", "from cardcage_sdk import Plugin\nclass Main(Plugin):\n    def go(self): return 1\n"
    )
    lesson = Lesson(package_dir=package, exercises=(Exercise(method="go"),), packs=())
    learned = await learn_permissions(lesson, Bounds())
    assert (grants(learned), learned.runs) == ([], 2)
    wrong = Lesson(package_dir=package, exercises=(Exercise(method="go", expected=2, has_expected=True),), packs=())
    learned = await learn_permissions(wrong, Bounds())
    assert (learned.passed, learned.reason) == (False, "go() returned 1, expected 2")


async def test_a_plugin_cannot_learn_its_way_to_a_file_by_a_link(write_plugin: Any, tree: Path, tmp_path: Path) -> None:
    """It is let write in the folder, puts a link there to a file of the host's, and asks to read the link."""
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2")
    secret.chmod(0o600)
    package = write_plugin("climber", CLIMBER)
    lesson = Lesson(package_dir=package, exercises=(Exercise(method="climb", args=(str(tree), str(secret))),), packs=())
    learned = await learn_permissions(lesson, Bounds(within=(str(tree),)))
    assert not learned.passed
    if landlock.abi():
        assert not (tree / "link").is_symlink(), "no link can be made in a granted folder"
    assert "hunter2" not in repr(learned)


def test_the_resolver_of_a_recording_is_not_one_of_this_machine() -> None:
    """Names are asked inside the plugin's own network: nothing of the host listens where it is sent to ask."""
    from cardcage.launch.recorder import RESOLVER

    assert socket.inet_aton(RESOLVER)[0] == 127
