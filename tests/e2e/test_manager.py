"""The manager over real plugins in their walls: discovery, lifecycle, typed calls, crashes, hooks and events."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Protocol, cast

import msgspec
import pytest

from cardcage import InvalidDocument, Misuse, PluginFault, PluginManager, Refused, extension_point
from cardcage.broker import Event
from cardcage.runtime import RuntimePolicy
from cardcage.supervise import PluginState, RestartPolicy

WritePlugin = Callable[..., Path]


@extension_point("greeter", version=1)
class Greeter(Protocol):
    async def greet(self, name: str) -> str: ...


class Point(msgspec.Struct):
    x: int
    y: int


@extension_point("mover", version=1)
class Mover(Protocol):
    async def move(self, point: Point, by: int) -> Point: ...

    def path(self, point: Point, steps: int) -> AsyncIterator[Point]: ...


POLITE = """
    from cardcage_sdk import Plugin

    class Main(Plugin):
        def greet(self, name: str) -> str:
            return f"Good day, {name}."
"""

MOVER = """
    class Main:
        def move(self, point, by):
            return {"x": point["x"] + by, "y": point["y"]}

        def path(self, point, steps):
            for step in range(steps):
                yield {"x": point["x"] + step, "y": point["y"]}
"""


async def until(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for a condition that events make true, with a generous bound."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_plugin_found_in_a_folder_is_started_and_called(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (greeter,) = manager.providers(Greeter)
        assert await greeter.greet("Ada") == "Good day, Ada."
        info = cast(Any, greeter).plugin
        assert (info.name, info.version, info.isolation) == ("polite", "1.0.0", "process")
        assert manager.get_plugin_status("polite") is PluginState.ACTIVE


async def test_structs_and_streams_cross_the_wall(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("mover", MOVER, manifest={"provides": ["mover@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        mover = manager.provider(Mover, "mover")
        assert await mover.move(Point(1, 2), by=4) == Point(5, 2)
        assert [point.x async for point in mover.path(Point(0, 0), 300)] == list(range(300))


async def test_a_wrong_argument_is_refused_before_it_travels(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (greeter,) = manager.providers(Greeter)
        with pytest.raises(Misuse, match=r"greeter@1\.greet .*name"):
            await greeter.greet(7)  # type: ignore[arg-type]


async def test_a_result_of_the_wrong_shape_names_plugin_version_and_path(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("polite", POLITE.replace('f"Good day, {name}."', "[1, 2]"), manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (greeter,) = manager.providers(Greeter)
        with pytest.raises(PluginFault) as fault:
            await greeter.greet("Ada")
        assert fault.value.code == "invalid_result"
        assert '"polite" 1.0.0' in str(fault.value)
        assert "str" in str(fault.value)
        assert manager.get_plugin_status("polite") is PluginState.ACTIVE


async def test_every_state_of_the_lifecycle_is_passed_and_others_are_refused(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        assert manager.list_plugins() == ["polite"]
        assert manager.get_plugin_status("polite") is PluginState.UNLOADED
        assert await manager.load_plugin("polite") is True
        assert manager.get_plugin_status("polite") is PluginState.LOADED
        with pytest.raises(Misuse, match="loaded"):
            await manager.call("polite", "greet", "Ada")
        assert await manager.start_plugin("polite") is True
        assert manager.get_plugin_status("polite") is PluginState.ACTIVE
        assert await manager.stop_plugin("polite") is True
        assert manager.get_plugin_status("polite") is PluginState.INACTIVE
        with pytest.raises(Misuse, match="inactive"):
            await manager.stop_instance("polite")
        assert await manager.start_plugin("polite") is True
        assert await manager.unload_plugin("polite") is True
        assert manager.get_plugin_status("polite") is PluginState.UNLOADED


async def test_a_killed_plugin_comes_back_and_the_call_in_flight_says_how_it_died(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    code = POLITE + (
        "\n        def die(self) -> None:\n            import os\n            os.kill(os.getpid(), 9)\n"
        "            os._exit(9)\n"
    )
    write_plugin("polite", code, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (greeter,) = manager.providers(Greeter)
        seen: list[str] = []
        manager.subscribe("plugin.*", lambda event: seen.append(event.name))
        with pytest.raises(PluginFault, match=r'plugin "polite" 1\.0\.0 .* during die\(\)'):
            await manager.call("polite", "die")
        assert await greeter.greet("Ada") == "Good day, Ada."
        before = manager.plugin_info("polite").instances[0].pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until(lambda: manager.plugin_info("polite").instances[0].restarts == 2)
        assert await greeter.greet("Ada") == "Good day, Ada."
        assert manager.plugin_info("polite").instances[0].pid != before
        await until(lambda: seen.count("plugin.restarted") == 2)
        assert seen.count("plugin.crashed") == 2


async def test_a_plugin_that_dies_again_and_again_is_given_up(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})
    policy = RuntimePolicy(restart=RestartPolicy(intensity=1, window_s=60))
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, policy=policy) as manager:
        gave_up: list[Event] = []
        restarted: list[Event] = []
        manager.subscribe("plugin.gave_up", gave_up.append)
        manager.subscribe("plugin.restarted", restarted.append)
        for _ in range(2):
            pid = manager.plugin_info("polite").instances[0].pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            await until(lambda: bool(restarted or gave_up))
            if not gave_up:
                await until(lambda: manager.get_plugin_status("polite") is PluginState.ACTIVE)
        await until(lambda: bool(gave_up))
        assert manager.get_plugin_status("polite") is PluginState.ERROR
        health = await manager.get_instance_health("polite")
        assert health["healthy"] is False


async def test_a_plugin_that_never_answers_costs_its_own_call_only(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    sleeper = """
        class Main:
            def sleep(self):
                import time
                time.sleep(3600)

            def greet(self, name):
                return name
    """
    write_plugin("sleeper", sleeper, manifest={"provides": ["greeter@1"], "priority": 60})
    write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})
    policy = RuntimePolicy(hang_grace_s=0.2)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, policy=policy) as manager:
        polite, sleepy = manager.providers(Greeter)
        hanging = asyncio.create_task(manager.call("sleeper", "sleep", timeout_s=0.2))
        assert await polite.greet("Ada") == "Good day, Ada."
        with pytest.raises(PluginFault) as fault:
            await hanging
        assert fault.value.code == "deadline_exceeded"
        await until(lambda: manager.plugin_info("sleeper").instances[0].restarts == 1)
        assert await sleepy.greet("Ada") == "Ada"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("raise RuntimeError('no luck')", "no luck"),
        ("import sys; sys.exit(3)", "3"),
        ("import os; os._exit(7)", "7"),
        ("import no_such_module", "no_such_module"),
        ("class Other: pass", "Main"),
        ("def broken(:", "SyntaxError|invalid syntax"),
    ],
)
async def test_a_plugin_that_fails_at_import_is_an_error_and_leaves_nothing(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, code: str, expected: str
) -> None:
    write_plugin("broken", code)
    write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (problem,) = manager.problems()
        assert problem.path == "broken"
        assert isinstance(problem.error, PluginFault)
        assert '"broken" 1.0.0' in str(problem)
        import re

        assert re.search(expected, str(problem)), str(problem)
        assert manager.get_plugin_status("broken") is PluginState.ERROR
        assert len(manager.providers(Greeter)) == 1


async def test_what_a_plugin_prints_is_logged_with_its_name_and_disturbs_nothing(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    code = """
        print("hello from import")
        from cardcage_sdk import Plugin

        class Main(Plugin):
            def greet(self, name: str) -> str:
                print("greeting\\x1b[31m", name)
                self.context.logger.warning("careful, %s", name)
                return name
    """
    write_plugin("chatty", code, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (greeter,) = manager.providers(Greeter)
        assert await greeter.greet("Ada") == "Ada"
        await until(lambda: any("greeting" in line.text for line in manager.logs("chatty")))
        lines = manager.logs("chatty")
        assert any(line.text == "hello from import" and line.source == "stdout" for line in lines)
        assert any(line.text == "careful, Ada" and line.level == "warning" for line in lines)
        assert not any("\x1b" in line.text for line in lines)


async def test_config_is_checked_before_anything_starts(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    code = """
        from cardcage_sdk import Plugin

        class Main(Plugin):
            def show(self):
                return dict(self.config)
    """
    schema = {"endpoint": {"type": "string", "required": True}, "retries": {"type": "integer", "default": 3}}
    write_plugin("configured", code, manifest={"config_schema": schema})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        with pytest.raises(InvalidDocument) as error:
            await manager.create_instance("configured", {"retries": "many"})
        assert {fault.path for fault in error.value.faults} >= {"retries"}
        assert len(error.value.faults) == 2
        assert manager.list_instances() == []
        first = await manager.create_instance("configured", {"endpoint": "a"}, label="a")
        second = await manager.create_instance("configured", {"endpoint": "b", "retries": 5}, label="b")
        assert (first, second) == ("configured/a", "configured/b")
        for instance in (first, second):
            await manager.start_instance(instance)
        assert await manager.call(first, "show") == {"endpoint": "a", "retries": 3}
        assert await manager.call(second, "show") == {"endpoint": "b", "retries": 5}


async def test_a_plugin_that_was_not_granted_what_it_needs_does_not_start(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, tmp_path: Path
) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text("42")
    bill.chmod(0o600)
    code = """
        class Main:
            def read(self, path):
                with open(path) as file:
                    return file.read()
    """
    write_plugin("reader", code, manifest={"permissions": {"files": {"read": [str(bill)]}}})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        with pytest.raises(Refused, match="not granted"):
            await manager.start_plugin("reader")
    grants = {"reader": [f"read:{bill}"]}
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, grants=grants) as manager:
        assert manager.problems() == []
        assert await manager.call("reader", "read", str(bill)) == "42"
        with pytest.raises(PluginFault):
            await manager.call("reader", "read", "/etc/shadow")


async def test_hooks_run_in_order_and_one_that_fails_is_skipped(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    code = """
        from cardcage_sdk import Plugin, hook

        class Main(Plugin):
            @hook("step", priority={priority})
            def run(self, context):
                {body}
    """
    append = "return {{**context, 'by': [*context['by'], '{name}']}}"
    write_plugin("last", code.format(priority=90, body=append.format(name="last")))
    write_plugin("first", code.format(priority=10, body=append.format(name="first")))
    write_plugin("bad", code.format(priority=50, body="raise ValueError('no')"))
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        outcome = await manager.run_hook("step", {"by": []})
        assert outcome.context == {"by": ["first", "last"]}
        assert [(step.plugin.name, step.error is None) for step in outcome.steps] == [
            ("first", True),
            ("bad", False),
            ("last", True),
        ]


async def test_events_are_broadcast_published_and_subscribed_to(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    listener = """
        from cardcage_sdk import Plugin, on_event

        class Main(Plugin):
            def initialize(self):
                self.seen = []
                return True

            @on_event("cost.*")
            def spike(self, event_type, data):
                self.seen.append(["on_event", data])

            def handle_event(self, event_type, data):
                self.seen.append([event_type, data])

            def what(self):
                return self.seen
    """
    speaker = """
        from cardcage_sdk import Plugin

        class Main(Plugin):
            def speak(self):
                self.context.event_bus.publish("cost.spike", {"amount": 7})
                self.context.event_bus.publish("plugin.crashed", {"forged": True})
    """
    write_plugin("listener", listener)
    write_plugin("speaker", speaker)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        host: list[Event] = []
        manager.subscribe("*", host.append)
        await manager.broadcast_event("month.closed", {"month": "2026-10"})
        assert ["month.closed", {"month": "2026-10"}] in await manager.call("listener", "what")
        await manager.call("speaker", "speak")
        await until(lambda: any(event.name == "cost.spike" for event in host))
        assert not any(event.name == "plugin.crashed" for event in host)
        spike = next(event for event in host if event.name == "cost.spike")
        assert (spike.data, spike.source) == ({"amount": 7}, "speaker")
        seen: list[Any] = []
        async with asyncio.timeout(30):
            while ["on_event", {"amount": 7}] not in seen:
                seen = await manager.call("listener", "what")


async def test_a_service_of_the_host_is_refused_without_its_capability(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    code = """
        from cardcage_sdk import Plugin

        class Main(Plugin):
            def ask(self, name):
                return self.context.api_client.call(name, 20)
    """
    write_plugin("asker", code, manifest={"permissions": {"capabilities": [{"value": "Double", "optional": True}]}})
    for granted, expected in (((), None), (("capability:Double",), 40)):
        manager = PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, grants={"asker": granted})

        def double(caller: Any, number: int) -> int:
            assert caller.name == "asker"
            return number * 2

        manager.register_service("math.double", double, capability="Double")
        async with manager:
            if expected is None:
                with pytest.raises(PluginFault, match="not granted"):
                    await manager.call("asker", "ask", "math.double")
            else:
                assert await manager.call("asker", "ask", "math.double") == expected
            with pytest.raises(PluginFault, match="no service"):
                await manager.call("asker", "ask", "math.treble")


async def test_dependencies_start_first_and_a_cycle_is_named(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("base", POLITE, manifest={"priority": 90})
    write_plugin("upper", POLITE, manifest={"priority": 10, "dependencies": ["base>=1.0"]})
    write_plugin("one", POLITE, manifest={"dependencies": ["two"]})
    write_plugin("two", POLITE, manifest={"dependencies": ["one"]})
    manager = PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir)
    started: list[str] = []
    manager.subscribe("plugin.started", lambda event: started.append(event.data["plugin"]))
    async with manager:
        await until(lambda: len(started) == 2)
        assert started == ["base", "upper"]
        problems = {problem.path: str(problem) for problem in manager.problems()}
        assert "one -> two -> one" in problems["one"]
        await manager.stop_plugin("base")
        assert manager.get_plugin_status("upper") is PluginState.INACTIVE


async def test_the_hosts_own_code_provides_in_process_under_the_same_contract(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})

    class Own:
        async def greet(self, name: str) -> str:
            if name == "nobody":
                raise ValueError("who?")
            return f"Hi {name}"

    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        manager.provide(Greeter, Own(), name="own", priority=1)
        outcomes = await manager.call_all(Greeter, "greet", "Ada")
        assert [(one.plugin.name, one.value) for one in outcomes] == [("own", "Hi Ada"), ("polite", "Good day, Ada.")]
        outcomes = await manager.call_all(Greeter, "greet", "nobody")
        assert outcomes[0].error is not None
        assert outcomes[1].error is None


async def test_a_changed_package_is_refused_until_it_is_registered_again(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    folder = write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        (folder / "polite.py").write_text((folder / "polite.py").read_text().replace("Good", "Bad"))
        with pytest.raises(Refused, match="was changed after it was verified"):
            await manager.start_plugin("polite")
        await manager.discover_plugins()
        await manager.start_plugin("polite")
        assert await manager.call("polite", "greet", "Ada") == "Bad day, Ada."


async def test_a_bad_package_never_stops_the_others(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    folder = write_plugin("bad", POLITE)
    (folder / "plugin.yaml").write_text("name: Bad Name\nversion: one\nentrypoint: gone:Main\ncolour: red\n")
    write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        assert manager.list_plugins() == ["polite"]
        (problem,) = manager.problems()
        assert isinstance(problem.error, InvalidDocument)
        assert {fault.path for fault in problem.error.faults} >= {"name", "version", "colour"}
        assert len(manager.providers(Greeter)) == 1


async def test_garbage_on_the_wire_ends_that_plugin_alone(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    code = """
        class Main:
            def spit(self):
                import os, socket, stat
                for fd in range(3, 64):
                    try:
                        if stat.S_ISSOCK(os.fstat(fd).st_mode):
                            os.write(fd, b"\\x00\\x00\\x00\\x05garbage garbage garbage")
                    except OSError:
                        pass
                return "done"
    """
    write_plugin("rude", code)
    write_plugin("polite", POLITE, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        with pytest.raises(PluginFault, match=r'"rude" 1\.0\.0'):
            await manager.call("rude", "spit")
        (greeter,) = manager.providers(Greeter)
        assert await greeter.greet("Ada") == "Good day, Ada."
        await until(lambda: manager.plugin_info("rude").instances[0].restarts == 1)


async def test_leaving_the_manager_leaves_no_process(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    code = POLITE + "\n        def fork(self):\n            import os\n            return os.fork()\n"
    write_plugin("polite", code, manifest={"provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        pid = manager.plugin_info("polite").instances[0].pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_unconfined_plugins_run_only_when_the_operator_asks_and_a_warning_says_so(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("wild", POLITE, manifest={"isolation": "unconfined", "provides": ["greeter@1"]})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (problem,) = manager.problems()
        assert problem.error.code == "isolation_refused"
    manager = PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, isolation="unconfined")
    with pytest.warns(UserWarning, match="UNCONFINED"):
        await manager.__aenter__()
    try:
        (greeter,) = manager.providers(Greeter)
        assert await greeter.greet("Ada") == "Good day, Ada."
    finally:
        await manager.stop()


async def test_a_start_with_a_wrong_config_leaves_no_instance_behind(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("needy", POLITE, manifest={"config_schema": {"endpoint": {"type": "string", "required": True}}})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, auto_start=False) as manager:
        with pytest.raises(InvalidDocument, match="endpoint"):
            await manager.start_plugin("needy")
        assert manager.list_instances() == []
        assert manager.get_plugin_status("needy") is PluginState.UNLOADED


async def test_a_stream_may_take_longer_than_its_deadline_as_long_as_items_come(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    code = """
        class Main:
            def path(self, point, steps):
                import time
                for step in range(steps):
                    time.sleep(0.05)
                    yield {"x": step, "y": 0}
                time.sleep(3600)

            def move(self, point, by):
                return point
    """
    write_plugin("slow", code, manifest={"provides": ["mover@1"]})
    policy = RuntimePolicy(call_timeout_s=1.0, hang_grace_s=0.1, stop_timeout_s=0.2)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir, policy=policy) as manager:
        mover = manager.provider(Mover, "slow")
        seen: list[int] = []

        async def follow() -> None:
            async for point in mover.path(Point(0, 0), 30):
                seen.append(point.x)  # noqa: PERF401 - what came before the fault counts

        with pytest.raises(PluginFault) as fault:
            await follow()
        assert fault.value.code == "deadline_exceeded"
        assert seen == list(range(30))


async def test_at_the_end_what_is_needed_stops_after_what_needs_it(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
        from cardcage_sdk import Plugin

        class Main(Plugin):
            def stop(self):
                self.logger.warning("stopping %s", self.context.plugin)
                return True
    """
    write_plugin("base", code)
    write_plugin("middle", code, manifest={"dependencies": ["base"]})
    write_plugin("upper", code, manifest={"dependencies": ["middle", "base"], "priority": 1})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        assert manager.problems() == []
    stopped = [line for record in caplog.records if "stopping" in (line := record.getMessage())]
    assert [line.split()[-1] for line in stopped] == ["upper", "middle", "base"]


@extension_point("sole", version=1, exclusive=True)
class Sole(Protocol):
    async def greet(self, name: str) -> str: ...


async def test_of_an_exclusive_extension_point_only_the_first_provider_is_asked(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("second", POLITE, manifest={"provides": ["sole@1"], "priority": 60})
    write_plugin("first", POLITE, manifest={"provides": ["sole@1"], "priority": 40})
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        (outcome,) = await manager.call_all(Sole, "greet", "Ada")
        assert outcome.plugin.name == "first"
        await manager.stop_plugin("first")
        (outcome,) = await manager.call_all(Sole, "greet", "Ada")
        assert outcome.plugin.name == "second"


async def test_one_plugin_that_runs_unconfined_is_named_in_the_warning(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path
) -> None:
    write_plugin("wild", POLITE)
    config = {"plugins": {"wild": {"enabled": True, "isolation": "unconfined"}}}
    manager = PluginManager(config, plugin_paths=[plugins_dir], state_dir=state_dir)
    with pytest.warns(UserWarning, match='plugin "wild" 1.0.0 runs UNCONFINED'):
        await manager.__aenter__()
    await manager.stop()


async def test_a_flood_of_refused_and_dropped_events_leaves_no_flood_in_the_hosts_log(
    write_plugin: WritePlugin, plugins_dir: Path, state_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
        from cardcage_sdk import Plugin

        class Main(Plugin):
            def shout(self, name, times):
                for _ in range(times):
                    self.context.event_bus.publish(name)
    """
    write_plugin("loud", code)
    async with PluginManager(plugin_paths=[plugins_dir], state_dir=state_dir) as manager:
        with caplog.at_level("WARNING", logger="cardcage.plugin"):
            await manager.call("loud", "shout", "Not A Name", 10_000)
            await manager.call("loud", "shout", "shouted", 10_000)
        told = [record.getMessage() for record in caplog.records]
    assert any("refused" in line for line in told)
    assert len(told) < 5_000
