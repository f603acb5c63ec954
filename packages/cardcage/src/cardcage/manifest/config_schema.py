"""The `config_schema:` of a manifest: JSON Schema, or a short form, normalised to JSON Schema (draft 2020-12).

    config_schema:
      endpoint: {type: string, required: true, description: Where Prometheus answers.}
      threshold: {type: number, default: 0.25, minimum: 0}
      auth_token: {type: string, secret: true}

A plugin's schema is untrusted: it may refer to nothing outside itself, and its patterns may not take time that grows
faster than the text they are held against.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from jsonschema import Draft7Validator, Draft202012Validator, validators
from jsonschema.exceptions import ValidationError

from cardcage.foundation.errors import Fault
from cardcage.manifest.document import child_path
from cardcage.manifest.gather import describe, did_you_mean
from cardcage.manifest.patterns import pattern_problem

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

TYPE_NAMES: Final[Mapping[str, str]] = {
    **{name: name for name in ("string", "integer", "number", "boolean", "array", "object", "null")},
    "str": "string",
    "int": "integer",
    "float": "number",
    "bool": "boolean",
    "list": "array",
    "dict": "object",
}
"""The types of the short form, among them Python's names for them."""

SHORT_KEYS: Final = frozenset(
    {
        *("type", "required", "default", "description", "title", "enum", "const", "examples", "format", "secret"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minLength", "maxLength", "pattern", "items", "minItems", "maxItems", "uniqueItems", "properties"),
    }
)
"""What an entry of the short form may hold: the words of JSON Schema, and `required` and `secret`."""

_DRAFT_7: Final = re.compile(r"https?://json-schema\.org/draft-0[4-7]/schema#?")
_REFERENCES: Final = frozenset({"$ref", "$dynamicRef"})
_IDENTIFIERS: Final = frozenset({"$id", "$anchor", "$dynamicAnchor", "$vocabulary"})
_SUBSCHEMAS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_SCHEMA_LISTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SCHEMA_VALUES: Final = frozenset(
    {
        *("items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else"),
        *("unevaluatedItems", "unevaluatedProperties", "additionalItems"),
    }
)


def normalise_config_schema(value: Any, path: str = "config_schema") -> tuple[dict[str, Any] | None, list[Fault]]:
    """The schema as JSON Schema draft 2020-12, None for an empty one, and the faults found."""
    if not isinstance(value, dict):
        return None, [Fault(path=path, message=f"expected a mapping, found {describe(value)}")]
    document = cast(dict[str, Any], value)
    if not document:
        return None, []
    if not _is_json_schema(document):
        faults: list[Fault] = []
        schema = _object_from_short(document, path, faults)
        return (None, faults) if faults else _checked({"$schema": DIALECT, **schema}, path)
    if _DRAFT_7.fullmatch(str(document.get("$schema", ""))):
        if faults := _meta_faults(Draft7Validator, document, path):
            return None, faults
        document = cast(dict[str, Any], _to_2020_12(document))
    return _checked({"type": "object", **document, "$schema": DIALECT}, path)


def _is_json_schema(document: Mapping[str, Any]) -> bool:
    """Whether it is a schema, rather than keys of a configuration that may themselves be called `type` or `items`."""
    if isinstance(document.get("$schema"), str) or isinstance(document.get("$ref"), str):
        return True
    if isinstance(document.get("type"), str | list):
        return True
    properties = document.get("properties")
    if isinstance(properties, dict) and not isinstance(cast(dict[str, Any], properties).get("type"), str):
        return True
    return any(isinstance(document.get(word), list) for word in ("allOf", "anyOf", "oneOf"))


def _object_from_short(document: Mapping[str, Any], path: str, faults: list[Fault]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    required: list[str] = []
    for key, entry in document.items():
        here = child_path(path, key)
        if not isinstance(entry, dict):
            faults.append(
                Fault(path=here, message=f"expected a mapping such as {{type: string}}, found {describe(entry)}")
            )
            continue
        members = dict(cast(dict[str, Any], entry))
        if _take_flag(members, "required", here, faults):
            required.append(key)
        properties[key] = _value_from_short(members, here, faults)
    schema: dict[str, Any] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _value_from_short(members: dict[str, Any], path: str, faults: list[Fault]) -> dict[str, Any]:
    for key in members:
        if key not in SHORT_KEYS and not key.startswith("x-"):
            message = f"no such key{did_you_mean(key, SHORT_KEYS)}"
            faults.append(Fault(path=child_path(path, key), message=message))
    if _take_flag(members, "secret", path, faults):
        members["writeOnly"] = True
    members = {**members, **_type_of(members, path, faults)}
    if isinstance(items := members.get("items"), dict):
        members["items"] = _value_from_short(dict(cast(dict[str, Any], items)), child_path(path, "items"), faults)
    if isinstance(properties := members.get("properties"), dict):
        inner = _object_from_short(cast(dict[str, Any], properties), child_path(path, "properties"), faults)
        members = {**members, **inner}
    return members


def _type_of(members: Mapping[str, Any], path: str, faults: list[Fault]) -> dict[str, Any]:
    if "type" not in members:
        return {}
    given = members["type"]
    names = cast(list[Any], given) if isinstance(given, list) else [given]
    for name in names:
        if not isinstance(name, str) or name not in TYPE_NAMES:
            hint = did_you_mean(name, TYPE_NAMES) if isinstance(name, str) else ""
            expected = ", ".join(dict.fromkeys(TYPE_NAMES.values()))
            message = f"expected one of {expected}, found {describe(name)}{hint}"
            faults.append(Fault(path=child_path(path, "type"), message=message))
            return {}
    types = [TYPE_NAMES[name] for name in names]
    return {"type": types if isinstance(given, list) else types[0]}


def _take_flag(members: dict[str, Any], key: str, path: str, faults: list[Fault]) -> bool:
    flag = members.pop(key, False)
    if not isinstance(flag, bool):
        faults.append(Fault(path=child_path(path, key), message=f"expected true or false, found {describe(flag)}"))
    return flag is True


def _checked(schema: dict[str, Any], path: str) -> tuple[dict[str, Any] | None, list[Fault]]:
    faults = _meta_faults(Draft202012Validator, schema, path) or list(_danger_faults(schema, schema, path))
    if not faults and schema.get("type") != "object":
        message = f"expected the schema of an object, found the type {describe(schema['type'])}"
        faults = [Fault(path=child_path(path, "type"), message=message)]
    return (None, faults) if faults else (schema, [])


def unique_items(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[ValidationError]:
    """`uniqueItems` in one pass: comparing each member with each other takes half a minute for 6,000 maps."""
    if wanted is True and isinstance(instance, list):
        members = cast(list[Any], instance)
        if len({_hashable(member) for member in members}) < len(members):
            yield ValidationError("has members that are equal", validator="uniqueItems")


def _hashable(value: Any) -> Any:
    """Equal for values that JSON Schema holds to be equal: 1 is 1.0, and neither is true."""
    if isinstance(value, dict):
        return frozenset((name, _hashable(member)) for name, member in cast(dict[str, Any], value).items())
    if isinstance(value, list):
        return tuple(map(_hashable, cast(list[Any], value)))
    return (value, isinstance(value, bool))


def _meta_faults(validator: type[Any], schema: Mapping[str, Any], path: str) -> list[Fault]:
    faults: list[Fault] = []
    frugal = cast(Any, validators).extend(validator, {"uniqueItems": unique_items})
    for error in frugal(validator.META_SCHEMA).iter_errors(schema):
        here = path
        for part in error.absolute_path:
            here = child_path(here, part)
        faults.append(Fault(path=here, message=f"is no JSON Schema: {error.message[:200]}"))
        if len(faults) >= 20:
            break
    return faults


def look_up(root: Mapping[str, Any], reference: str) -> Any:
    """What `#` or `#/a/b` names in the schema, or None where it names nothing."""
    found: Any = root
    for part in reference[1:].split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and name.isdecimal() and int(name) < len(cast(list[Any], found)):
            found = cast(list[Any], found)[int(name)]
        else:
            found = cast(dict[str, Any], found).get(name) if isinstance(found, dict) else None
    return found


def _danger_faults(root: Mapping[str, Any], schema: Any, path: str) -> Iterator[Fault]:
    """References that lead out of the schema or nowhere, and patterns that no host should run."""
    if not isinstance(schema, dict):
        return
    for key, value in cast(dict[str, Any], schema).items():
        here = child_path(path, key)
        if key in _REFERENCES:
            yield from _reference_faults(root, value, here)
        elif key in _IDENTIFIERS:
            yield Fault(path=here, message="expected no identifiers in the schema of a configuration")
        elif key == "pattern" and (problem := pattern_problem(value)):
            yield Fault(path=here, message=problem)
        elif key in _SCHEMA_VALUES:
            yield from _danger_faults(root, value, here)
        elif key in _SCHEMA_LISTS and isinstance(value, list):
            for index, member in enumerate(cast(list[Any], value)):
                yield from _danger_faults(root, member, child_path(here, index))
        elif key in _SUBSCHEMAS and isinstance(value, dict):
            for name, member in cast(dict[str, Any], value).items():
                if key == "patternProperties" and (problem := pattern_problem(name)):
                    yield Fault(path=child_path(here, name), message=problem)
                yield from _danger_faults(root, member, child_path(here, name))


def _reference_faults(root: Mapping[str, Any], reference: Any, path: str) -> Iterator[Fault]:
    if not isinstance(reference, str) or not re.fullmatch(r"#(?:/[^%]*)?", reference):
        found = describe(reference)
        yield Fault(path=path, message=f"expected a reference within the schema, such as #/$defs/name, found {found}")
    elif not isinstance(look_up(root, reference), dict | bool):
        yield Fault(path=path, message=f"expected a reference to a part of the schema, found {describe(reference)}")


def _to_2020_12(schema: Any) -> Any:
    """Draft 7 words in those of 2020-12: `definitions`, `items` as a list, `dependencies` and `$id`."""
    if isinstance(schema, list):
        return [_to_2020_12(member) for member in cast(list[Any], schema)]
    if not isinstance(schema, dict):
        return schema
    converted: dict[str, Any] = {}
    for key, value in cast(dict[str, Any], schema).items():
        converted.update(_convert_word(key, value, cast(dict[str, Any], schema)))
    return converted


def _convert_word(key: str, value: Any, schema: Mapping[str, Any]) -> dict[str, Any]:
    match key:
        case "$schema" | "$id":
            return {}
        case "definitions":
            return {"$defs": _members_to_2020_12(value)}
        case "$ref":
            return {"$ref": re.sub(r"^#/definitions/", "#/$defs/", value)}
        case "items" if isinstance(value, list):
            return {"prefixItems": _to_2020_12(value)}
        case "additionalItems":
            return {"items": _to_2020_12(value)} if isinstance(schema.get("items"), list) else {}
        case "dependencies":
            needs = cast(dict[str, Any], value)
            lists: dict[str, Any] = {name: needed for name, needed in needs.items() if isinstance(needed, list)}
            schemas = {name: _to_2020_12(needed) for name, needed in needs.items() if name not in lists}
            return {"dependentRequired": lists, "dependentSchemas": schemas}
        case _ if key in _SUBSCHEMAS:
            return {key: _members_to_2020_12(value)}
        case _ if key in _SCHEMA_LISTS or key in _SCHEMA_VALUES:
            return {key: _to_2020_12(value)}
        case _:
            return {key: value}


def _members_to_2020_12(value: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _to_2020_12(member) for name, member in value.items()}
