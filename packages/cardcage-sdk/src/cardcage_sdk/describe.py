"""What a plugin tells the host about itself when it is loaded."""

from __future__ import annotations

from typing import Any, cast

import msgspec

from cardcage_sdk.endpoints import Endpoint, Endpoints
from cardcage_sdk.signature import Parameter


def endpoint_facts(endpoints: Endpoints) -> dict[str, Any]:
    """The part of the description that comes from functions: methods, hooks, events, tools, schedules."""
    return {
        "methods": [
            {"name": each.name, "stream": each.is_stream, "doc": each.doc} for each in endpoints.methods.values()
        ],
        "hooks": [
            {"name": mark.name, "method": each.name, "priority": mark.priority} for mark, each in endpoints.hooks
        ],
        "events": list(dict.fromkeys(mark.pattern for mark, _ in endpoints.events)),
        "tools": [
            {
                "name": name,
                "description": each.doc if mark.description is None else mark.description,
                "parameters": parameters_schema(each),
            }
            for name, (mark, each) in endpoints.tools.items()
        ],
        "schedules": [{"cron": mark.cron, "method": each.name} for mark, each in endpoints.schedules],
    }


def parameters_schema(endpoint: Endpoint) -> dict[str, Any]:
    """The JSON Schema of the object that holds a function's arguments by name."""
    signature = endpoint.signature
    definitions: dict[str, Any] = {}
    properties = {each.name: _schema(each, definitions) for each in signature.parameters}
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": [each.name for each in signature.parameters if each.required],
        "additionalProperties": signature.named_rest,
    }
    if definitions:
        schema["$defs"] = definitions
    return schema


def _schema(parameter: Parameter, definitions: dict[str, Any]) -> dict[str, Any]:
    try:
        (schema,), parts = msgspec.json.schema_components([parameter.type])
    except (TypeError, ValueError):
        schema, parts = {}, {}  # a class that JSON knows nothing of: anything may be passed, and is checked on arrival
    definitions.update({name: _relocated(part) for name, part in parts.items()})
    schema = _relocated(schema)
    if not parameter.required and "default" not in schema:
        try:
            schema = schema | {"default": msgspec.to_builtins(parameter.default)}
        except (TypeError, ValueError):
            pass  # a default without a plain form is left unsaid
    return schema


def _relocated(schema: Any) -> Any:
    """References made absolute within the one document."""
    if isinstance(schema, dict):
        parts = cast("dict[str, Any]", schema)
        return {
            key: value.replace("#/components/schemas/", "#/$defs/") if key == "$ref" else _relocated(value)
            for key, value in parts.items()
        }
    if isinstance(schema, list):
        return [_relocated(item) for item in schema]  # pyright: ignore[reportUnknownVariableType]
    return schema
