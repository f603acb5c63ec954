"""The words in which permissions are asked and granted.

    permission = kind ":" value
    kind       = "network" | "read" | "write" | "secret" | "capability" | "subprocess"

    network    = host ":" ports | url             read, write = path
    host       = name                             path        = "/" { component "/" } [ component ]
               | "*." name                        component   = any text but "", ".", ".." and control characters
               | "*"
               | IPv4 | IPv4 "/" bits             secret      = letter or "_" { letter | digit | "_" | "." | "-" }
               | "[" IPv6 "]"                     capability  = word { ( "." | ":" | "-" | "_" ) word }
               | "[" IPv6 "/" bits "]"            subprocess  = path of a file | "*"
    ports      = port | port "-" port | "*"

- A host name is compared without regard to case. `*.example.com` covers every name beneath `example.com`, at any
  depth, but not `example.com` itself. A range of addresses covers addresses, never names: whoever resolves a name
  checks the address.
- A URL is short for its host and port: `https://api.example.com/v1` means `api.example.com:443`.
- A path that ends in `/` covers the folder and all beneath it; any other covers that one path. Case matters. Neither
  read nor write implies the other.
- Secrets, capabilities and programs are covered by the same name alone; `subprocess:*` covers every program.

In a manifest a value may hold `${config.KEY}`, which stands for the instance's own configuration until it is expanded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, assert_never

from cardcage.foundation.errors import Misuse
from cardcage.permissions import network, paths

VALUE_CHARS_MAX: Final = 4096
"""The longest path that Linux takes; every other kind of value is far shorter."""

PLACEHOLDER: Final = re.compile(r"\$\{config\.([A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z_][A-Za-z0-9_-]*)*)\}")
_SECRET: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")
_CAPABILITY: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[._:-][A-Za-z0-9]+)*")


class PermissionKind(StrEnum):
    """What a permission is about."""

    NETWORK = "network"
    """Opening TCP connections to a host and port."""
    READ = "read"
    """Reading a file, or all files beneath a folder, of the host."""
    WRITE = "write"
    """Writing a file, or files beneath a folder, of the host."""
    SECRET = "secret"  # noqa: S105  the name of a kind
    """Being handed a secret by its name."""
    CAPABILITY = "capability"
    """Calling a service of the host by its capability's name."""
    SUBPROCESS = "subprocess"
    """Running a program."""


_KINDS: Final = frozenset(kind.value for kind in PermissionKind)


@dataclass(frozen=True, slots=True, order=True)
class Permission:
    """One thing that may be asked or granted, always in its one canonical spelling.

    Raises `Misuse(code="bad_permission")` for a value that its kind does not allow.
    """

    kind: PermissionKind
    value: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", PermissionKind(self.kind))
        object.__setattr__(self, "value", _canonical(self.kind, self.value))

    @classmethod
    def parse(cls, text: str) -> Permission:
        """The permission that `text`, such as `read:/srv/bill.csv`, spells. Raises `Misuse` where it spells none."""
        kind, colon, value = text.partition(":")
        if not colon or kind not in _KINDS:
            raise _bad(
                f"expected kind:value with one of the kinds {', '.join(PermissionKind)}, found {_shorten(text)}",
                hint="for example network:api.example.com:443, read:/srv/bill.csv or capability:ReadCostData",
            )
        return cls(PermissionKind(kind), value)

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @property
    def has_placeholders(self) -> bool:
        """Whether it still holds `${config.KEY}`, and so covers nothing yet."""
        return "${" in self.value

    def describe(self) -> str:
        """What it allows, as the subject of a sentence: `reading /srv/bill.csv`."""
        match self.kind:
            case PermissionKind.NETWORK:
                return f"network access to {self.value}"
            case PermissionKind.READ:
                return f"reading {_path_words(self.value)}"
            case PermissionKind.WRITE:
                return f"writing {_path_words(self.value)}"
            case PermissionKind.SECRET:
                return f"secret {self.value}"
            case PermissionKind.CAPABILITY:
                return f"capability {self.value}"
            case PermissionKind.SUBPROCESS:
                return "running any program" if self.value == "*" else f"running {self.value}"
            case _:
                assert_never(self.kind)

    def covers(self, other: Permission) -> bool:
        """Whether whoever has this one has the other too."""
        if self.kind is not other.kind or self.has_placeholders or other.has_placeholders:
            return False
        match self.kind:
            case PermissionKind.NETWORK:
                return network.parse_endpoint(self.value).covers(network.parse_endpoint(other.value))
            case PermissionKind.READ | PermissionKind.WRITE:
                return paths.covers(self.value, other.value)
            case PermissionKind.SUBPROCESS:
                return self.value in ("*", other.value)
            case PermissionKind.SECRET | PermissionKind.CAPABILITY:
                return self.value == other.value
            case _:
                assert_never(self.kind)

    def overlaps(self, other: Permission) -> bool:
        """Whether there is anything that both allow. A name is not resolved, so it overlaps with no address."""
        if self.kind is PermissionKind.NETWORK and self.kind is other.kind:
            plain = not (self.has_placeholders or other.has_placeholders)
            return plain and network.parse_endpoint(self.value).overlaps(network.parse_endpoint(other.value))
        # Folders lie in each other or apart, and names are equal or not: only ranges of ports can cross.
        return self.covers(other) or other.covers(self)

    @property
    def is_broad(self) -> bool:
        """Whether it stands for things that nobody named one by one.

        A pattern of hosts, a range of addresses, every port of a host, any program, or all files there are.
        """
        if self.has_placeholders:
            return False
        match self.kind:
            case PermissionKind.NETWORK:
                return network.parse_endpoint(self.value).is_broad
            case PermissionKind.READ | PermissionKind.WRITE:
                return self.value == "/"
            case PermissionKind.SUBPROCESS:
                return self.value == "*"
            case PermissionKind.SECRET | PermissionKind.CAPABILITY:
                return False
            case _:
                assert_never(self.kind)


def _canonical(kind: PermissionKind, value: str) -> str:
    if len(value) > VALUE_CHARS_MAX:
        raise _bad(f"{kind}: a value has at most {VALUE_CHARS_MAX} characters, found {len(value)}")
    if "${" in value:
        return _check_placeholders(kind, value)
    try:
        return _canonical_plain(kind, value)
    except ValueError as error:
        raise _bad(f"{kind}: {error}") from None


def _canonical_plain(kind: PermissionKind, value: str) -> str:
    match kind:
        case PermissionKind.NETWORK:
            return str(network.parse_endpoint(value))
        case PermissionKind.READ | PermissionKind.WRITE:
            return paths.canonical(value)
        case PermissionKind.SECRET:
            return _check_name(_SECRET, value, "the name of a secret, such as SLACK_TOKEN")
        case PermissionKind.CAPABILITY:
            return _check_name(_CAPABILITY, value, "the name of a capability, such as ReadCostData")
        case PermissionKind.SUBPROCESS:
            return value if value == "*" else paths.canonical_file(value)
        case _:
            assert_never(kind)


def _check_name(pattern: re.Pattern[str], value: str, expected: str) -> str:
    if len(value) > 200 or not pattern.fullmatch(value):
        raise ValueError(f"expected {expected}, found {_shorten(value)}")
    return value


def _check_placeholders(kind: PermissionKind, value: str) -> str:
    if "${" in PLACEHOLDER.sub("", value):
        raise _bad(f"{kind}: expected placeholders of the form ${{config.KEY}}, found {_shorten(value)}")
    if any(ord(char) < 32 or ord(char) == 127 for char in value):
        raise _bad(f"{kind}: expected no control characters, found {_shorten(value)}")
    return value


def _path_words(path: str) -> str:
    return f"all beneath {path}" if path.endswith("/") else path


def _bad(message: str, *, hint: str | None = None) -> Misuse:
    return Misuse(message, code="bad_permission", hint=hint)


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
