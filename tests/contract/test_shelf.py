"""What every `Shelf` does. A new implementation is added to `shelves`, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cardcage.foundation.errors import Refused
from cardcage.services import Batch, Committed, Conflict, DataQuota, Item, MemoryShelf, Shelf, Usage
from cardcage.storage import SqlShelf

ROOMY = DataQuota()

shelves: dict[str, Callable[[Path], Shelf]] = {
    "memory": lambda folder: MemoryShelf(),
    "sqlite-file": lambda folder: SqlShelf(folder / "registry.db"),
    "sqlite-in-memory": lambda folder: SqlShelf(":memory:"),
}


@pytest.fixture(params=sorted(shelves))
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shelf]:
    made = shelves[request.param](tmp_path)
    yield made
    made.close()


def put(shelf: Shelf, namespace: str, quota: DataQuota = ROOMY, **values: bytes) -> int:
    done = shelf.commit(namespace, Batch(puts=values), quota=quota)
    assert isinstance(done, Committed)
    return done.revision


def test_what_was_put_is_read(shelf: Shelf) -> None:
    revision = put(shelf, "ocr", a=b"1", b=b"\x00\xff")
    assert shelf.read("ocr", "a") == Item(value=b"1", revision=revision)
    assert shelf.read("ocr", "b") == Item(value=b"\x00\xff", revision=revision)
    assert shelf.read("ocr", "c") is None


def test_no_plugin_sees_or_changes_what_another_keeps(shelf: Shelf) -> None:
    put(shelf, "ocr", a=b"1")
    put(shelf, "other", a=b"2")
    shelf.commit("other", Batch(deletes=frozenset({"a"})), quota=ROOMY)
    assert shelf.read("ocr", "a") is not None
    assert shelf.read("other", "a") is None
    assert shelf.keys("other", prefix="", after="", limit=10) == []
    assert shelf.usage("other") == Usage()


def test_keys_come_in_order_by_prefix_and_in_pages(shelf: Shelf) -> None:
    names = ["a", "b.1", "b.10", "b.2", "B.3", "b", "bé", "b%", "c", "\N{OLD PERSIAN SIGN A}"]
    shelf.commit("ocr", Batch(puts=dict.fromkeys(names, b"")), quota=ROOMY)
    assert shelf.keys("ocr", prefix="", after="", limit=100) == sorted(names)
    assert shelf.keys("ocr", prefix="b.", after="", limit=100) == ["b.1", "b.10", "b.2"]
    assert shelf.keys("ocr", prefix="b.", after="b.1", limit=1) == ["b.10"]
    assert shelf.keys("ocr", prefix="b%", after="", limit=100) == ["b%"]


def test_a_change_that_expects_another_revision_changes_nothing(shelf: Shelf) -> None:
    first = put(shelf, "ocr", a=b"1")
    second = put(shelf, "ocr", a=b"2")
    late = Batch(puts={"a": b"3", "b": b"3"}, deletes=frozenset({"c"}), expected={"a": first})
    assert shelf.commit("ocr", late, quota=ROOMY) == Conflict(key="a", revision=second)
    assert shelf.read("ocr", "b") is None
    assert isinstance(shelf.commit("ocr", Batch(puts={"a": b"3"}, expected={"a": second}), quota=ROOMY), Committed)


def test_a_revision_never_comes_again_even_after_a_deletion(shelf: Shelf) -> None:
    first = put(shelf, "ocr", a=b"1")
    done = shelf.commit("ocr", Batch(deletes=frozenset({"a", "none"})), quota=ROOMY)
    assert isinstance(done, Committed)
    assert done.deleted == {"a"}
    assert put(shelf, "ocr", a=b"1") > done.revision > first


def test_a_key_that_must_not_be_there_is_expected_with_0(shelf: Shelf) -> None:
    new = Batch(puts={"a": b"1"}, expected={"a": 0})
    assert isinstance(shelf.commit("ocr", new, quota=ROOMY), Committed)
    assert isinstance(shelf.commit("ocr", new, quota=ROOMY), Conflict)


@pytest.mark.parametrize(
    ("quota", "named"),
    [(DataQuota(entries=2), "entries"), (DataQuota(total_bytes=8), "total_bytes")],
)
def test_a_change_above_the_quota_changes_nothing(shelf: Shelf, quota: DataQuota, named: str) -> None:
    put(shelf, "ocr", quota, a=b"111", b=b"111")
    with pytest.raises(Refused) as raised:
        put(shelf, "ocr", quota, c=b"1")
    assert (raised.value.code, raised.value.fields["quota"]) == ("quota_exceeded", named)
    assert shelf.keys("ocr", prefix="", after="", limit=10) == ["a", "b"]
    assert shelf.usage("ocr") == Usage(entries=2, total_bytes=8)
    put(shelf, "ocr", quota, a=b"222")
    shelf.commit("ocr", Batch(deletes=frozenset({"a"})), quota=quota)
    put(shelf, "ocr", quota, c=b"1")


def test_a_plugin_above_a_quota_that_was_lowered_may_still_delete(shelf: Shelf) -> None:
    put(shelf, "ocr", a=b"1", b=b"1", c=b"1")
    assert isinstance(shelf.commit("ocr", Batch(deletes=frozenset({"a"})), quota=DataQuota(entries=1)), Committed)


def test_threads_that_count_lose_nothing(shelf: Shelf) -> None:
    def count(_: int) -> None:
        while True:
            item = shelf.read("ocr", "n")
            value = int(item.value) + 1 if item else 1
            batch = Batch(puts={"n": b"%d" % value}, expected={"n": item.revision if item else 0})
            if isinstance(shelf.commit("ocr", batch, quota=ROOMY), Committed):
                return

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(40)))
    item = shelf.read("ocr", "n")
    assert item is not None
    assert item.value == b"40"


KEYS = st.sampled_from(["a", "b", "c", "d", "é"])
SMALL = DataQuota(entries=3, total_bytes=40)


class ShelfMachine(RuleBasedStateMachine):
    """Any order of changes leaves a shelf as a plain dictionary under the same rules, and never above its quota."""

    def make(self) -> Shelf:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.shelf: Any = self.make()
        self.model: dict[str, bytes] = {}

    @rule(
        puts=st.dictionaries(KEYS, st.binary(max_size=20), max_size=3),
        deletes=st.frozensets(KEYS, max_size=2),
        expects_nothing=st.frozensets(KEYS, max_size=1),
    )
    def commit(self, puts: dict[str, bytes], deletes: frozenset[str], expects_nothing: frozenset[str]) -> None:
        deletes -= puts.keys()
        after = {key: value for key, value in self.model.items() if key not in deletes} | puts
        weight = sum(len(key.encode()) + len(value) for key, value in after.items())
        fits = not puts or (len(after) <= SMALL.entries and weight <= SMALL.total_bytes)
        batch = Batch(puts=puts, deletes=deletes, expected=dict.fromkeys(expects_nothing, 0))
        if expects_nothing & self.model.keys():
            assert isinstance(self.shelf.commit("p", batch, quota=SMALL), Conflict)
        elif fits:
            done = self.shelf.commit("p", batch, quota=SMALL)
            assert isinstance(done, Committed)
            assert done.deleted == deletes & self.model.keys()
            self.model = after
        else:
            with pytest.raises(Refused):
                self.shelf.commit("p", batch, quota=SMALL)

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        found = self.shelf.keys("p", prefix="", after="", limit=100)
        assert found == sorted(self.model)
        assert {key: self.shelf.read("p", key).value for key in found} == self.model
        weight = sum(len(key.encode()) + len(value) for key, value in self.model.items())
        assert self.shelf.usage("p") == Usage(entries=len(self.model), total_bytes=weight)
        assert weight <= SMALL.total_bytes
        assert len(self.model) <= SMALL.entries

    def teardown(self) -> None:
        self.shelf.close()


class MemoryMachine(ShelfMachine):
    def make(self) -> Shelf:
        return MemoryShelf()


class SqlMachine(ShelfMachine):
    def make(self) -> Shelf:
        return SqlShelf(":memory:")


few = settings(max_examples=25, stateful_step_count=15, deadline=None)
TestMemoryShelf = MemoryMachine.TestCase
TestMemoryShelf.settings = few
TestSqlShelf = SqlMachine.TestCase
TestSqlShelf.settings = few
