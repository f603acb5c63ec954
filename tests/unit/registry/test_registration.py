"""Load, validate, register as one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cardcage.foundation.errors import InvalidDocument, Misuse
from cardcage.registry import InstalledPlugin, InstanceRecord, PutInstance, instance_id, prepare, register, unregister
from cardcage.registry.registration import older_release
from cardcage.storage import MemoryStore, SqlStore
from cardcage.trust import VerifiedRelease, verify

MakeRelease = Callable[..., VerifiedRelease]


@pytest.fixture
def release(tmp_path: Path) -> MakeRelease:
    def make(name: str, version: str = "1.0.0", more: str = "") -> VerifiedRelease:
        folder = tmp_path / f"{name}-{version}"
        folder.mkdir(exist_ok=True)
        text = f"name: {name}\nversion: {version}\nentrypoint: main:Main\n{more}\n"
        (folder / "plugin.yaml").write_text(text)
        (folder / "main.py").write_text("")
        return verify(folder)

    return make


def prepared(*releases: VerifiedRelease) -> list[InstalledPlugin]:
    return [prepare(each, now_s=100.0) for each in releases]


def test_a_release_is_registered_with_what_it_offers_and_asks(release: MakeRelease) -> None:
    store = MemoryStore()
    verified = release("polite", more='provides: [greeter@1]\npermissions: ["network:api.example.com:443"]')
    description = {
        "methods": [{"name": "greet", "stream": False}],
        "hooks": [{"name": "before_greeting", "method": "x", "priority": 5}],
        "events": ["cost.*"],
        "tools": [{"name": "count"}],
        "schedules": [{"cron": "* * * * *", "method": "y"}],
    }
    [installed] = register(store, [prepare(verified, now_s=100.0, description=description)])
    assert store.plugins() == (installed,)
    assert (installed.digest, installed.registered_at) == (verified.digest.sha256, 100.0)
    assert installed.problem is None
    assert installed.capabilities == {
        "provides": ("greeter@1",),
        "permissions": ("network:api.example.com:443",),
        "methods": ("greet",),
        "hooks": ("before_greeting",),
        "events": ("cost.*",),
        "tools": ("count",),
        "schedules": ("* * * * *",),
    }


def test_several_are_registered_together_whatever_their_order(release: MakeRelease) -> None:
    store = MemoryStore()
    app, db = release("app", more='dependencies: {db: ">=1"}'), release("db")
    assert [each.problem for each in register(store, prepared(app, db))] == [None, None]


def test_a_dependency_that_is_missing_is_the_plugins_problem_until_it_comes(release: MakeRelease) -> None:
    store = MemoryStore()
    [app] = register(store, prepared(release("app", more='dependencies: {db: ">=1"}')))
    assert app.problem == "needs db >=1, which is not installed"
    register(store, prepared(release("db")))
    assert [each.problem for each in store.plugins()] == [None, None]
    unregister(store, "db")
    assert [each.problem for each in store.plugins()] == ["needs db >=1, which is not installed"]


def test_strict_registration_of_an_unmet_dependency_leaves_the_registry_as_it_was(release: MakeRelease) -> None:
    store = MemoryStore()
    register(store, prepared(release("fine")))
    before = store.plugins()
    with pytest.raises(InvalidDocument, match="db") as raised:
        register(store, prepared(release("good"), release("app", more='dependencies: {db: ">=1"}')), strict=True)
    assert raised.value.code == "dependencies_unmet"
    assert store.plugins() == before


def test_a_circle_is_refused_with_its_name(release: MakeRelease) -> None:
    first, second = (release(a, more=f'dependencies: {{{b}: "*"}}') for a, b in (("one", "two"), ("two", "one")))
    with pytest.raises(InvalidDocument, match="one -> two -> one"):
        register(MemoryStore(), prepared(first, second), strict=True)


def test_an_instance_that_cannot_be_made_takes_the_plugin_back_with_it(release: MakeRelease, tmp_path: Path) -> None:
    for store in (MemoryStore(), SqlStore(tmp_path / "registry.db")):
        stray = InstanceRecord(id=instance_id("absent"), plugin="absent")
        with pytest.raises(Misuse):
            register(store, prepared(release("polite")), instances=[stray])
        assert store.plugins() == ()


def test_registering_the_same_bytes_again_changes_nothing(release: MakeRelease) -> None:
    store = MemoryStore()
    [first] = register(store, prepared(release("polite")))
    [again] = register(store, [prepare(release("polite"), now_s=999.0, before=first)])
    assert again == first


def test_what_an_operator_switched_outlives_an_upgrade_and_what_the_manifest_said_does_not(
    release: MakeRelease,
) -> None:
    old = prepare(release("polite", more="priority: 10"), now_s=1.0)
    new = release("polite", "2.0.0", more="priority: 20")
    assert prepare(new, now_s=2.0, before=old).priority == 20
    assert prepare(new, now_s=2.0, before=replace(old, priority=77)).priority == 77
    assert prepare(new, now_s=2.0, before=replace(old, enabled=False)).enabled is False
    assert prepare(new, now_s=2.0, before=old).registered_at == 2.0


def test_removing_a_plugin_forgets_its_instances(release: MakeRelease) -> None:
    store = MemoryStore()
    register(store, prepared(release("polite")))
    store.commit(PutInstance(record=InstanceRecord(id=instance_id("polite"), plugin="polite")))
    unregister(store, "polite")
    assert (store.plugins(), store.instances()) == ((), ())
    with pytest.raises(Misuse, match="is not installed"):
        unregister(store, "polite")


@pytest.mark.parametrize(
    ("registered", "offered", "refused"),
    [
        ("1.2.0", "1.1.9", True),
        ("1.2.0", "1.2.0-rc.1", True),
        ("1.10.0", "1.9.0", True),
        ("1.2.0", "1.2.0", False),
        ("1.2.0", "1.2.0+build.2", False),
        ("1.2.0", "2.0.0-alpha", False),
        ("2.0.0-alpha", "2.0.0", False),
    ],
)
def test_a_release_that_is_older_than_the_registered_one_is_refused(
    release: MakeRelease, registered: str, offered: str, refused: bool
) -> None:
    before = prepare(release("ocr", registered), now_s=1.0)
    refusal = older_release(release("ocr", offered), before)
    assert (refusal is not None) is refused
    if refusal is not None:
        assert refusal.code == "older_release"
        assert refusal.message == f'plugin "ocr" {offered} was not registered: {registered} is, and this is older'
    assert older_release(release("ocr", offered), None) is None
