"""The published JSON Schema of policy files, for editors that check them while they are written.

The parser asks for more, which no schema can say: that permissions are well formed, that layers exist, and that no rule
gives something by a claim.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any, Final, get_args

from cardcage.manifest import Runtime
from cardcage.manifest.config_schema import DIALECT
from cardcage.manifest.limits import LIMIT_KEYS
from cardcage.policy.keys import CONDITION_KEYS, EFFECT_KEYS
from cardcage.policy.model import ISOLATIONS, Fallback, Isolation, Level, Unconfined
from cardcage.policy.parse import BROAD_WORDS, DIGEST, LAYER, MEMBERS_MAX, PATTERN, RULE_NAME, RULES_MAX

Schema = dict[str, Any]


def policy_json_schema() -> Schema:
    """The schema of `policy.yaml` (draft 2020-12)."""
    return {
        "$schema": DIALECT,
        "title": "Cardcage policy",
        **_object(
            {
                "level": {"enum": [level.value for level in Level]},
                "default": {"enum": ["allow", "deny"]},
                "rules": {"type": "array", "items": {"$ref": "#/$defs/rule"}, "maxItems": RULES_MAX},
                "approvals": {"type": "array", "items": {"$ref": "#/$defs/approval"}, "maxItems": MEMBERS_MAX},
            }
        ),
        "$defs": {
            "rule": {
                **_object(
                    {
                        "name": _text(RULE_NAME),
                        "reason": _text(r"[^\n\r\t]+"),
                        "when": {"$ref": "#/$defs/conditions"},
                        "unless": {"$ref": "#/$defs/conditions"},
                        "then": {"$ref": "#/$defs/effects"},
                    }
                ),
                "required": ["then"],
            },
            "conditions": _described(_CONDITIONS, {key.name: key.help for key in CONDITION_KEYS}),
            "effects": {
                **_described(_EFFECTS, {key.name: key.help for key in EFFECT_KEYS}),
                "minProperties": 1,
            },
            "approval": {
                **_object({"plugin": _text(r"[^\n\r\t]+"), "digest": _text(DIGEST)}),
                "required": ["plugin", "digest"],
            },
        },
    }


def _object(properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _described(properties: Schema, helps: dict[str, str]) -> Schema:
    return _object({name: {"description": helps[name], **schema} for name, schema in properties.items()})


def _text(pattern: str, most: int = 500) -> Schema:
    # `$` would also match before a line feed at the end.
    return {"type": "string", "pattern": rf"^(?:{pattern})(?![\s\S])", "maxLength": most}


def _one_or_more(item: Schema) -> Schema:
    return {"anyOf": [item, {"type": "array", "items": item, "minItems": 1, "maxItems": MEMBERS_MAX}]}


def _enum(words: Collection[str]) -> Schema:
    return {"enum": list(words)}


def _comparison() -> Schema:
    return {"type": "string", "pattern": r"^(?:none|(?:>=|<=|==|>|<) ?\S[^\n\r\t]*)(?![\s\S])", "maxLength": 60}


_PERMISSIONS: Final = _one_or_more(_text(r"(?:network|read|write|secret|capability|subprocess):[^\n\r\t]+", 4200))
_PATTERNS: Final = _one_or_more(_text(PATTERN, 200))
_LAYERS: Final = _one_or_more(_text(LAYER))
_LIMITS: Final = _object({name: {"type": [key.number, "string"]} for name, key in LIMIT_KEYS.items()})

_CONDITIONS: Final[Schema] = {
    "plugin": _PATTERNS,
    "publisher": _PATTERNS,
    "verified": {"type": "boolean"},
    "source": _one_or_more(_text(r"/[^\n\r\t]*", 4096)),
    "type": _PATTERNS,
    "provides": _PATTERNS,
    "runtime": _one_or_more(_enum([runtime.value for runtime in Runtime])),
    "isolation": _one_or_more(_enum(ISOLATIONS)),
    "environment": _PATTERNS,
    "label": _PATTERNS,
    "permission": _PERMISSIONS,
    "broad": _one_or_more(_enum(BROAD_WORDS)),
    "limits": _object(dict.fromkeys(LIMIT_KEYS, _comparison())),
}
_EFFECTS: Final[Schema] = {
    "deny": {"const": True},
    "allow": {"const": True},
    "grant": _PERMISSIONS,
    "isolation": _enum(get_args(Isolation)),
    "floor": _LAYERS,
    "floor_where_possible": _LAYERS,
    "caps": _LIMITS,
    "defaults": _LIMITS,
    "bounded": {"anyOf": [{"const": "all"}, _one_or_more(_enum(list(LIMIT_KEYS)))]},
    "encrypt": {"const": "always"},
    "fallback": _enum(get_args(Fallback)),
    "unconfined": _enum(get_args(Unconfined)),
    "approval": {"const": "required"},
    "warn": _text(r"[^\n\r\t]+"),
}


if __name__ == "__main__":
    print(json.dumps(policy_json_schema(), indent=2))  # what protocol/policy.schema.json holds
