"""One key of a manifest's text replaced, the rest left as its author wrote it: comments, order and quotes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final, cast

import yaml

from cardcage.permissions import Permission, PermissionKind

_FILES: Final = (PermissionKind.READ, PermissionKind.WRITE)
_KEYS: Final[Mapping[PermissionKind, str]] = {
    PermissionKind.NETWORK: "network",
    PermissionKind.READ: "read",
    PermissionKind.WRITE: "write",
    PermissionKind.SECRET: "secrets",
    PermissionKind.CAPABILITY: "capabilities",
    PermissionKind.SUBPROCESS: "subprocess",
}


def permissions_document(permissions: Iterable[Permission]) -> dict[str, Any]:
    """Permissions as the mapping that manifests hold: by kind, files together."""
    by_kind: dict[PermissionKind, list[str]] = {}
    for permission in sorted(set(permissions)):
        by_kind.setdefault(permission.kind, []).append(permission.value)
    files = {_KEYS[kind]: by_kind[kind] for kind in _FILES if kind in by_kind}
    document: dict[str, Any] = {}
    for kind, key in _KEYS.items():
        if kind is PermissionKind.READ and files:
            document["files"] = files
        if kind not in _FILES and kind in by_kind:
            document[key] = by_kind[kind]
    return document


def permissions_block(permissions: Iterable[Permission]) -> str:
    """The same as the text of the key `permissions:`, one value a line."""
    document = permissions_document(permissions)
    if not document:
        return "permissions: {}\n"
    lines = ["permissions:"]
    for key, value in document.items():
        lines.append(f"  {key}:")
        if isinstance(value, dict):
            for mode, paths in cast("dict[str, list[str]]", value).items():
                lines.append(f"    {mode}:")
                lines += [f"    - {_quoted(path)}" for path in paths]
        else:
            lines += [f"  - {_quoted(text)}" for text in cast("list[str]", value)]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def with_permissions(text: str, permissions: Iterable[Permission], *, as_json: bool = False) -> str:
    """The text of a valid manifest, asking for these permissions and for no others."""
    wanted = list(permissions)
    if as_json:
        return _json_with(text, "permissions", permissions_document(wanted))
    return _yaml_with(text, "permissions", permissions_block(wanted))


def with_entry_point(text: str, entry_point: str, *, as_json: bool = False) -> str:
    """The text of a valid manifest with another entry point, under the spelling that it has."""
    tree: Any = json.loads(text) if as_json else yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 -- texts alone
    key = "entrypoint" if "entrypoint" in tree else "entry_point"
    if as_json:
        return _json_with(text, key, entry_point)
    return _yaml_with(text, key, f"{key}: {_quoted(entry_point)}\n")


def _json_with(text: str, key: str, value: Any) -> str:
    return json.dumps({**json.loads(text), key: value}, indent=2, ensure_ascii=False) + "\n"


def _yaml_with(text: str, key: str, block: str) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode), "a manifest that was found valid is a mapping"
    if root.flow_style:
        return _flow_with(text, root, key, block)
    for name, value in root.value:
        if name.value == key:
            return text[: name.start_mark.index] + block + _rest(text, value)
    return text.rstrip("\n") + "\n" + block


def _rest(text: str, value: yaml.Node) -> str:
    """What follows a value. A block ends where the next key begins, so the comments before that are taken back."""
    assert value.start_mark is not None
    assert value.end_mark is not None
    inside = text[value.start_mark.index : value.end_mark.index]
    if isinstance(value, yaml.CollectionNode) and not value.flow_style:
        lines = inside.splitlines(keepends=True)
        while lines and (not lines[-1].strip() or lines[-1].startswith("#")):
            lines.pop()
        inside = "".join(lines)
        return text[value.start_mark.index + len(inside) :]
    rest = text[value.end_mark.index :]
    line_end = rest.find("\n")
    return "" if line_end < 0 else rest[line_end + 1 :]  # a comment behind a value of one line speaks of that value


def _flow_with(text: str, root: yaml.MappingNode, key: str, block: str) -> str:
    """A manifest in braces: the value of the key in braces as well."""
    value = json.dumps(yaml.safe_load(block)[key], ensure_ascii=False)
    for name, node in root.value:
        if name.value == key:
            return text[: node.start_mark.index] + value + text[node.end_mark.index :]
    assert root.end_mark is not None
    end = root.end_mark.index - 1
    comma = "" if text[:end].rstrip().endswith((",", "{")) else ", "
    return text[:end].rstrip() + f"{comma}{key}: {value}" + text[end:]
