"""The `permissions:` of a manifest in each of its spellings, read into requests.

permissions: [ReadCostData, "network:api.example.com:443"]     names of capabilities, or texts of any kind
permissions:
  network: ["api.example.com:443"]
  files: {read: ["/srv/bill.csv"], write: []}                  or read: and write: beside network:
  secrets: [SLACK_TOKEN]
  capabilities: [{name: ReadCostData, optional: true, reason: "to compare with last month"}]
  subprocess: ["/usr/bin/git"]
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from cardcage.foundation.errors import Misuse
from cardcage.manifest.document import child_path
from cardcage.manifest.gather import Gather
from cardcage.permissions import Permission, PermissionKind, PermissionRequest

KIND_KEYS: Final[Mapping[str, PermissionKind]] = {
    "network": PermissionKind.NETWORK,
    "read": PermissionKind.READ,
    "write": PermissionKind.WRITE,
    "secrets": PermissionKind.SECRET,
    "secret": PermissionKind.SECRET,
    "capabilities": PermissionKind.CAPABILITY,
    "capability": PermissionKind.CAPABILITY,
    "subprocess": PermissionKind.SUBPROCESS,
}
VALUE_KEYS: Final = ("value", "path", "host", "name", "program")
"""Under which an entry that is a mapping may say what it asks for."""

_ENTRY_KEYS: Final = frozenset({*VALUE_KEYS, "port", "optional", "reason"})
_EXPECTED_ENTRY: Final = "a text, or a mapping with value, optional and reason"


def read_permissions(gather: Gather, path: str, value: Any) -> tuple[PermissionRequest, ...]:
    """The requests, each permission once; it is optional only where every mention of it is."""
    if isinstance(value, dict):
        found = _from_mapping(gather, path, cast(dict[str, Any], value))
    else:
        found = _from_list(gather, path, value)
    requests: dict[Permission, PermissionRequest] = {}
    for request in found:
        known = requests.get(request.permission)
        if known is None or known.optional:
            requests[request.permission] = request
    return tuple(requests.values())


def _from_mapping(gather: Gather, path: str, value: Mapping[str, Any]) -> Iterator[PermissionRequest]:
    gather.unknown_keys(path, value, {*KIND_KEYS, "files"})
    for key, entries in value.items():
        here = child_path(path, key)
        if key == "files" and entries is not None:
            files = gather.mapping(here, entries, "a mapping of read and write to lists of paths")
            gather.unknown_keys(here, files, ("read", "write"))
            for mode in ("read", "write"):
                yield from _from_entries(gather, child_path(here, mode), files.get(mode), PermissionKind(mode))
        elif key in KIND_KEYS:
            yield from _from_entries(gather, here, entries, KIND_KEYS[key])


def _from_entries(gather: Gather, path: str, entries: Any, kind: PermissionKind) -> Iterator[PermissionRequest]:
    if entries is None:
        return
    # One entry may stand without its list, be it a text or a mapping.
    listed = cast(list[Any], [entries]) if isinstance(entries, dict) else entries
    for entry_path, entry in gather.members(path, listed, _EXPECTED_LIST[kind]):
        text, optional, reason = _read_entry(gather, entry_path, entry)
        if text is not None and (permission := _permission(gather, entry_path, kind, text)) is not None:
            yield PermissionRequest(permission=permission, optional=optional, reason=reason)


def _from_list(gather: Gather, path: str, value: Any) -> Iterator[PermissionRequest]:
    expected = "a list of capabilities, or a mapping of network, files, secrets, capabilities and subprocess"
    for entry_path, entry in gather.members(path, value, expected):
        text, optional, reason = _read_entry(gather, entry_path, entry)
        if text is None:
            continue
        kind, colon, rest = text.partition(":")
        if colon and kind in _KINDS:
            permission = _permission(gather, entry_path, PermissionKind(kind), rest)
        else:
            permission = _permission(gather, entry_path, PermissionKind.CAPABILITY, text)
        if permission is not None:
            yield PermissionRequest(permission=permission, optional=optional, reason=reason)


def _read_entry(gather: Gather, path: str, entry: Any) -> tuple[str | None, bool, str]:
    if not isinstance(entry, dict):
        return gather.text(path, entry, _EXPECTED_ENTRY, most=4096), False, ""
    members = cast(dict[str, Any], entry)
    gather.unknown_keys(path, members, _ENTRY_KEYS)
    optional = gather.flag(child_path(path, "optional"), members.get("optional", False), False)
    reason = ""
    if "reason" in members:
        reason = gather.text(child_path(path, "reason"), members["reason"], "a sentence", most=500) or ""
    return _entry_value(gather, path, members), optional, reason


def _entry_value(gather: Gather, path: str, members: Mapping[str, Any]) -> str | None:
    given = [key for key in VALUE_KEYS if key in members]
    if len(given) != 1:
        gather.fault(path, f"expected one of the keys {', '.join(VALUE_KEYS)}, found {', '.join(given) or 'none'}")
        return None
    text = gather.text(child_path(path, given[0]), members[given[0]], "what is asked for", most=4096)
    if text is None or "port" not in members:
        return text
    port_path = child_path(path, "port")
    port = gather.text(port_path, gather.raw_text(port_path, members["port"]), "a port, a range such as 80-90 or *")
    return f"{text}:{port}" if port else None


def _permission(gather: Gather, path: str, kind: PermissionKind, text: str) -> Permission | None:
    try:
        return Permission(kind, text)
    except Misuse as error:
        gather.fault(path, error.message.removeprefix(f"{kind}: "))
        return None


_KINDS: Final = frozenset(kind.value for kind in PermissionKind)
_EXPECTED_LIST: Final[Mapping[PermissionKind, str]] = {
    PermissionKind.NETWORK: 'a list of endpoints such as ["api.example.com:443"]',
    PermissionKind.READ: 'a list of absolute paths such as ["/srv/bill.csv"]',
    PermissionKind.WRITE: 'a list of absolute paths such as ["/srv/reports/"]',
    PermissionKind.SECRET: "a list of names such as [SLACK_TOKEN]",
    PermissionKind.CAPABILITY: "a list of names such as [ReadCostData]",
    PermissionKind.SUBPROCESS: 'a list of programs such as ["/usr/bin/git"], or ["*"] for any',
}
