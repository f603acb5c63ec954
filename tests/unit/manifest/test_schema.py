"""What the published schema accepts, the parser accepts, over a wide set of generated manifests."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from cardcage.foundation.errors import InvalidDocument
from cardcage.manifest import Runtime, manifest_faults, manifest_json_schema, parse_manifest

SCHEMA: Final = manifest_json_schema()
VALIDATOR: Final[Any] = Draft202012Validator(SCHEMA)


KEY_VALIDATORS: Final[dict[str, Any]] = {
    key: Draft202012Validator({"$defs": SCHEMA["$defs"], **schema}) for key, schema in SCHEMA["properties"].items()
}


def test_the_schema_is_a_schema() -> None:
    Draft202012Validator.check_schema(SCHEMA)


def pick(*good: Any) -> st.SearchStrategy[Any]:
    """Good values mostly, and now and then one that is often wrong."""
    odd: list[Any] = [
        None,
        True,
        0,
        -1,
        1.5,
        "",
        " ",
        "x",
        "a\n",
        "A b",
        "..",
        [],
        {},
        [""],
        {"a": 1},
        "${config.a}",
        "*",
    ]
    return st.sampled_from([*good] * 4 + odd)


def lists(*good: Any) -> st.SearchStrategy[Any]:
    return pick(*good) | st.lists(pick(*good), max_size=3)


RANGES: Final = (
    ">=0.1,<2",
    "^1.2",
    "~1.2.3",
    "1.x",
    "1.2.*",
    "1.2.3",
    "==1.2",
    "*",
    "1 || >=3.0.0-rc.1",
    "!=1.0.0",
    "1-a",
)
PERMISSIONS: Final[st.SearchStrategy[Any]] = st.one_of(
    st.lists(
        pick(
            "ReadCostData", "network:a.example:443", "read:/a/../b", "secret:A", "subprocess:/bin/x", {"value": "A.b"}
        ),
        max_size=4,
    ),
    st.fixed_dictionaries(
        {},
        optional={
            "network": lists(
                "a.example:443", "*.a:1-2", "10.0.0.1:80", "[::1]:*", "http://a.b/c", {"host": "a", "port": 80}
            ),
            "files": st.fixed_dictionaries({}, optional={"read": lists("/a/b/", "//a", "/a/../b", "/${config.x}")}),
            "read": lists("/", "/a", "/.", {"path": "/a", "optional": True, "reason": "why"}),
            "secrets": lists("A", "a-b.c", {"name": "A"}, {"name": "A", "path": "/a"}),
            "capability": lists("ReadCostData", "a:b", "a.b-c"),
            "subprocess": lists("*", "/bin/x", "/bin/", {"program": "/x"}),
        },
    ),
)
CONFIG_KEYS: Final[st.SearchStrategy[Any]] = st.fixed_dictionaries(
    {},
    optional={
        "type": pick("string", "int", ["string", "null"], ["str", "string"]),
        "required": st.booleans(),
        "secret": st.booleans(),
        "default": pick(1, "a", [1]),
        "minimum": pick(1, 1.5),
        "maxLength": pick(3),
        "pattern": pick("^a+$"),
        "enum": pick([1, "a"]),
        "items": st.fixed_dictionaries({}, optional={"type": pick("string")}),
    },
)
MANIFESTS: Final[st.SearchStrategy[dict[str, Any]]] = st.fixed_dictionaries(
    {
        "name": pick("sample", "a-b.c_d", "prometheus-metrics", "a--b"),
        "version": pick("1.0.0", "1.0.0-rc.1+b", "01.0.0", "1.0"),
    },
    optional={
        "entrypoint": pick(
            "a:B", "a.b:C.D", "a.py", "x/a.js#B", "a.wasm", "./a", "bin/a", "https://a.b/c", "a.rn:B", "././a"
        ),
        "entry_point": pick("a:B", "a.js:B", "a.rn", "a.js.b:C", "..", "a/../b"),
        "runtime": pick(*[runtime.value for runtime in Runtime]),
        "type": pick("optimizer", "cloud-adapter", "cost_source", "CamelCase"),
        "description": pick("Words.\n", "\t"),
        "author": pick("Ada", "a\tb"),
        "homepage": pick("https://example.com/", "javascript:alert(1)", "http://[::1]/"),
        "keywords": lists("a", "b c"),
        "tags": lists("a"),
        "provides": lists("greeter@1", "greeter", "a.b@99999", "a@0"),
        "requires": st.one_of(
            st.dictionaries(st.sampled_from(["cardcage", "a_b", "A", ""]), pick(*RANGES, 1, 0.5), max_size=2),
            lists("a>=1"),
        ),
        "dependencies": st.one_of(
            st.dictionaries(st.sampled_from(["a", "b-c"]), pick(*RANGES), max_size=2),
            lists("a", "b>=1.2", "c@^1", "d 1.2", "e == 1.2.3", "f@"),
        ),
        "permissions": PERMISSIONS,
        "limits": st.fixed_dictionaries(
            {},
            optional={
                "memory": pick("256MiB", "0.5 GiB", "0B", "1.5TB", 1024, 5.0, "999999999999TiB"),
                "cpu": pick(0.5, "500m", "50%", "0.0", 1024, 1025, "0.05"),
                "processes": pick(1, 4.0, 10**6, 10**7),
                "network": pick("10Mbit/s", "1MiB/s", 100, "0B/s"),
                "log_rate": pick("5/s", 5, "0/s"),
            },
        ),
        "config_schema": st.one_of(
            st.dictionaries(st.sampled_from(["a", "type", "b-c", "items", ""]), CONFIG_KEYS, max_size=3),
            pick({"type": "object", "properties": {"a": {"type": "string"}}}, {"type": "object", "required": 3}),
        ),
        "platforms": lists("linux", "macos-arm64", "linux/amd64", "Linux"),
        "isolation": pick("process", "vm", "unconfined"),
        "priority": pick(1, 100, 50.0, 101),
        "concurrency": st.one_of(
            pick(1, 64), st.fixed_dictionaries({}, optional={"threads": pick(4), "processes": pick(2)})
        ),
        "enabled": st.booleans(),
        "resource-type": lists("compute", "a b"),
        "channels": lists("slack"),
        "x-mine": pick({"a": 1}),
        "unknown": pick(1),
    },
)
GOOD_ENOUGH: Final = MANIFESTS.map(
    lambda manifest: {key: value for key, value in manifest.items() if _accepts_key(key, value)}
)


def _accepts_key(key: str, value: Any) -> bool:
    """Whether the schema has nothing against this key; the others are dropped, so that whole manifests pass often."""
    return key in SCHEMA["properties"] and KEY_VALIDATORS[key].is_valid(value)


@given(GOOD_ENOUGH)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
def test_what_the_published_schema_accepts_the_parser_accepts(manifest: dict[str, Any]) -> None:
    manifest = {"name": "sample", "version": "1.0.0", **manifest}
    if "entry_point" not in manifest:
        manifest.setdefault("entrypoint", "a:B")
    assume(VALIDATOR.is_valid(manifest))
    as_json = parse_manifest(json.dumps(manifest), encoding="json")
    assert parse_manifest(yaml.safe_dump(json.loads(json.dumps(manifest)), sort_keys=False)) == as_json


@given(MANIFESTS)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_such_manifest_is_read_or_refused(manifest: dict[str, Any]) -> None:
    faults = manifest_faults(json.dumps(manifest), source="plugin.json")
    assert all(fault.message for fault in faults)
    # No schema accepts what the parser refuses, and these values are of the kinds that a schema can judge.
    assert not (faults and VALIDATOR.is_valid(manifest))


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "Sample"},
        {"version": "1.0"},
        {"entrypoint": "../a.py"},
        {"entrypoint": "/a.py"},
        {"permissions": {"read": ["relative"]}},
        {"permissions": {"read": ["/a/../b"]}},
        {"permissions": {"network": ["nowhere"]}},
        {"limits": {"memory": "much"}},
        {"priority": 0},
        {"requires": {"cardcage": "newest"}},
        {"provides": ["greeter"]},
        {"nme": "x"},
        {"config_schema": {"a": {"type": "strin"}}},
        {"entry_point": "b:C"},
        {"runtime": "wasm"},
    ],
)
def test_the_schema_refuses_what_the_parser_refuses(wrong: dict[str, Any]) -> None:
    manifest = {"name": "sample", "version": "1.0.0", "entrypoint": "a:B", **wrong}
    assert not VALIDATOR.is_valid(manifest)
    with pytest.raises(InvalidDocument):
        parse_manifest(json.dumps(manifest), encoding="json")
