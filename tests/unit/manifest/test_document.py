"""Hostile and broken documents are refused quickly, with a place, and never by another error."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage.foundation.errors import Fault, InvalidDocument
from cardcage.manifest import fields, parse_manifest

LEAST = "name: sample\nversion: 1.0.0\nentrypoint: sample:Sample\n"


def faults_of(data: str | bytes, **options: Any) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        parse_manifest(data, **options)
    return [str(fault) for fault in caught.value.faults]


def test_a_duplicate_key_is_refused_with_both_lines() -> None:
    faults = faults_of(LEAST + "limits:\n  cpu: 1\n  memory: 1GiB\n  cpu: 2\nname: other\n")
    assert "limits.cpu: the key stands here twice: first on line 5, again on line 7" in faults
    assert "name: the key stands here twice: first on line 1, again on line 8" in faults
    assert len(faults) == 2


def test_a_duplicate_key_in_json_is_refused() -> None:
    faults = faults_of('{"name": "a", "name": "b", "version": "1.0.0", "entrypoint": "a:A"}', encoding="json")
    assert faults == ["name: the key stands here twice"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "found an empty document"),
        ("   \n\n", "found an empty document"),
        ("# nothing\n", "found nothing"),
        ("just text", "expected a mapping of keys to values"),
        ("- a\n- b\n", "expected a mapping of keys to values, found a list of 2"),
        ("\ufeffname: a", "line 1, column 1: found a byte-order mark"),
        (b"\xef\xbb\xbfname: a", "line 1, column 1: found a byte-order mark"),
        ("name: a".encode("utf-16"), "the byte-order mark of UTF-16"),
        (b"name: a\ntitle: caf\xe9\n", "line 2, column 11: expected UTF-8, found the byte 0xe9"),
        ("name: a\nversion: \x00", "line 2, column 10: found the control character U+0000"),
        ("name: a\nauthor: x\x1b[31m", "line 2, column 10: found the control character U+001B"),
        ("name: a\nauthor: \u202e", "found the control character U+202E"),
        ('name: "\\u202e"', "name: found the control character U+202E"),
        ('"\\0": 1', "found the control character U+0000"),
        ("name:\n\t- a\n", "line 2, column 1: expected YAML"),
        ("name:\n\t- a\n", "indent with spaces"),
        ("name: a: b", "line 1, column 8: expected YAML"),
        ("name: [a", "expected YAML, but did not find expected ',' or ']'"),
        ("name: @a", "line 1, column 7: expected YAML, but found character that cannot start any token"),
        ("name: a\n---\nname: b\n", "expected one document, found a second one"),
        ("? [a]\n: b\n", "expected a text as a key"),
        ("name: &a x\n", "found the anchor &a on line 1"),
        ("a: &a x\nb: *a\n", "b: found the alias *a on line 2"),
        ("name: !!python/object/apply:os.system [id]\n", "found the tag"),
        ("name: !!str x\n", "found the tag"),
        ("<<: {name: a}\n", "<<"),
        ("priority: 1e999\n", "expected a number that a double can hold"),
        ("priority: " + "9" * 5000, "expected a number of at most 40 characters, found 5000"),
        ("name: a\n" + "x" * 300_000, "expected at most 256 KiB, found 293 KiB"),
        ("keywords:\n" + "- a\n" * 30_000, "expected at most 20000 keys and values"),
        ("a: " + "[" * 40 + "]" * 40, "expected at most 32 levels"),
    ],
)
def test_a_broken_document_is_refused_with_its_place(text: str | bytes, words: str) -> None:
    faults = faults_of(text)
    assert any(words in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{name: 1}", "line 1, column 2: expected JSON"),
        ('{"a": NaN}', "found NaN, which is no JSON"),
        ('{"a": 1e999}', "expected a number that a double can hold"),
        ('{"a": "\\ud800"}', "found the control character U+D800"),
        ('{"a": "\\u0000"}', "found the control character U+0000"),
        ("[" * 100_000, "expected at most 32 levels"),
        ('{"a":' * 20 + "1" + "}" * 20, "a: no such key"),
        ("[1, 2]", "expected a mapping of keys to values, found a list of 2"),
    ],
)
def test_broken_json_is_refused_the_same_way(text: str, words: str) -> None:
    faults = faults_of(text, encoding="json")
    assert any(words in fault for fault in faults), faults


def test_a_date_an_octal_and_a_yes_stay_what_they_look_like() -> None:
    manifest = parse_manifest(
        LEAST + "author: 2026-01-02\nkeywords: [yes, 0777, 12:30, on, 0x1f]\nx-when: 2026-01-02\n"
    )
    assert manifest.author == "2026-01-02"
    assert manifest.keywords == ("yes", "0777", "12:30", "on", "0x1f")
    assert manifest.extras == {"x-when": "2026-01-02"}


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30)
)


@pytest.mark.parametrize(
    "text",
    [
        BOMB,
        "[" * 250_000,
        "{a: " * 60_000,
        "- " * 120_000,
        "? " * 120_000,
        "&a " * 80_000,
        "x: &a [*a]\n",
        "a: |\n" * 40_000,
    ],
    ids=["alias bomb", "lists", "mappings", "blocks", "keys", "anchors", "alias to itself", "texts"],
)
def test_a_bomb_is_refused_with_bounded_memory_and_work(text: str) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidDocument) as caught:
            parse_manifest(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20
    assert len(caught.value.faults) <= 100
    assert len(str(caught.value)) < 100_000


def test_a_document_of_faults_reports_a_hundred_of_them() -> None:
    faults = faults_of(LEAST + "".join(f"unknown{n}: 1\n" for n in range(500)))
    assert len(faults) == 100


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates()
INNER_KEYS = [
    "network",
    "files",
    "read",
    "value",
    "optional",
    "memory",
    "cpu",
    "properties",
    "pattern",
    "$ref",
    "items",
]
KEYS = st.sampled_from([*(name for key in fields.KEYS for name in key.names), *INNER_KEYS, "required", "enum", "x-a"])
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=6), inner, max_size=6),
    max_leaves=25,
)


def only_invalid_document(data: str | bytes, encoding: Any) -> None:
    faults: Sequence[Fault] | None = None
    try:
        parse_manifest(data, encoding=encoding)
    except InvalidDocument as invalid:
        faults = invalid.faults
    assert faults is None or len(faults) > 0


@given(st.binary(max_size=300) | st.text(max_size=300), st.sampled_from(["yaml", "json"]))
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_do_no_worse_than_being_refused(data: str | bytes, encoding: str) -> None:
    only_invalid_document(data, encoding)


@given(st.text(alphabet="ab:-[]{}&*!|>'\"#%@`,? \n\t~0.1", max_size=120))
@settings(max_examples=300, deadline=None)
def test_texts_of_yaml_signs_do_no_worse_than_being_refused(text: str) -> None:
    only_invalid_document(text, "yaml")


@given(st.dictionaries(KEYS, TREES, max_size=8))
@settings(max_examples=150, deadline=None)
def test_arbitrary_trees_do_no_worse_than_being_refused(tree: dict[str, Any]) -> None:
    only_invalid_document(yaml.dump(tree, allow_unicode=True), "yaml")
    only_invalid_document(json.dumps(tree, default=str), "json")


@given(st.dictionaries(KEYS, TREES, max_size=5))
@settings(max_examples=200, deadline=None)
def test_anything_beside_a_good_manifest_does_no_worse_than_being_refused(tree: dict[str, Any]) -> None:
    good = {"name": "sample", "version": "1.0.0", "entrypoint": "sample:Sample"}
    only_invalid_document(json.dumps({**tree, **good}, default=str), "json")
