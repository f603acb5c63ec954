"""Trying an instance out with another config leaves no trace of that config."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardcage.cli.trial import TrialStore
from cardcage.foundation.names import InstanceId
from cardcage.manifest import parse_manifest
from cardcage.registry import InstalledPlugin, InstanceRecord, PutInstance, PutPlugin
from cardcage.storage import MemoryStore

OCR = InstanceId("ocr")


@pytest.fixture
def store() -> MemoryStore:
    manifest = parse_manifest("name: ocr\nversion: 1.0.0\nentrypoint: ocr:Ocr\n")
    store = MemoryStore()
    plugin = InstalledPlugin(name="ocr", version="1.0.0", digest="0" * 64, package_dir=Path("/none"), manifest=manifest)
    store.commit(PutPlugin(plugin=plugin))
    return store


def trial(**config: int) -> InstanceRecord:
    return InstanceRecord(id=OCR, plugin="ocr", config=config, grants=("read:/srv/a",))


def test_the_trial_stands_in_for_an_instance_that_is_not_remembered(store: MemoryStore) -> None:
    assert TrialStore(store, trial(dpi=300)).instance(OCR) == trial(dpi=300)
    assert store.instance(OCR) is None


def test_putting_the_trial_remembers_a_blank_instance_and_gives_it_its_user_id(store: MemoryStore) -> None:
    tried = TrialStore(store, trial(dpi=300))
    tried.commit(PutInstance(record=trial(dpi=300)))
    remembered, shown = store.instance(OCR), tried.instance(OCR)
    assert remembered is not None
    assert shown is not None
    assert (remembered.config, remembered.grants, remembered.desired) == ({}, (), "stopped")
    assert (shown.config, shown.grants, shown.uid) == ({"dpi": 300}, ("read:/srv/a",), remembered.uid)


def test_putting_the_trial_leaves_what_was_remembered(store: MemoryStore) -> None:
    store.commit(PutInstance(record=InstanceRecord(id=OCR, plugin="ocr", config={"dpi": 72}, grants=("read:/srv/b",))))
    before = store.instance(OCR)
    tried = TrialStore(store, trial(dpi=300))
    tried.commit(PutInstance(record=trial(dpi=300)))
    assert store.instance(OCR) == before
    assert [dict(each.config) for each in tried.instances("ocr")] == [{"dpi": 300}]


def test_other_instances_are_untouched(store: MemoryStore) -> None:
    other = InstanceRecord(id=InstanceId("ocr/eu"), plugin="ocr", label="eu", config={"dpi": 1})
    tried = TrialStore(store, trial(dpi=300))
    tried.commit(PutInstance(record=other))
    found = store.instance(InstanceId("ocr/eu"))
    assert found is not None
    assert found.config == {"dpi": 1}


def test_the_blank_record_is_taken_away_again_but_never_one_that_was_filled(store: MemoryStore) -> None:
    tried = TrialStore(store, trial(dpi=300))
    tried.commit(PutInstance(record=trial(dpi=300)))
    tried.forget_blank()
    assert store.instance(OCR) is None
    tried.commit(PutInstance(record=trial(dpi=300)))
    store.commit(PutInstance(record=InstanceRecord(id=OCR, plugin="ocr", config={"dpi": 72})))
    tried.forget_blank()
    assert store.instance(OCR) is not None


def test_a_blank_record_of_someone_elses_is_left(store: MemoryStore) -> None:
    store.commit(PutInstance(record=InstanceRecord(id=OCR, plugin="ocr", desired="stopped")))
    tried = TrialStore(store, trial(dpi=300))
    tried.commit(PutInstance(record=trial(dpi=300)))
    tried.forget_blank()
    assert store.instance(OCR) is not None
