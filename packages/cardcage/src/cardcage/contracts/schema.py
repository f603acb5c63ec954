"""Extension points as JSON Schema (draft 2020-12), for other languages, for documentation and for tools."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from cardcage.contracts.point import ExtensionPoint, MethodSpec

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def interface_schema(point: ExtensionPoint) -> dict[str, Any]:
    """The whole interface: `methods` by name, and under `$defs` the types that they share."""
    declared = [declared for method in point.methods.values() for declared in _types(method)]
    described, definitions = msgspec.json.schema_components(declared, ref_template="#/$defs/{name}")
    schemas = iter(described)
    document: dict[str, Any] = {
        "$schema": DIALECT,
        "title": str(point.ref),
        "name": point.ref.name,
        "version": point.ref.version,
        "methods": {
            method.name: _method_schema(method, [next(schemas) for _ in _types(method)])
            for method in point.methods.values()
        },
        "$defs": definitions,
    }
    if point.doc:
        document["description"] = point.doc
    return document


def _types(method: MethodSpec) -> list[Any]:
    result = method.item_type if method.stream else method.result_type
    return [*(parameter.type for parameter in method.parameters), result]


def _method_schema(method: MethodSpec, schemas: list[dict[str, Any]]) -> dict[str, Any]:
    *parameter_schemas, result_schema = schemas
    properties: dict[str, Any] = {}
    for parameter, schema in zip(method.parameters, parameter_schemas, strict=True):
        properties[parameter.name] = schema if parameter.required else {**schema, "default": _plain(parameter.default)}
    document: dict[str, Any] = {
        "params": {
            "type": "object",
            "properties": properties,
            "required": [parameter.name for parameter in method.parameters if parameter.required],
            "additionalProperties": False,
            "x-order": [parameter.name for parameter in method.parameters],
        },
        "items" if method.stream else "result": result_schema,
        "stream": method.stream,
        "idempotent": method.idempotent,
    }
    if method.doc:
        document["description"] = method.doc
    return document


def _plain(default: Any) -> Any:
    return msgspec.to_builtins(default)
