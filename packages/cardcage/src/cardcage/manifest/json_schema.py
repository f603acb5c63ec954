"""The published JSON Schema of manifests, for editors and for authors in other languages.

Whatever it accepts has the form that the parser wants. The parser asks for a little more, which no schema can say: that
a range of addresses begins at its first one, that a range of ports rises, that patterns compile.
"""

from __future__ import annotations

import json
from typing import Any, Final, get_args

from cardcage.foundation.names import INTERFACE_NAME_PATTERN, PLUGIN_NAME_CHARS_MAX, PLUGIN_NAME_PATTERN
from cardcage.manifest.asked import KIND_KEYS, VALUE_KEYS
from cardcage.manifest.config_schema import DIALECT, TYPE_NAMES
from cardcage.manifest.entrypoint import ENTRY_POINT_CHARS_MAX, FILE, IDENTIFIERS, URL, Runtime
from cardcage.manifest.fields import KEYS
from cardcage.manifest.limits import LIMIT_KEYS, LimitKey
from cardcage.manifest.model import Isolation
from cardcage.manifest.parse import CONCURRENCY_MAX, DESCRIPTION_CHARS_MAX, HOST, PLATFORM, TYPE, WEB_URL, WORD
from cardcage.manifest.versions import RANGE_CHARS_MAX, VERSION_CHARS_MAX
from cardcage.permissions import PermissionKind

Schema = dict[str, Any]

_N: Final = r"(?:0|[1-9][0-9]{0,8})"
_PRE: Final = r"(?:0|[1-9][0-9]{0,8}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_FULL: Final = rf"{_N}\.{_N}\.{_N}(?:-{_PRE}(?:\.{_PRE})*)?(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?"
_PARTIAL: Final = rf"{_N}(?:\.(?:{_N}|[xX*])(?:\.[xX*])?)?"
_COMPARATOR: Final = (
    rf"(?:(?:(?:>=|<=|==|!=|[=<>^~]) *)?v?{_FULL}|(?:(?:>=|<=|==|[=<>^~]) *)?v?{_PARTIAL}|\*)(?![0-9A-Za-z.*+-])"
)
_ALTERNATIVE: Final = rf"{_COMPARATOR}(?:(?: *, *| +){_COMPARATOR})*"
RANGE: Final = rf"{_ALTERNATIVE}(?: *\|\| *{_ALTERNATIVE})*"

_PORT: Final = r"(?:[1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
_LABEL: Final = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_TOP_LABEL: Final = r"[A-Za-z_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME: Final = rf"(?:\*\.)?(?:{_LABEL}\.)*{_TOP_LABEL}"
_OCTET: Final = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4: Final = rf"{_OCTET}(?:\.{_OCTET}){{3}}(?:/(?:3[0-2]|[12]?[0-9]))?"
_IPV6: Final = r"\[[0-9A-Fa-f:.]{2,45}(?:/[0-9]{1,3})?\]"
_ENDPOINT: Final = rf"(?=.{{1,250}}(?![\s\S]))(?:{_NAME}|\*|{_IPV4}|{_IPV6}):(?:\*|{_PORT}(?:-{_PORT})?)"
_ENDPOINT_URL: Final = rf"(?:https?|wss?)://(?:{_LABEL}\.)*{_TOP_LABEL}(?::{_PORT})?(?:/[A-Za-z0-9/._~-]*)?"
_PLACEHOLDER: Final = r"\$\{config\.[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*\}"
_WITH_PLACEHOLDERS: Final = (
    rf"(?:[^$\x00-\x1f\x7f]|\$(?!\{{))*{_PLACEHOLDER}(?:[^$\x00-\x1f\x7f]|\$(?!\{{)|{_PLACEHOLDER})*"
)
_COMPONENT: Final = r"(?!\.{1,2}(?:/|(?![\s\S])))[^/\x00-\x1f\x7f]+"
_FILE_PATH: Final = rf"(?![\s\S]*\$\{{)/+{_COMPONENT}(?:/+{_COMPONENT})*"
_PATH: Final = rf"(?![\s\S]*\$\{{)/+(?:{_COMPONENT}(?:/+{_COMPONENT})*/*)?"
_SECRET_NAME: Final = r"[A-Za-z_][A-Za-z0-9_.-]{0,199}"  # noqa: S105  the form of a name
_CAPABILITY: Final = r"(?=.{1,200}(?![\s\S]))[A-Za-z][A-Za-z0-9]*(?:[._:-][A-Za-z0-9]+)*"

_MODULE: Final = rf"(?![^:]*\.(?:[mc]?js|wasm|rn):){IDENTIFIERS}:{IDENTIFIERS}"

_VALUES: Final = {
    PermissionKind.NETWORK: rf"{_ENDPOINT}|{_ENDPOINT_URL}|{_WITH_PLACEHOLDERS}",
    PermissionKind.READ: rf"{_PATH}|{_WITH_PLACEHOLDERS}",
    PermissionKind.WRITE: rf"{_PATH}|{_WITH_PLACEHOLDERS}",
    PermissionKind.SECRET: rf"{_SECRET_NAME}|{_WITH_PLACEHOLDERS}",
    PermissionKind.CAPABILITY: rf"{_CAPABILITY}|{_WITH_PLACEHOLDERS}",
    PermissionKind.SUBPROCESS: rf"\*|{_FILE_PATH}|{_WITH_PLACEHOLDERS}",
}
_TITLE: Final = "Cardcage plugin manifest"


def manifest_json_schema() -> Schema:
    """The schema of `plugin.yaml` and its other names (draft 2020-12)."""
    properties: Schema = {}
    for key in KEYS:
        for name in key.names:
            properties[name] = {"description": key.help, **_KEY_SCHEMAS[key.name]}
    return {
        "$schema": DIALECT,
        "title": _TITLE,
        "type": "object",
        "properties": properties,
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
        "allOf": [
            *({"anyOf": [{"required": [name]} for name in key.names]} for key in KEYS if key.required),
            *({"not": {"required": [key.name, other]}} for key in KEYS for other in key.other_names),
            {"not": {"required": ["resource-type", "resource_type"]}},
            *_runtime_rules(),
        ],
        "$defs": {**_permission_definitions(), "configKey": _config_key()},
    }


def _text(pattern: str | None = None, most: int = 500) -> Schema:
    # `$` would also match before a line feed at the end.
    wanted = rf"^(?:{pattern})(?![\s\S])" if pattern else r"\S"
    return {"type": "string", "pattern": wanted, "maxLength": most}


def _one_or_more(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item}]}


def _whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


def _ranges(name: str) -> Schema:
    range_text = _text(RANGE, RANGE_CHARS_MAX)
    return {
        "anyOf": [
            {
                "type": "object",
                "propertyNames": {**_text(name, PLUGIN_NAME_CHARS_MAX)},
                "additionalProperties": {"anyOf": [range_text, _whole(0, 999_999_999)]},
            },
            _one_or_more(_text(rf"{name} *(?:@ *{RANGE}|(?=[=<>!^~*]){RANGE})?", 190)),
        ]
    }


def _limit(key: LimitKey) -> Schema:
    number: Schema = {"type": key.number, "maximum": key.most, "description": f"{key.help} Takes {key.expected}."}
    number["exclusiveMinimum"] = 0
    if key.pattern is None:
        return number
    return {"description": number.pop("description"), "anyOf": [number, _text(key.pattern)]}


def _permission_definitions() -> Schema:
    kinds = "|".join(PermissionKind)
    every = "|".join(rf"{kind}:(?:{value})" for kind, value in _VALUES.items())
    bare = rf"(?!(?:{kinds}):)(?:{_CAPABILITY})"
    values = {**_VALUES, "any": rf"{every}|{bare}"}
    definitions: Schema = {f"{kind}Value": _text(value, 4096) for kind, value in values.items()}
    return definitions | {f"{kind}Entry": _entry(kind) for kind in values}


def _entry(kind: str) -> Schema:
    """A permission as a text, or as a mapping that says more about it."""
    value = {"$ref": f"#/$defs/{kind}Value"}
    more: Schema = {
        "type": "object",
        "properties": {**dict.fromkeys(VALUE_KEYS, value), "optional": {"type": "boolean"}, "reason": _text()},
        "additionalProperties": False,
        "oneOf": [{"required": [name]} for name in VALUE_KEYS],
    }
    return {"anyOf": [value, more, *([_host_and_port()] if kind == PermissionKind.NETWORK else [])]}


def _host_and_port() -> Schema:
    return {
        "type": "object",
        "properties": {
            "host": _text(rf"(?=.{{1,200}}(?![\s\S]))(?:{_NAME})"),
            "port": {"anyOf": [_whole(1, 65535), _text(rf"\*|{_PORT}")]},
            "optional": {"type": "boolean"},
            "reason": _text(),
        },
        "required": ["host", "port"],
        "additionalProperties": False,
    }


def _permissions() -> Schema:
    entries = {kind: _one_or_more({"$ref": f"#/$defs/{kind}Entry"}) for kind in PermissionKind}
    files = {"read": entries[PermissionKind.READ], "write": entries[PermissionKind.WRITE]}
    return {
        "anyOf": [
            {"type": "array", "items": {"$ref": "#/$defs/anyEntry"}},
            {
                "type": "object",
                "properties": {
                    **{key: entries[kind] for key, kind in KIND_KEYS.items()},
                    "files": {"type": "object", "properties": files, "additionalProperties": False},
                },
                "additionalProperties": False,
            },
        ]
    }


def _config_key() -> Schema:
    """One key of the short form."""
    number, count, text = {"type": "number"}, {"type": "integer", "minimum": 0}, {"type": "string"}
    canonical = list(dict.fromkeys(TYPE_NAMES.values()))
    names = {"type": "array", "items": {"enum": canonical}, "uniqueItems": True, "minItems": 1}
    return {
        "type": "object",
        "properties": {
            "type": {"anyOf": [{"enum": list(TYPE_NAMES)}, names]},
            "required": {"type": "boolean"},
            "secret": {"type": "boolean"},
            "default": True,
            "const": True,
            "enum": {"type": "array"},
            "examples": {"type": "array"},
            **dict.fromkeys(("description", "title", "format"), text),
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), number),
            "multipleOf": {"type": "number", "exclusiveMinimum": 0},
            **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), count),
            "pattern": {"type": "string", "format": "regex", "maxLength": 500},
            "uniqueItems": {"type": "boolean"},
            "items": {"$ref": "#/$defs/configKey"},
            "properties": {"type": "object", "additionalProperties": {"$ref": "#/$defs/configKey"}},
        },
        "patternProperties": {"^x-": {}},
        "additionalProperties": False,
    }


def _config_schema() -> Schema:
    return {
        "anyOf": [
            {"type": "object", "additionalProperties": {"$ref": "#/$defs/configKey"}},
            {"type": "object", "properties": {"type": {"const": "object"}}, "required": ["type"], "$ref": DIALECT},
        ]
    }


def _entry_point() -> Schema:
    bare = FILE.removeprefix(r"(?:\./)?")
    programs = rf"(?:\./{bare}|(?:[A-Za-z0-9_@+-][A-Za-z0-9_.@+-]*/)+{bare})"
    forms = [
        _MODULE,
        rf"{FILE}\.py(?::{IDENTIFIERS})?",
        rf"{FILE}\.[mc]?js(?:[#:]{IDENTIFIERS})?",
        rf"{FILE}\.(?:wasm|rn)",
        programs,
        rf"https://(?:{_LABEL}\.)*{_TOP_LABEL}(?::{_PORT})?(?:/[A-Za-z0-9/._~?&=%-]*)?",
    ]
    return _text("|".join(forms), ENTRY_POINT_CHARS_MAX)


_KEY_SCHEMAS: Final[dict[str, Schema]] = {
    "name": _text(PLUGIN_NAME_PATTERN.strip("^$"), PLUGIN_NAME_CHARS_MAX),
    "version": _text(_FULL, VERSION_CHARS_MAX),
    "entrypoint": _entry_point(),
    "runtime": {"enum": [runtime.value for runtime in Runtime]},
    "description": _text(most=DESCRIPTION_CHARS_MAX),
    "author": _text(r"(?=[\s\S]*\S)[^\n\r\t]+"),
    "license": _text(r"(?=[\s\S]*\S)[^\n\r\t]+"),
    "homepage": _text(WEB_URL, 2000),
    "repository": _text(WEB_URL, 2000),
    "keywords": _one_or_more(_text(r"(?=[\s\S]*\S)[^\n\r\t]+", 200)),
    "type": _text(TYPE, 100),
    "provides": _one_or_more(_text(rf"{INTERFACE_NAME_PATTERN.strip('^$')}@[1-9][0-9]{{0,4}}", 200)),
    "requires": _ranges(HOST),
    "dependencies": _ranges(HOST),
    "permissions": _permissions(),
    "limits": {
        "type": "object",
        "properties": {name: _limit(key) for name, key in LIMIT_KEYS.items()},
        "additionalProperties": False,
    },
    "config_schema": _config_schema(),
    "platforms": _one_or_more(_text(PLATFORM, 200)),
    "isolation": {"enum": list(get_args(Isolation))},
    "encrypt": {"const": "always"},
    "priority": _whole(1, 100),
    "concurrency": {
        "anyOf": [
            _whole(1, CONCURRENCY_MAX),
            {
                "type": "object",
                "properties": dict.fromkeys(("threads", "processes"), _whole(1, CONCURRENCY_MAX)),
                "additionalProperties": False,
            },
        ]
    },
    "enabled": {"type": "boolean"},
    "target": _text(WORD, 200),
    "resource_types": _one_or_more(_text(WORD, 200)),
    "channels": _one_or_more(_text(WORD, 200)),
    "system": _text(WORD, 200),
    "cloud": _text(WORD, 200),
    "$schema": {"type": "string"},
}


def _runtime_rules() -> list[Schema]:
    """Which entry points a `runtime:` can be said of."""
    files = rf"^{FILE}(?![\s\S])"
    rules = {
        Runtime.PYTHON: rf"^(?:{_MODULE}|{FILE}\.py(?::{IDENTIFIERS})?)(?![\s\S])",
        Runtime.NODE: rf"^{FILE}\.[mc]?js(?:[#:]{IDENTIFIERS})?(?![\s\S])",
        Runtime.WASM: rf"^{FILE}\.wasm(?![\s\S])",
        Runtime.RUNE: rf"^{FILE}\.rn(?![\s\S])",
        Runtime.EXECUTABLE: rf"(?!.*\.(?:wasm|rn)(?![\s\S])){files}",
        Runtime.MCP: rf"(?!.*\.(?:wasm|rn)(?![\s\S]))(?:{files}|^{URL})",
        Runtime.SERVICE: r"^https://",
    }
    return [
        {
            "if": {"properties": {"runtime": {"const": runtime.value}}, "required": ["runtime"]},
            "then": {"properties": {"entrypoint": {"pattern": pattern}, "entry_point": {"pattern": pattern}}},
        }
        for runtime, pattern in rules.items()
    ]


if __name__ == "__main__":
    print(json.dumps(manifest_json_schema(), indent=2))  # what protocol/manifest.schema.json holds
