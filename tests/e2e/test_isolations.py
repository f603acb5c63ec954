"""One plugin, the same checks, behind every kind of wall: whoever writes a plugin need not know which it will get."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from cardcage import Misuse, PluginFault, PluginManager, Refused, extension_point
from cardcage.broker import Event
from cardcage.launch import oci_runtimes
from cardcage.launch.oci_runtimes import installed_runtimes
from cardcage.launch.remains import PREFIX, sweep_remains
from cardcage.policy import parse_policy
from cardcage.sandbox import hypervisor
from cardcage.sandbox.hypervisor import find_hypervisor
from cardcage.supervise import PluginState

WritePlugin = Callable[..., Path]
TIMEOUT_S = 60.0

ISOLATIONS = ("process", "enciphered process", "container")


class Point(msgspec.Struct):
    x: int
    y: int


@extension_point("echo", version=1)
class Echo(Protocol):
    async def echo(self, text: str) -> str: ...

    async def size(self, data: bytes) -> int: ...

    async def move(self, point: Point, by: int) -> Point: ...

    def count(self, to: int) -> AsyncIterator[int]: ...

    async def keep(self, text: str) -> str: ...

    async def fail(self) -> str: ...

    async def leave(self) -> str: ...

    async def rest(self) -> str: ...

    async def hear(self) -> str: ...

    async def tell(self, event: str) -> str: ...

    async def who(self) -> str: ...


ECHO = """
    import json
    import os
    import time

    from cardcage_sdk import Plugin

    class Main(Plugin):
        def echo(self, text: str) -> str:
            return text

        def size(self, data: bytes) -> int:
            return len(data)

        def move(self, point: dict, by: int) -> dict:
            return {"x": point["x"] + by, "y": point["y"]}

        def count(self, to: int):
            for number in range(to):
                yield number

        def keep(self, text: str) -> str:
            path = os.path.join(self.context.data_dir, "kept")
            before = open(path).read() if os.path.exists(path) else ""
            with open(path, "w") as file:
                file.write(text)
            return before

        def fail(self) -> str:
            raise ValueError("on purpose")

        def leave(self) -> str:
            os._exit(7)

        def rest(self) -> str:
            time.sleep(600)
            return "rested"

        def hear(self) -> str:
            print("heard on stdout")
            return "printed"

        def tell(self, event: str) -> str:
            self.context.event_bus.publish(event, {"from": "inside"})
            return "told"

        def who(self) -> str:
            names = ("plugin", "data", "tmp", "etc", "proc", "home", "root", "var", "boot", "sys")
            there = [name for name in names if os.path.exists("/" + name)]
            return json.dumps({"uid": os.getuid(), "there": there, "pid": os.getpid()})
"""


def needs(isolation: str) -> None:
    if isolation == "container" and not installed_runtimes():
        pytest.skip("no OCI runtime is installed: crun")
    if isolation == "vm":
        try:
            find_hypervisor()
        except Refused as error:
            pytest.skip(f"no virtual machine can be started here: {error.message}")


@pytest.fixture(params=ISOLATIONS)
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What an operator writes to get that wall for everything."""
    isolation: str = request.param
    needs(isolation)
    if isolation == "enciphered process":
        return {"isolation": "process", "config": {"encrypt": "always"}}
    return {"isolation": isolation}


@pytest.fixture
async def manager(
    settings: dict[str, Any], write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> AsyncIterator[PluginManager]:
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"], "limits": {"memory": "256MiB"}})
    async with PluginManager(
        plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo], policy="standard", **settings
    ) as running:
        yield running


@pytest.fixture
def echo(manager: PluginManager) -> Any:
    (found,) = manager.providers(Echo)
    return found


async def test_values_of_every_size_come_back_as_they_went(echo: Any) -> None:
    for text in ("", "Grüße, 世界", "x" * 1_000_000):
        assert await echo.echo(text) == text
    assert await echo.size(bytes(8_000_000)) == 8_000_000
    assert await echo.move(Point(x=1, y=2), 40) == Point(x=41, y=2)


async def test_many_calls_at_once_each_get_their_own_answer(echo: Any) -> None:
    answers = await asyncio.gather(*(echo.echo(f"call {number}") for number in range(200)))
    assert answers == [f"call {number}" for number in range(200)]


async def test_streams_flow(echo: Any) -> None:
    assert [number async for number in echo.count(500)] == list(range(500))


async def test_what_it_keeps_outlives_its_process(manager: PluginManager, echo: Any) -> None:
    assert await echo.keep("first") == ""
    await manager.unload_plugin("echo")
    await manager.load_plugin("echo")
    await manager.start_plugin("echo")
    (again,) = manager.providers(Echo)
    assert await again.keep("second") == "first"


async def test_its_exception_is_its_own_fault_and_it_goes_on(echo: Any) -> None:
    with pytest.raises(PluginFault, match="on purpose"):
        await echo.fail()
    assert await echo.echo("still here") == "still here"


async def test_after_a_crash_it_is_started_again(manager: PluginManager, echo: Any) -> None:
    with pytest.raises(PluginFault):
        await echo.leave()
    async with asyncio.timeout(TIMEOUT_S):
        while manager.get_plugin_status("echo") is not PluginState.ACTIVE:
            await asyncio.sleep(0.01)
    assert await echo.echo("back") == "back"


async def test_one_that_does_not_answer_is_cut_off(manager: PluginManager, echo: Any) -> None:
    with pytest.raises(PluginFault) as caught:
        await manager.call("echo", "rest", timeout_s=0.3)
    assert caught.value.code == "deadline_exceeded"


async def test_what_it_prints_is_in_its_log(manager: PluginManager, echo: Any) -> None:
    assert await echo.hear() == "printed"
    async with asyncio.timeout(TIMEOUT_S):
        while not any("heard on stdout" in str(line) for line in manager.logs("echo")):
            await asyncio.sleep(0.01)


async def test_its_events_reach_the_host(manager: PluginManager, echo: Any) -> None:
    heard: asyncio.Future[Event] = asyncio.get_running_loop().create_future()

    async def listen(event: Event) -> None:
        if not heard.done():
            heard.set_result(event)

    manager.subscribe("echo.*", listen)
    await echo.tell("echo.told")
    async with asyncio.timeout(TIMEOUT_S):
        assert (await heard).data == {"from": "inside"}


async def test_it_looks_the_same_from_inside(echo: Any) -> None:
    seen = json.loads(await echo.who())
    assert seen["uid"] == 1000
    assert seen["pid"] < 10
    assert seen["there"] == ["plugin", "data", "tmp", "etc", "proc"]


async def test_the_report_names_every_layer_that_holds(manager: PluginManager, settings: dict[str, Any]) -> None:
    report = manager.report("echo")
    assert report is not None
    assert report.below(("user_namespace", "network_namespace", "read_only_root", "system_call_filter")) == ()
    plain = settings == {"isolation": "process"}
    assert report.status("encryption").value == ("off" if plain else "enforced")
    assert manager.plan("echo").isolation == settings["isolation"]


async def test_all_of_that_holds_in_a_virtual_machine_which_a_manifest_may_ask_for(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    """The checks above in two boots: where the processor is emulated, one takes seconds."""
    needs("vm")
    manifest = {"provides": ["echo@1"], "isolation": "vm", "limits": {"memory": "256MiB"}}
    write_plugin("echo", ECHO, manifest=manifest)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo]) as manager:
        (echo,) = manager.providers(Echo)
        await test_values_of_every_size_come_back_as_they_went(echo)
        await test_many_calls_at_once_each_get_their_own_answer(echo)
        await test_streams_flow(echo)
        await test_its_exception_is_its_own_fault_and_it_goes_on(echo)
        await test_what_it_prints_is_in_its_log(manager, echo)
        await test_its_events_reach_the_host(manager, echo)
        await test_it_looks_the_same_from_inside(echo)
        await test_the_report_names_every_layer_that_holds(manager, {"isolation": "vm"})
        assert await echo.keep("first") == ""
        await test_after_a_crash_it_is_started_again(manager, echo)
        assert await echo.keep("second") == "first"


async def test_without_qemu_a_machine_is_refused_with_what_to_install(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hypervisor, "_PROGRAM_DIRS", str(tmp_path))
    find_hypervisor.cache_clear()
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"], "isolation": "vm"})
    try:
        async with PluginManager(
            plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo], auto_start=False
        ) as manager:
            with pytest.raises(Refused, match=r"qemu-system-.* is not installed") as caught:
                await manager.load_plugin("echo")
    finally:
        find_hypervisor.cache_clear()
    assert caught.value.code == "vm_unavailable"
    assert "apt-get install --no-install-recommends qemu-system-" in str(caught.value.hint)


async def test_a_manifest_that_asks_for_a_container_gets_one_and_never_less(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    needs("container")
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"], "isolation": "container"})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo]) as manager:
        (echo,) = manager.providers(Echo)
        assert await echo.echo("inside") == "inside"
        assert manager.plan("echo").isolation == "container"


async def test_a_manifest_that_asks_for_a_container_is_not_run_unconfined(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"], "isolation": "container"})
    config = {"plugins": {"echo": {"enabled": True, "isolation": "unconfined"}}}
    async with PluginManager(
        config, plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo], auto_start=False
    ) as manager:
        with pytest.raises(Refused, match="asks for container isolation, but unconfined") as caught:
            await manager.load_plugin("echo")
    assert caught.value.code == "isolation_refused"


async def test_a_policy_that_asks_for_containers_is_heeded(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    needs("container")
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"]})
    policy = parse_policy("rules:\n  - name: all\n    then: {isolation: container}\n")
    async with PluginManager(
        plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo], policy=policy
    ) as manager:
        assert manager.plan("echo").isolation == "container"


async def test_without_a_runtime_a_container_is_refused_with_what_to_install(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(oci_runtimes, "_PATH", str(tmp_path))
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"], "isolation": "container"})
    async with PluginManager(
        plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo], auto_start=False
    ) as manager:
        with pytest.raises(Refused, match="not installed here") as caught:
            await manager.load_plugin("echo")
    assert caught.value.code == "container_runtime_missing"
    assert "apt-get install crun" in str(caught.value.hint)


async def test_an_unknown_isolation_is_misuse(write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path) -> None:
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"]})
    async with PluginManager(
        plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo], isolation="jail", auto_start=False
    ) as manager:
        with pytest.raises(Misuse, match="'jail'"):
            await manager.load_plugin("echo")


async def test_the_authority_is_kept_in_the_state_folder_for_its_owner_alone(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"]})
    async with PluginManager(
        {"encrypt": "always"}, plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo]
    ) as manager:
        (echo,) = manager.providers(Echo)
        assert await echo.echo("sealed") == "sealed"
    assert (state_dir / "authority" / "authority.pem").stat().st_mode & 0o777 == 0o600


async def test_a_manifest_may_ask_for_its_wire_to_be_enciphered(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"], "encrypt": "always"})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo]) as manager:
        report = manager.report("echo")
        assert report is not None
        assert report.status("encryption").value == "enforced"


async def test_unconfined_and_enciphered_is_refused(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"]})
    config = {"encrypt": "always", "plugins": {"echo": {"enabled": True, "isolation": "unconfined"}}}
    async with PluginManager(
        config, plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo], auto_start=False
    ) as manager:
        with pytest.raises(Refused) as caught, pytest.warns(UserWarning, match="UNCONFINED"):
            await manager.load_plugin("echo")
    assert caught.value.code == "encryption_unavailable"


@pytest.fixture
def own_temp(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder that no other host puts anything into. Containers' users must be able to pass through it."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o711)
        monkeypatch.setattr(tempfile, "tempdir", folder)
        monkeypatch.setenv("TMPDIR", folder)
        yield Path(folder)


def containers_folders(temp: Path) -> list[str]:
    return [path.name for path in temp.iterdir() if path.name.startswith(PREFIX)]


async def test_a_host_leaves_nothing_of_its_containers(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, own_temp: Path
) -> None:
    needs("container")
    write_plugin("echo", ECHO, manifest={"provides": ["echo@1"]})
    async with PluginManager(
        plugin_paths=[plugins_dir], state_dir=state_dir, extension_points=[Echo], isolation="container"
    ):
        assert len(containers_folders(own_temp)) == 1
    assert containers_folders(own_temp) == []


HOST = """
import asyncio, sys
from cardcage import PluginManager

async def main():
    async with PluginManager(plugin_paths=[sys.argv[1]], state_dir=sys.argv[2], isolation="container") as manager:
        print("up", flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_a_host_that_is_killed_takes_its_containers_along_and_the_next_one_tidies_up(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, own_temp: Path
) -> None:
    needs("container")
    write_plugin("echo", ECHO)
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOST, plugins_dir, state_dir, stdout=asyncio.subprocess.PIPE
    )
    assert host.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        assert await host.stdout.readline() == b"up\n"
        (left,) = containers_folders(own_temp)
        host.kill()
        await host.wait()
        while _any_process_mentions(left):  # the kernel ends them; it may take it a moment
            await asyncio.sleep(0.02)
    assert containers_folders(own_temp) == [left]
    sweep_remains()
    assert containers_folders(own_temp) == []


def _any_process_mentions(text: str) -> bool:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if text.encode() in (entry / "cmdline").read_bytes():
                    return True
            except OSError:
                continue
    return False
