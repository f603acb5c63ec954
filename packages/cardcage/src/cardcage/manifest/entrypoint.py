"""Where a plugin's code begins: what an entry point's text means, without looking at any file.

| text                                   | runtime    |
|----------------------------------------|------------|
| `module:Class`, `package.module:Class` | python     |
| `file.py`, `file.py:Class`             | python     |
| `file.js`, `file.mjs`, `file.cjs`, each with `#Export` or `:Export` if need be | node |
| `module.wasm`                          | wasm       |
| `script.rn`                            | rune       |
| `./program`, `bin/program`             | executable |
| `https://host/path`                    | service    |

`runtime:` in the manifest may say otherwise where that makes sense: any file can be an `executable` (a script with a
`#!` line) or an MCP server, a URL can be an MCP server too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from cardcage.permissions.network import parse_endpoint

ENTRY_POINT_CHARS_MAX: Final = 500


class Runtime(StrEnum):
    """What runs a plugin."""

    PYTHON = "python"
    NODE = "node"
    EXECUTABLE = "executable"
    WASM = "wasm"
    RUNE = "rune"
    SERVICE = "service"
    MCP = "mcp"


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPoint:
    """A resolved entry point: exactly one of `module`, `file` (relative to the package) and `url` is set."""

    kind: Runtime
    module: str | None = None
    file: str | None = None
    attribute: str | None = None
    url: str | None = None
    raw: str


IDENTIFIERS: Final = r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*"
FILE: Final = r"(?:\./)?(?:(?!\.{1,2}/)[A-Za-z0-9_.@+-]+/)*(?!\.{1,2}(?![A-Za-z0-9_.@+-]))[A-Za-z0-9_.@+-]+"
URL: Final = r"https://[^\s\x00-\x1f\x7f\"<>\\^`{|}]+"

_FILE_RUNTIMES: Final[Mapping[str, Runtime]] = {
    "py": Runtime.PYTHON,
    "js": Runtime.NODE,
    "mjs": Runtime.NODE,
    "cjs": Runtime.NODE,
    "wasm": Runtime.WASM,
    "rn": Runtime.RUNE,
}
_OVERRIDES: Final[Mapping[Runtime, frozenset[Runtime]]] = {
    Runtime.PYTHON: frozenset({Runtime.EXECUTABLE, Runtime.MCP}),
    Runtime.NODE: frozenset({Runtime.EXECUTABLE, Runtime.MCP}),
    Runtime.EXECUTABLE: frozenset({Runtime.MCP}),
    Runtime.SERVICE: frozenset({Runtime.MCP}),
}
"""What `runtime:` may make of a file or URL, besides what its text says."""

_WITH_ATTRIBUTE: Final = frozenset({Runtime.PYTHON, Runtime.NODE})
_EXPECTED: Final = "module:Class, file.py, file.js, module.wasm, script.rn, ./program or https://host/path"


def resolve_entry_point(text: str, runtime: Runtime | None = None) -> EntryPoint:
    """What `text` means, given the manifest's `runtime:` if there is one.

    Raises `ValueError` that says what was expected and found: an unknown form, a path that is absolute or that climbs
    out of the package, or a runtime that the text contradicts.
    """
    if len(text) > ENTRY_POINT_CHARS_MAX:
        raise ValueError(f"expected at most {ENTRY_POINT_CHARS_MAX} characters, found {len(text)}")
    entry = _resolve_url(text) if "://" in text else _resolve_local(text, runtime)
    return entry if runtime in (None, entry.kind) else _override(entry, runtime)


def _resolve_url(text: str) -> EntryPoint:
    if not re.fullmatch(URL, text):
        raise ValueError(f"expected a URL that begins with https://, found {text[:80]!r}")
    parse_endpoint(text)
    return EntryPoint(kind=Runtime.SERVICE, url=text, raw=text)


def _resolve_local(text: str, runtime: Runtime | None) -> EntryPoint:
    _refuse_outside(text)
    head, attribute = _split_attribute(text)
    kind = _FILE_RUNTIMES.get(head.rpartition(".")[2]) if "." in head else None
    if kind is None and attribute is not None:
        return _resolve_module(text, head, attribute)
    if kind is None and ("/" in head or runtime in (Runtime.EXECUTABLE, Runtime.MCP)):
        kind = Runtime.EXECUTABLE
    if kind is None or not re.fullmatch(FILE, head):
        raise ValueError(f"expected {_EXPECTED}, found {text[:80]!r}")
    if attribute is not None and (kind not in _WITH_ATTRIBUTE or not re.fullmatch(IDENTIFIERS, attribute)):
        raise ValueError(f"expected {_EXPECTED}, found {text[:80]!r}")
    return EntryPoint(kind=kind, file=head.removeprefix("./"), attribute=attribute, raw=text)


def _resolve_module(text: str, module: str, attribute: str) -> EntryPoint:
    if "#" in text or not re.fullmatch(IDENTIFIERS, module) or not re.fullmatch(IDENTIFIERS, attribute):
        raise ValueError(f"expected {_EXPECTED}, found {text[:80]!r}")
    return EntryPoint(kind=Runtime.PYTHON, module=module, attribute=attribute, raw=text)


def _split_attribute(text: str) -> tuple[str, str | None]:
    for sign in ("#", ":"):
        head, found, attribute = text.rpartition(sign)
        if found:
            return head, attribute
    return text, None


def _refuse_outside(text: str) -> None:
    if text.startswith(("/", "~")) or "\\" in text or re.match(r"[A-Za-z]:/", text):
        raise ValueError(f"expected a path relative to the package, with forward slashes, found {text[:80]!r}")
    if ".." in re.split(r"[/:#]", text):
        raise ValueError(f"expected a path that stays in the package, found {text[:80]!r}")


def _override(entry: EntryPoint, runtime: Runtime) -> EntryPoint:
    possible = _OVERRIDES.get(entry.kind, frozenset()) if entry.module is None else frozenset[Runtime]()
    if runtime not in possible:
        raise ValueError(
            f"expected an entry point for the runtime {runtime}, found {entry.raw!r}, which is {entry.kind}"
        )
    if entry.attribute is not None:
        raise ValueError(f"expected a file alone for the runtime {runtime}, found {entry.raw!r}")
    return EntryPoint(kind=runtime, file=entry.file, url=entry.url, raw=entry.raw)
