"""Services of the host as walled plugins call them: granted and not, typed, bounded, kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pytest

from cardcage import Misuse, PluginManager
from cardcage.audit import Action, MemoryAuditor
from cardcage.broker import PluginInfo
from cardcage.contracts import service
from cardcage.services import DataQuota

WritePlugin = Callable[..., Path]

KEEPER = """
    from cardcage_sdk import Plugin
    from cardcage_sdk.context import HostError

    class Main(Plugin):
        def do(self, method, *args):
            store = self.context.data_store
            answer = getattr(store, method)(*args)
            return list(answer) if method == "keys" else answer

        def raw(self, name, args):
            try:
                return self.context.api_client.call(name, *args)
            except HostError as error:
                return [error.data.get("code", error.code), error.message]

        def count(self, key):
            while True:
                found = self.context.data_store.entry(key)
                value, revision = found if found else (0, 0)
                if self.context.data_store.compare_and_set(key, value + 1, revision):
                    return value + 1
"""

ASYNC_KEEPER = """
    from cardcage_sdk import Plugin

    class Main(Plugin):
        async def walk(self):
            store = self.context.data_store
            first = await store.aput("a", {"n": 1})
            await store.acommit({"b": [1, 2], "c": b"x"}, expected={"a": first})
            return {
                "a": await store.aget("a"),
                "none": await store.aget("none", "default"),
                "keys": [key async for key in store.akeys()],
                "lost": await store.acompare_and_set("a", 0, 0),
                "gone": await store.adelete("b"),
                "entries": (await store.aspace())["entries"],
            }
"""

ASKING = {"permissions": ["DataStore"]}
GRANTS = {"keeper": ["capability:DataStore"], "other": ["capability:DataStore"]}


class Point(msgspec.Struct):
    x: int
    y: int


@service("geometry", capability="Geometry")
class Geometry(Protocol):
    """Moves points."""

    async def move(self, points: list[Point], by: int = 1) -> list[Point]:
        """Each point, so far to the right."""
        ...


class PlainGeometry:
    def __init__(self) -> None:
        self.callers: list[PluginInfo] = []

    async def move(self, caller: PluginInfo, points: list[Point], by: int) -> list[Point]:
        self.callers.append(caller)
        return [Point(x=point.x + by, y=point.y) for point in points]


async def test_what_a_plugin_keeps_is_there_after_a_restart_of_the_host(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    folder = write_plugin("keeper", KEEPER, manifest=ASKING)
    async with PluginManager(state_dir=state_dir, grants=GRANTS) as manager:
        await manager.start_plugin(str(folder))
        first = await manager.call("keeper", "do", "put", "last", {"day": "2026-05-01", "n": [1, 2.5, None, True]})
        assert first > 0
    async with PluginManager(state_dir=state_dir, grants=GRANTS) as manager:
        await manager.start_plugin("keeper")
        kept = await manager.call("keeper", "do", "entry", "last")
        assert kept == [{"day": "2026-05-01", "n": [1, 2.5, None, True]}, first]
        assert await manager.call("keeper", "do", "get", "none", "default") == "default"
        assert await manager.call("keeper", "do", "delete", "last") is True
        assert await manager.call("keeper", "do", "delete", "last") is False


async def test_a_plugin_with_async_methods_keeps_data_too(write_plugin: WritePlugin, state_dir: Path) -> None:
    folder = write_plugin("keeper", ASYNC_KEEPER, manifest=ASKING)
    async with PluginManager(state_dir=state_dir, grants=GRANTS) as manager:
        await manager.start_plugin(str(folder))
        assert await manager.call("keeper", "walk") == {
            "a": {"n": 1},
            "none": "default",
            "keys": ["a", "b", "c"],
            "lost": False,
            "gone": True,
            "entries": 2,
        }


async def test_without_the_grant_nothing_is_kept_and_that_is_recorded(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    folder = write_plugin("keeper", KEEPER)
    audit = MemoryAuditor()
    async with PluginManager(state_dir=state_dir, audit=audit) as manager:
        await manager.start_plugin(str(folder))
        for method, args in {"put": ["a", 1], "get": ["a"], "keys": [], "space": []}.items():
            code, message = await manager.call("keeper", "raw", f"data_store.{method}", args)
            assert code == "refused"
            assert "DataStore" in message
    assert [event.fields["service"] for event in audit.of(Action.CAPABILITY_REFUSED)] == [
        "data_store.put",
        "data_store.get",
        "data_store.keys",
        "data_store.space",
    ]


async def test_a_grant_that_was_not_asked_for_gives_nothing(write_plugin: WritePlugin, state_dir: Path) -> None:
    folder = write_plugin("keeper", KEEPER)
    async with PluginManager(state_dir=state_dir, grants=GRANTS) as manager:
        await manager.start_plugin(str(folder))
        assert (await manager.call("keeper", "raw", "data_store.put", ["a", 1]))[0] == "refused"


async def test_no_plugin_reads_what_another_keeps_and_instances_of_one_share(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    folders = [write_plugin(name, KEEPER, manifest=ASKING) for name in ("keeper", "other")]
    async with PluginManager(state_dir=state_dir, grants=GRANTS) as manager:
        for folder in folders:
            await manager.start_plugin(str(folder))
        await manager.call("keeper", "do", "put", "a", "mine")
        assert await manager.call("other", "do", "get", "a") is None
        assert await manager.call("other", "do", "keys") == []
        second = await manager.create_instance("keeper", {}, label="second")
        await manager.start_instance(second)
        assert await manager.call(second, "do", "get", "a") == "mine"


async def test_instances_that_count_together_lose_nothing(write_plugin: WritePlugin, state_dir: Path) -> None:
    import asyncio

    folder = write_plugin("keeper", KEEPER, manifest=ASKING)
    async with PluginManager(state_dir=state_dir, grants=GRANTS) as manager:
        await manager.start_plugin(str(folder))
        second = await manager.create_instance("keeper", {}, label="second")
        await manager.start_instance(second)
        await asyncio.gather(*(manager.call(each, "count", "n") for each in ("keeper", second) for _ in range(10)))
        assert await manager.call("keeper", "do", "get", "n") == 20


async def test_the_quota_holds_and_says_what_it_is(write_plugin: WritePlugin, state_dir: Path) -> None:
    folder = write_plugin("keeper", KEEPER, manifest=ASKING)
    quota = DataQuota(total_bytes=2000, entries=3, value_bytes=1000)
    async with PluginManager(state_dir=state_dir, grants=GRANTS, data_quota=quota) as manager:
        await manager.start_plugin(str(folder))
        assert (await manager.call("keeper", "raw", "data_store.put", ["big", "x" * 1001]))[0] == "quota_exceeded"
        for key in ("a", "b"):
            await manager.call("keeper", "do", "put", key, "x" * 900)
        code, message = await manager.call("keeper", "raw", "data_store.put", ["c", "x" * 900])
        assert code == "quota_exceeded"
        assert "2000" in message
        await manager.call("keeper", "do", "put", "c", 1)
        assert (await manager.call("keeper", "raw", "data_store.put", ["d", 1]))[0] == "quota_exceeded"
        assert await manager.call("keeper", "do", "keys") == ["a", "b", "c"]
        space = await manager.call("keeper", "do", "space")
        assert (space["entries"], space["entries_max"], space["total_bytes_max"]) == (3, 3, 2000)


async def test_an_operator_says_how_much_one_plugin_may_keep(write_plugin: WritePlugin, state_dir: Path) -> None:
    folders = [write_plugin(name, KEEPER, manifest=ASKING) for name in ("keeper", "other")]
    config = {"plugins": {"keeper": {"enabled": True, "data_quota": {"entries": 1}}}}
    async with PluginManager(config, state_dir=state_dir, grants=GRANTS) as manager:
        for folder in folders:
            await manager.start_plugin(str(folder))
            await manager.call(folder.name, "do", "put", "a", 1)
        assert (await manager.call("keeper", "raw", "data_store.put", ["b", 1]))[0] == "quota_exceeded"
        assert await manager.call("other", "do", "put", "b", 1) > 0
        assert (await manager.call("keeper", "do", "space"))["entries_max"] == 1


@pytest.mark.parametrize(
    ("method", "args", "named"),
    [
        ("put", ["", 1], "a key is printable text"),
        ("put", ["k\n", 1], "a key is printable text"),
        ("put", ["k" * 513, 1], "a key is printable text"),
        ("put", [1, 1], 'expected str for "key", but found int 1'),
        ("put", ["k"], 'needs "value"'),
        ("put", ["k", 1, 2], "takes 2 arguments, but was given 3"),
        ("keys", ["", "", 0], "limit is from 1 to 1000"),
        ("commit", [{"a": 1}, ["a"]], "both put and deleted"),
        ("commit", [{"b": 1}, ["c"], {"a": "first"}], "at expected[...]: Expected int, got str"),
        ("nothing", [], "no service"),
    ],
    ids=str,
)
async def test_wrong_arguments_are_told_by_their_place(
    write_plugin: WritePlugin, state_dir: Path, method: str, args: list[Any], named: str
) -> None:
    folder = write_plugin("keeper", KEEPER, manifest=ASKING)
    async with PluginManager(state_dir=state_dir, grants=GRANTS) as manager:
        await manager.start_plugin(str(folder))
        code, message = await manager.call("keeper", "raw", f"data_store.{method}", args)
        assert code in ("invalid_params", "method_not_found")
        assert named in message


async def test_a_plugin_that_calls_without_end_is_told_to_wait_and_others_are_not(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    code = """
        from cardcage_sdk import Plugin
        from cardcage_sdk.context import HostError

        class Main(Plugin):
            def hammer(self, count):
                refused = 0
                for _ in range(count):
                    try:
                        self.context.api_client.call("configuration.get")
                    except HostError as error:
                        refused += (error.data or {}).get("code") == "rate_limited"
                return refused
    """
    folders = [write_plugin(name, code) for name in ("hammer", "quiet")]
    audit = MemoryAuditor()
    async with PluginManager(state_dir=state_dir, audit=audit) as manager:
        for folder in folders:
            await manager.start_plugin(str(folder))
        assert await manager.call("hammer", "hammer", 20_000, timeout_s=60) > 0
        assert await manager.call("quiet", "hammer", 10) == 0
    assert {event.plugin for event in audit.of(Action.LIMIT_HIT)} == {"hammer"}


async def test_a_plugin_that_publishes_without_end_is_cut_short_and_others_are_heard(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    code = """
        from cardcage_sdk import Plugin

        class Main(Plugin):
            def publish(self, count):
                for number in range(count):
                    self.context.event_bus.publish("cost.seen", number)
                    self.context.metrics.counter("seen")
    """
    folders = [write_plugin(name, code) for name in ("noisy", "quiet")]
    audit, heard = MemoryAuditor(), Counter[str]()
    async with PluginManager(state_dir=state_dir, audit=audit) as manager:
        for folder in folders:
            await manager.start_plugin(str(folder))
        manager.subscribe("*", lambda event: heard.update([event.source or "host"]))
        await manager.call("noisy", "publish", 20_000, timeout_s=60)
        await manager.call("quiet", "publish", 5)
    assert heard["noisy"] < 40_000
    assert heard["quiet"] == 10
    assert {(event.plugin, event.fields["limit"]) for event in audit.of(Action.LIMIT_HIT)} == {("noisy", "events")}


async def test_a_typed_service_of_the_embedding_program_gets_typed_arguments(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    folder = write_plugin("keeper", KEEPER, manifest={"permissions": ["Geometry"]})
    geometry = PlainGeometry()
    async with PluginManager(state_dir=state_dir, grants={"keeper": ["capability:Geometry"]}) as manager:
        manager.offer_service(Geometry, geometry)
        await manager.start_plugin(str(folder))
        moved = await manager.call("keeper", "raw", "geometry.move", [[{"x": 1, "y": 2}], 5])
        assert moved == [{"x": 6, "y": 2}]
        assert await manager.call("keeper", "raw", "geometry.move", [[{"x": 1, "y": 2}]]) == [{"x": 2, "y": 2}]
        code, message = await manager.call("keeper", "raw", "geometry.move", [[{"x": 1, "y": "two"}]])
        assert code == "invalid_params"
        assert "points[0].y" in message
    assert {caller.name for caller in geometry.callers} == {"keeper"}


async def test_a_service_is_offered_once_and_whole(state_dir: Path) -> None:
    async with PluginManager(state_dir=state_dir) as manager:
        with pytest.raises(Misuse, match="lacks move"):
            manager.offer_service(Geometry, object())
        manager.offer_service(Geometry, PlainGeometry())
        with pytest.raises(Misuse, match="registered already"):
            manager.offer_service(Geometry, PlainGeometry())


async def test_a_plugin_reads_its_own_configuration_and_publishes_as_a_service(
    write_plugin: WritePlugin, state_dir: Path
) -> None:
    folder = write_plugin("keeper", KEEPER)
    heard: list[str] = []
    async with PluginManager(state_dir=state_dir) as manager:
        await manager.register_plugin(folder)
        instance = await manager.create_instance("keeper", {"server": {"port": 8080}}, label="eu")
        await manager.start_instance(instance)
        manager.subscribe("cost.*", lambda event: heard.append(f"{event.name} {event.source}"))
        assert await manager.call(instance, "raw", "configuration.get", ["server.port"]) == 8080
        assert await manager.call(instance, "raw", "configuration.get", ["server.host", "none"]) == "none"
        assert await manager.call(instance, "raw", "configuration.get", []) == {"server": {"port": 8080}}
        assert await manager.call(instance, "raw", "event_bus.publish", ["cost.spike", {"n": 1}]) is True
        assert await manager.call(instance, "raw", "event_bus.publish", ["plugin.crashed", {}]) is False
        assert (await manager.call(instance, "raw", "event_bus.subscribe", ["a b"]))[0] == "invalid_params"
    assert heard == ["cost.spike keeper/eu"]
