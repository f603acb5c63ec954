"""A schema that is made to take for ever is given up early: code hands it in while the host's event loop waits."""

from __future__ import annotations

from typing import Any

import pytest

from cardcage.foundation.errors import InvalidDocument
from cardcage.manifest import check_metadata, normalise_config_schema, parse_manifest, validate_config


def schema_of(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def test_many_rules_for_many_values_are_given_up() -> None:
    rules = [{"items": {"type": "integer"}} for _ in range(2000)]
    with pytest.raises(InvalidDocument, match="takes more than 100000 steps to judge"):
        validate_config(schema_of(y={"type": "array", "allOf": rules}), {"y": list(range(3000))}, subject="the config")


def test_a_long_list_of_values_to_compare_with_is_counted_with_its_length() -> None:
    choices = [[*range(100), number] for number in range(500)]
    schema = {**schema_of(y={"allOf": [{"$ref": "#/$defs/choice"}] * 3}), "$defs": {"choice": {"enum": choices}}}
    with pytest.raises(InvalidDocument, match="steps"):
        validate_config(schema, {"y": [*range(100), 499]}, subject="the config")


def test_an_honest_configuration_of_a_thousand_entries_is_far_from_the_bound() -> None:
    entry = {
        "type": "object",
        "properties": {"name": {"type": "string", "minLength": 1}, "share": {"type": "number", "minimum": 0}},
        "required": ["name"],
    }
    config = {"y": [{"name": f"n{number}", "share": number} for number in range(1000)]}
    assert validate_config(schema_of(y={"type": "array", "items": entry}), config, subject="the config") == config


CASES: list[tuple[list[Any], bool]] = [
    ([1, True, "1", [1], {"a": 1}, None], True),
    ([1, 1.0], False),
    ([{"a": 1, "b": [2]}, {"b": [2.0], "a": 1}], False),
    ([[], {}], True),
    ([0, False, ""], True),
    ([[1, False], [1, 0]], True),
]


@pytest.mark.parametrize(("values", "unique"), CASES)
def test_members_are_unique_as_json_schema_has_it(values: list[Any], unique: bool) -> None:
    schema = schema_of(y={"type": "array", "uniqueItems": True})
    if unique:
        assert validate_config(schema, {"y": values}, subject="the config") == {"y": values}
    else:
        with pytest.raises(InvalidDocument, match="members that all differ"):
            validate_config(schema, {"y": values}, subject="the config")


def test_thousands_of_maps_are_compared_in_one_pass() -> None:
    values = [{"a": number} for number in range(20_000)]
    schema = schema_of(y={"type": "array", "uniqueItems": True})
    assert len(validate_config(schema, {"y": values}, subject="the config")["y"]) == 20_000
    _, faults = normalise_config_schema({**schema, "required": values})
    assert faults, "maps are no names; that they are all different is found out in one pass too"


def test_a_schema_longer_than_a_manifest_is_refused_before_it_is_checked() -> None:
    with pytest.raises(InvalidDocument, match="expected at most 262144 characters") as caught:
        validate_config(schema_of(y={"enum": ["x" * 300_000]}), {}, subject="the config")
    assert caught.value.code == "config_schema_invalid"


def test_defaults_that_multiply_by_references_are_given_up_before_they_fill_the_memory() -> None:
    def level(number: int) -> dict[str, Any]:
        below = {"$ref": f"#/$defs/level{number + 1}"}
        return {"type": "object", "default": {}, "properties": {"left": below, "right": below}}

    levels = {f"level{number}": level(number) for number in range(40)}
    levels["level40"] = {"type": "integer", "default": 1}
    schema = {**schema_of(top={"$ref": "#/$defs/level0"}), "$defs": levels}
    with pytest.raises(InvalidDocument, match="takes more than 100000 steps"):
        validate_config(schema, {}, subject="the config")


def test_a_large_default_that_is_copied_many_times_is_given_up() -> None:
    large = {"type": "string", "default": "x" * 100_000}
    items = {f"k{number}": {"$ref": "#/$defs/large"} for number in range(2000)}
    with pytest.raises(InvalidDocument, match="takes more than 100000 steps"):
        validate_config({**schema_of(**items), "$defs": {"large": large}}, {}, subject="the config")


def test_metadata_with_countless_strange_dependencies_has_a_bounded_number_of_faults() -> None:
    manifest = parse_manifest("name: sample\nversion: 1.0.0\nentrypoint: 'sample:Main'\n")
    assert len(check_metadata(manifest, {"dependencies": [f"d{number}" for number in range(100_000)]})) == 100
