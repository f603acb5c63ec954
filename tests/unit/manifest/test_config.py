"""Config schemas are normalised and judged; configurations are checked whole; code must agree with its manifest."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage.foundation.errors import InvalidDocument
from cardcage.manifest import check_metadata, normalise_config_schema, parse_manifest, validate_config

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LEAST = "name: sample\nversion: 1.0.0\nentrypoint: sample:Sample\n"


def normalised(document: Any) -> dict[str, Any]:
    schema, faults = normalise_config_schema(document)
    assert faults == []
    assert schema is not None
    return schema


def faults_of(schema: dict[str, Any], config: dict[str, Any]) -> list[str]:
    with pytest.raises(InvalidDocument, match=r"^the config of sample is not valid") as caught:
        validate_config(schema, config, subject="the config of sample")
    assert caught.value.code == "config_invalid"
    return [str(fault) for fault in caught.value.faults]


def test_the_short_form_becomes_json_schema() -> None:
    assert normalised(
        {
            "endpoint": {"type": "str", "required": True, "description": "Where."},
            "token": {"type": "string", "secret": True},
            "tags": {"type": "list", "items": {"type": "int"}},
            "limits": {"type": "dict", "properties": {"cpu": {"type": "number", "required": True}}},
            "type": {"enum": ["a", "b"], "default": "a"},
        }
    ) == {
        "$schema": DIALECT,
        "type": "object",
        "properties": {
            "endpoint": {"type": "string", "description": "Where."},
            "token": {"type": "string", "writeOnly": True},
            "tags": {"type": "array", "items": {"type": "integer"}},
            "limits": {
                "type": "object",
                "properties": {"cpu": {"type": "number"}},
                "required": ["cpu"],
                "additionalProperties": False,
            },
            "type": {"enum": ["a", "b"], "default": "a"},
        },
        "required": ["endpoint"],
        "additionalProperties": False,
    }


@pytest.mark.parametrize(
    "document",
    [
        {"type": "object", "properties": {"a": {"type": "string"}}},
        {"properties": {"a": {"type": "string"}}},
        {"$schema": DIALECT, "required": ["a"], "properties": {"a": {"type": "string"}}},
        {"anyOf": [{"required": ["a"]}, {"required": ["b"]}], "properties": {"a": {"type": "string"}}},
    ],
)
def test_json_schema_is_kept_as_it_is(document: dict[str, Any]) -> None:
    assert normalised(document) == {"type": "object", **document, "$schema": DIALECT}


def test_draft_7_is_said_in_the_words_of_2020_12() -> None:
    assert normalised(
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "type": "object",
            "definitions": {"port": {"type": "integer"}},
            "properties": {
                "port": {"$ref": "#/definitions/port"},
                "definitions": {"type": "string"},
                "pair": {"type": "array", "items": [{"type": "string"}], "additionalItems": False},
            },
            "dependencies": {"port": ["pair"], "pair": {"required": ["port"]}},
        }
    ) == {
        "$schema": DIALECT,
        "type": "object",
        "$defs": {"port": {"type": "integer"}},
        "properties": {
            "port": {"$ref": "#/$defs/port"},
            "definitions": {"type": "string"},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}], "items": False},
        },
        "dependentRequired": {"port": ["pair"]},
        "dependentSchemas": {"pair": {"required": ["port"]}},
    }


def test_an_empty_schema_asks_for_nothing() -> None:
    assert normalise_config_schema({}) == (None, [])


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ("text", 'config_schema: expected a mapping, found "text"'),
        ({"a": "string"}, 'config_schema.a: expected a mapping such as {type: string}, found "string"'),
        ({"a": {"type": "strin"}}, "config_schema.a.type: expected one of string, integer"),
        ({"a": {"typ": "string"}}, "config_schema.a.typ: no such key; did you mean type?"),
        ({"a": {"required": "yes"}}, 'config_schema.a.required: expected true or false, found "yes"'),
        ({"a": {"minimum": "x"}}, "config_schema.properties.a.minimum: is no JSON Schema"),
        ({"type": "object", "properties": 3}, "config_schema.properties: is no JSON Schema"),
        ({"type": "array"}, "config_schema.type: expected the schema of an object"),
        ({"$ref": "https://example.com/schema"}, "config_schema.$ref: expected a reference within the schema"),
        ({"$ref": "#/$defs/nowhere"}, "config_schema.$ref: expected a reference to a part of the schema"),
        ({"$ref": "#name"}, "config_schema.$ref: expected a reference within the schema"),
        ({"type": "object", "$id": "https://example.com/"}, "config_schema.$id: expected no identifiers"),
        (
            {"type": "object", "properties": {"a": {"allOf": [{"$ref": "file:///etc/passwd"}]}}},
            "expected a reference within",
        ),
        ({"a": {"pattern": "("}}, "config_schema.properties.a.pattern: expected a regular expression"),
        ({"a": {"pattern": "(a+)+$"}}, "without ambiguous repetition"),
        ({"a": {"pattern": "(?i)a"}}, "without flags"),
        ({"type": "object", "patternProperties": {"(a*)*": {}}}, "without ambiguous repetition"),
    ],
)
def test_a_bad_schema_is_named_with_its_path(document: Any, fault: str) -> None:
    schema, faults = normalise_config_schema(document)
    assert schema is None
    assert any(fault in str(found) for found in faults), [str(found) for found in faults]


@pytest.mark.parametrize(
    "pattern",
    [
        r"^[a-z0-9]+(-[a-z0-9]+)*$",
        r"^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,}$",
        r"^([0-9]{1,3}\.){3}[0-9]{1,3}$",
        r'("[^"]*")*',
        "^(foo|bar)+$",
        "^.*foo.*bar.*$",
        "^[a-z]+-[a-z]+-[a-z]+-[a-z]+-[a-z]+$",
        r"^arn:aws:[a-z]+:[a-z0-9-]*:\d{12}:.*$",
    ],
)
def test_ordinary_patterns_are_accepted(pattern: str) -> None:
    assert normalised({"a": {"pattern": pattern}})


@pytest.mark.parametrize(
    "pattern",
    [
        "(a+)+",
        "(a*)*",
        "(a|a)*",
        "(a|ab)*",
        r"(\w+\s?)*",
        "(.*,)*",
        r"^(([a-z])+.)+[A-Z]$",
        "(a?){50}",
        "(x+x+)+y",
        "((a|b)*,?)*",
        "^a*a*a*a*b$",
        "^.*a.*b.*c.*d$",
    ],
)
def test_patterns_that_could_take_for_ever_are_refused(pattern: str) -> None:
    _, faults = normalise_config_schema({"a": {"pattern": pattern}})
    assert faults


SCHEMA = {
    "type": "object",
    "properties": {
        "endpoint": {"type": "string", "minLength": 3},
        "mode": {"enum": ["fast", "safe"], "default": "safe"},
        "threshold": {"type": "number", "minimum": 0, "maximum": 1, "default": 0.25},
        "auth_token": {"type": "string"},
        "hidden": {"type": "integer", "writeOnly": True},
        "nested": {"$ref": "#/$defs/nested"},
        "hosts": {"type": "array", "items": {"$ref": "#/$defs/nested"}, "maxItems": 2, "uniqueItems": True},
    },
    "required": ["endpoint"],
    "additionalProperties": False,
    "$defs": {
        "nested": {
            "type": "object",
            "properties": {
                "port": {"type": "integer", "default": 80},
                "name": {"type": "string", "pattern": "^[a-z]+$"},
            },
            "required": ["name"],
        }
    },
}


def test_defaults_are_filled_at_every_depth_and_the_given_config_is_left_alone() -> None:
    config: dict[str, Any] = {
        "endpoint": "http",
        "nested": {"name": "a"},
        "hosts": [{"name": "b"}, {"name": "b", "port": 1}],
    }
    assert validate_config(SCHEMA, config, subject="the config of sample") == {
        "endpoint": "http",
        "mode": "safe",
        "threshold": 0.25,
        "nested": {"name": "a", "port": 80},
        "hosts": [{"name": "b", "port": 80}, {"name": "b", "port": 1}],
    }
    assert config["nested"] == {"name": "a"}
    assert validate_config({"properties": {"a": {"default": []}}}, None, subject="x") == {"a": []}


def test_every_fault_of_a_config_is_reported_at_once_with_its_path() -> None:
    faults = faults_of(
        SCHEMA,
        {
            "endpont": "x",
            "mode": "slow",
            "threshold": 2,
            "nested": {"port": "80", "name": "A"},
            "hosts": [{"name": "b"}, {"name": "b"}, {}],
        },
    )
    assert faults == [
        "endpoint: expected a string, found nothing",
        "endpont: no such key; did you mean endpoint?",
        "hosts: expected at most 2 members, found a list of 3",
        "hosts: expected members that all differ, found a list of 3",
        "hosts[2].name: expected a string, found nothing",
        'mode: expected one of "fast", "safe", found "slow"',
        'nested.name: expected a text that matches ^[a-z]+$, found "A"',
        'nested.port: expected an integer, found "80"',
        "threshold: expected at most 1, found the number 2",
    ]


def test_a_wrong_value_that_looks_like_a_secret_is_never_shown() -> None:
    faults = faults_of(SCHEMA, {"endpoint": "http", "auth_token": ["hunter2"], "hidden": "hunter2"})
    assert faults == [
        "auth_token: expected a string, found a value that is not shown",
        "hidden: expected an integer, found a value that is not shown",
    ]


def test_a_schema_that_leads_back_to_itself_ends_in_a_fault() -> None:
    assert faults_of({"$ref": "#"}, {"a": 1}) == ["the schema refers to itself without end"]


@pytest.mark.parametrize(
    "schema", [{"minimum": "x", "type": "object"}, {"$ref": "#/nowhere"}, {"a": {"pattern": "(a+)+"}}]
)
def test_a_schema_that_no_manifest_showed_is_judged_before_it_is_used(schema: dict[str, Any]) -> None:
    with pytest.raises(InvalidDocument, match="the schema of the config of sample is not valid") as caught:
        validate_config(schema, {"a": "aaaa"}, subject="the config of sample")
    assert caught.value.code == "config_schema_invalid"


def test_a_schema_whose_references_multiply_is_given_up() -> None:
    definitions: dict[str, Any] = {
        f"a{level}": {"allOf": [{"$ref": f"#/$defs/a{level + 1}"}, {"$ref": f"#/$defs/a{level + 1}"}]}
        for level in range(40)
    }
    schema = {"type": "object", "$ref": "#/$defs/a0", "$defs": {**definitions, "a40": True}}
    (fault,) = faults_of(schema, {})
    assert fault == "the schema follows more than 20000 references to judge this configuration"


def test_nothing_that_a_terminal_would_obey_comes_back_in_an_error() -> None:
    (fault,) = faults_of({"a": {"type": "int"}}, {"a": "\x1b[2J\u202e\x9b"})
    assert fault == 'a: expected an integer, found "\\u001b[2J\\u202e\\u009b"'


def test_a_pattern_is_held_against_texts_of_bounded_length_only() -> None:
    schema = {"a": {"type": "string", "pattern": "^.*a.*b$"}}
    assert validate_config(schema, {"a": "x" * 998 + "ab"}, subject="x")
    (fault,) = faults_of(schema, {"a": "x" * 2000})
    assert fault == "a: expected at most 1000 characters where a pattern is asked for, found 2000"


def test_a_schema_in_the_short_form_or_without_a_word_will_do() -> None:
    assert validate_config({"a": {"type": "int", "default": 3}}, {}, subject="x") == {"a": 3}
    assert validate_config({}, {"anything": 1}, subject="x") == {"anything": 1}


SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(["string", "integer", "object", "array"]),
            "default": st.none() | st.integers() | st.lists(st.integers(), max_size=2),
            "enum": st.lists(st.integers(0, 3), max_size=3),
            "$ref": st.sampled_from(["#", "#/$defs/a", "#/$defs/nowhere", "#/properties/b"]),
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "properties": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "items": inner,
            "$defs": st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=6,
)
CONFIGS = st.recursive(
    st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner, max_size=2) | st.lists(inner, max_size=2),
    max_leaves=6,
)


@given(SCHEMAS, st.dictionaries(st.sampled_from("abc"), CONFIGS, max_size=3))
@settings(max_examples=300, deadline=None)
def test_any_accepted_schema_and_any_config_end_in_a_config_or_in_faults(schema: Any, config: dict[str, Any]) -> None:
    accepted, _ = normalise_config_schema({"type": "object", **schema})
    if accepted is None:
        return
    try:
        filled = validate_config(accepted, config, subject="x")
    except InvalidDocument:
        return
    # What was accepted, defaults and all, is accepted again and does not change any more.
    assert validate_config(accepted, filled, subject="x") == filled


def test_metadata_that_agrees_with_the_manifest_has_no_faults() -> None:
    manifest = parse_manifest(LEAST + "author: Ada\nlicense: MIT\ndependencies: ['other>=1.0']\n")
    agreeing = {
        "name": "sample",
        "version": "1.0.0",
        "description": "Another description.",
        "author": "Ada",
        "license": "MIT",
        "homepage": None,
        "keywords": ["a"],
        "dependencies": ["other"],
    }
    assert check_metadata(manifest, agreeing) == []
    assert check_metadata(manifest, {}) == []


def test_metadata_that_contradicts_the_manifest_gets_a_fault_for_each_point() -> None:
    manifest = parse_manifest(LEAST + "author: Ada\ndependencies: [cost-store]\n")
    faults = check_metadata(
        manifest,
        {"name": "other", "version": "2.0.0", "author": "Eve", "license": "MIT", "dependencies": ["cost-stor>=1"]},
    )
    assert [str(fault) for fault in faults] == [
        'name: expected "sample" as in the manifest, found "other"',
        'version: expected "1.0.0" as in the manifest, found "2.0.0"',
        'author: expected "Ada" as in the manifest, found "Eve"',
        'dependencies: expected a dependency that the manifest names, found "cost-stor>=1"; did you mean cost-store?',
    ]
