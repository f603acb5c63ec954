"""What a manifest asks for, and how its placeholders become the values of one instance's configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from cardcage.foundation.errors import Fault, InvalidDocument, Misuse
from cardcage.permissions.vocabulary import PLACEHOLDER, Permission


@dataclass(frozen=True, slots=True, kw_only=True)
class PermissionRequest:
    """A permission that a plugin asks for. It starts without an `optional` one; `reason` is the author's sentence."""

    permission: Permission
    optional: bool = False
    reason: str = ""


def expand(requests: Iterable[PermissionRequest], config: Mapping[str, Any]) -> tuple[PermissionRequest, ...]:
    """The requests with each `${config.KEY}` replaced by the value in `config` (`KEY` may be dotted).

    Where the placeholder is the whole of the text, a value that is a list makes one request of each member. An optional
    request whose key is not configured is left out. Raises `InvalidDocument(code="config_invalid")` with every key that
    is absent or whose value makes no permission.
    """
    expanded: list[PermissionRequest] = []
    faults: list[Fault] = []
    for request in requests:
        if not request.permission.has_placeholders:
            expanded.append(request)
            continue
        permissions, request_faults = _expand_one(request, config)
        faults += request_faults
        expanded += (replace(request, permission=permission) for permission in permissions)
    if faults:
        raise InvalidDocument("the configuration that permissions refer to", faults, code="config_invalid")
    return tuple(dict.fromkeys(expanded))


def _expand_one(request: PermissionRequest, config: Mapping[str, Any]) -> tuple[list[Permission], list[Fault]]:
    text, kind = request.permission.value, request.permission.kind
    values = {key: _look_up(config, key) for key in PLACEHOLDER.findall(text)}
    absent = [key for key, value in values.items() if value is None]
    if absent and request.optional:
        return [], []
    faults = [Fault(path=key, message=f"expected a value, as {request.permission} needs it") for key in absent]
    faults += [
        Fault(path=key, message=f"expected a text or a number, as {request.permission} needs it, found {value!r:.80}")
        for key, value in values.items()
        if value is not None and not all(map(_is_text, _members(value, text)))
    ]
    permissions: list[Permission] = []
    for filled in [] if faults else _fill(text, values):
        try:
            permissions.append(Permission(kind, filled))
        except Misuse as error:
            faults.append(Fault(path=next(iter(values)), message=error.message))
    return permissions, faults


def _fill(text: str, values: Mapping[str, Any]) -> list[str]:
    if PLACEHOLDER.fullmatch(text):
        return [str(member) for value in values.values() for member in _members(value, text)]
    return [PLACEHOLDER.sub(lambda match: str(values[match[1]]), text)]


def _members(value: Any, text: str) -> list[Any]:
    """The values that it stands for: a list counts as its members only where the placeholder is the whole text."""
    return cast(list[Any], value) if isinstance(value, list) and PLACEHOLDER.fullmatch(text) else [value]


def _is_text(value: Any) -> bool:
    # A configured text that itself holds a placeholder is refused rather than expanded a second time.
    return isinstance(value, int | float) or (isinstance(value, str) and "${" not in value)


def _look_up(config: Mapping[str, Any], dotted: str) -> Any:
    value: Any = config
    for key in dotted.split("."):
        value = cast(Mapping[str, Any], value).get(key) if isinstance(value, Mapping) else None
    return value
