"""What every `Store` does. A new implementation is added to `stores`, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from cardcage.foundation.errors import Misuse
from cardcage.manifest import parse_manifest
from cardcage.registry import (
    CountRestart,
    InstalledPlugin,
    InstanceRecord,
    PutInstance,
    PutPlugin,
    PutSetting,
    RemoveInstance,
    RemovePlugin,
    RestartCount,
    Store,
    UidRange,
    instance_id,
)
from cardcage.storage import MemoryStore, SqlStore

UIDS = UidRange(base=700_000, count=5)

stores: dict[str, Callable[[Path, UidRange], Store]] = {
    "memory": lambda folder, uids: MemoryStore(uid_range=uids),
    "sqlite-file": lambda folder, uids: SqlStore(folder / "registry.db", uid_range=uids),
    "sqlite-in-memory": lambda folder, uids: SqlStore(":memory:", uid_range=uids),
}


@pytest.fixture(params=sorted(stores))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made = stores[request.param](tmp_path, UIDS)
    yield made
    made.close()


def plugin(name: str = "polite", version: str = "1.0.0") -> InstalledPlugin:
    manifest = f"""
name: {name}
version: {version}
entrypoint: polite:Polite
provides: [greeter@1]
dependencies: {{other: ">=1.0"}}
permissions: ["network:api.example.com:443"]
config_schema: {{type: object, properties: {{tone: {{type: string, default: kind}}}}}}
"""
    return InstalledPlugin(
        name=name,
        version=version,
        digest="ab" * 32,
        package_dir=Path("/srv/plugins") / name,
        manifest=parse_manifest(manifest),
        enabled=True,
        priority=20,
        registered_at=1_700_000_000.25,
        capabilities={"provides": ("greeter@1",), "methods": ("greet",)},
        problem="needs other >=1.0, which is not installed",
    )


def instance(plugin_name: str = "polite", label: str | None = None) -> InstanceRecord:
    return InstanceRecord(
        id=instance_id(plugin_name, label),
        plugin=plugin_name,
        label=label,
        config={"tone": "fröhlich", "limits": [1, 2.5, None, True]},
        grants=("read:/srv/bill.csv",),
        desired="stopped",
        restart="always",
    )


def test_a_new_store_is_empty(store: Store) -> None:
    assert (store.plugins(), store.instances(), dict(store.settings())) == ((), (), {})
    assert store.plugin("polite") is None
    assert store.instance(instance_id("polite")) is None


def test_a_plugin_comes_back_as_it_was_put(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()))
    assert store.plugin("polite") == plugin()
    assert store.plugins() == (plugin(),)


def test_plugins_and_instances_come_in_the_order_of_their_names(store: Store) -> None:
    store.commit(*(PutPlugin(plugin=plugin(name)) for name in ("zeta", "alpha", "mid")))
    store.commit(*(PutInstance(record=instance("alpha", label)) for label in ("two", None, "one")))
    assert [each.name for each in store.plugins()] == ["alpha", "mid", "zeta"]
    assert [each.id for each in store.instances()] == ["alpha", "alpha/one", "alpha/two"]


def test_putting_another_version_replaces_the_plugin_and_keeps_its_instances(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=instance()))
    store.commit(PutPlugin(plugin=plugin(version="2.0.0")))
    assert [each.version for each in store.plugins()] == ["2.0.0"]
    assert [each.id for each in store.instances("polite")] == ["polite"]


def test_an_instance_comes_back_as_it_was_put_with_a_uid_and_no_restarts(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=instance()))
    assert store.instance(instance_id("polite")) == replace(instance(), uid=UIDS.base)


def test_instances_can_be_asked_for_by_plugin(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin("one")), PutPlugin(plugin=plugin("two")))
    store.commit(PutInstance(record=instance("one")), PutInstance(record=instance("two", "x")))
    assert [each.id for each in store.instances("two")] == ["two/x"]
    assert store.instances("three") == ()


def test_putting_an_instance_again_changes_neither_its_uid_nor_its_restarts(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=instance()))
    store.commit(CountRestart(id=instance_id("polite"), at_s=5.0, reason="crashed"))
    changed = replace(instance(), config={"tone": "dry"}, uid=1, restarts=RestartCount(total=99))
    store.commit(PutInstance(record=changed))
    found = store.instance(instance_id("polite"))
    assert found == replace(
        instance(),
        config={"tone": "dry"},
        uid=UIDS.base,
        restarts=RestartCount(total=1, last_at_s=5.0, last_reason="crashed"),
    )


def test_restarts_are_counted_and_the_last_is_remembered(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=instance()))
    for at_s in (1.0, 2.0, 3.0):
        store.commit(CountRestart(id=instance_id("polite"), at_s=at_s, reason=f"crash {at_s}"))
    found = store.instance(instance_id("polite"))
    assert found is not None
    assert found.restarts == RestartCount(total=3, last_at_s=3.0, last_reason="crash 3.0")


def test_removing_a_plugin_removes_its_instances_and_no_others(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin("one")), PutPlugin(plugin=plugin("two")))
    store.commit(*(PutInstance(record=instance(name, label)) for name in ("one", "two") for label in (None, "x")))
    store.commit(RemovePlugin(name="one"))
    assert [each.name for each in store.plugins()] == ["two"]
    assert [each.id for each in store.instances()] == ["two", "two/x"]


def test_settings_hold_any_json_value_and_none_forgets_one(store: Store) -> None:
    store.commit(PutSetting(name="a", value={"x": [1, None, "ü"]}), PutSetting(name="b", value=0))
    assert dict(store.settings()) == {"a": {"x": [1, None, "ü"]}, "b": 0}
    store.commit(PutSetting(name="a", value=None), PutSetting(name="b", value=False))
    assert dict(store.settings()) == {"b": False}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (RemovePlugin(name="absent"), "plugin_unknown"),
        (RemoveInstance(id=instance_id("absent")), "instance_unknown"),
        (CountRestart(id=instance_id("absent"), at_s=0.0, reason=""), "instance_unknown"),
        (PutInstance(record=instance("absent")), "plugin_unknown"),
        (PutInstance(record=instance("polite"), only_new=True), "instance_exists"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else value,
)
def test_one_impossible_change_leaves_nothing_of_its_commit(store: Store, change: object, code: str) -> None:
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=instance()))
    before = (store.plugins(), store.instances(), dict(store.settings()))
    with pytest.raises(Misuse) as raised:
        store.commit(
            PutPlugin(plugin=plugin("half")),
            PutInstance(record=instance("half")),
            PutSetting(name="half", value=1),
            RemoveInstance(id=instance_id("half")),
            CountRestart(id=instance_id("polite"), at_s=1.0, reason="half"),
            change,  # pyright: ignore[reportArgumentType]
        )
    assert raised.value.code == code
    assert (store.plugins(), store.instances(), dict(store.settings())) == before


def test_a_record_does_not_change_when_the_callers_config_does(store: Store) -> None:
    config: dict[str, object] = {"tones": ["kind"]}
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=replace(instance(), config=config)))
    config["tones"] = []
    found = store.instance(instance_id("polite"))
    assert found is not None
    assert found.config == {"tones": ["kind"]}


@pytest.mark.parametrize("value", [{"x": object()}, {"x": {1, 2}}, {"x": float("nan")}, {("a", "b"): 1}])
def test_what_is_not_plain_data_is_refused_by_name_and_leaves_nothing(store: Store, value: dict[str, object]) -> None:
    with pytest.raises(Misuse, match='the config of instance "polite"') as raised:
        store.commit(PutPlugin(plugin=plugin()), PutInstance(record=replace(instance(), config=value)))
    assert raised.value.code == "not_plain_data"
    with pytest.raises(Misuse, match='the setting "colour"'):
        store.commit(PutPlugin(plugin=plugin()), PutSetting(name="colour", value=value))
    assert store.plugins() == ()


def test_changes_of_one_commit_see_each_other_in_order(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=instance()), RemovePlugin(name="polite"))
    assert store.instances() == ()
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=instance(), only_new=True))
    assert [each.id for each in store.instances()] == ["polite"]


def test_no_two_instances_ever_have_the_same_uid(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()))
    given: list[int | None] = []
    for label in ("a", "b", "c"):
        store.commit(PutInstance(record=instance(label=label)))
        given += [each.uid for each in store.instances() if each.label == label]
        store.commit(RemoveInstance(id=instance_id("polite", label)))
    assert given == [700_000, 700_001, 700_002]


def test_an_instance_that_comes_back_has_the_uid_that_owns_its_files(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()), *(PutInstance(record=instance(label=label)) for label in ("a", "b")))
    store.commit(RemovePlugin(name="polite"))
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=instance(label="b")))
    assert [each.uid for each in store.instances()] == [700_001]


def test_when_the_uids_are_used_up_a_new_instance_is_refused_with_the_range(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()), *(PutInstance(record=instance(label=f"i{n}")) for n in range(5)))
    with pytest.raises(Misuse, match="700000-700004") as raised:
        store.commit(PutInstance(record=instance(label="sixth")))
    assert raised.value.code == "uids_exhausted"
    store.commit(PutInstance(record=instance(label="i3")))


def test_many_threads_may_use_one_store(store: Store) -> None:
    store.commit(PutPlugin(plugin=plugin()), PutInstance(record=instance()))

    def work(number: int) -> None:
        store.commit(CountRestart(id=instance_id("polite"), at_s=float(number), reason="crashed"))
        assert store.instance(instance_id("polite")) is not None

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(80)))
    found = store.instance(instance_id("polite"))
    assert found is not None
    assert found.restarts.total == 80


def test_closing_twice_is_harmless(store: Store) -> None:
    store.close()
    store.close()
