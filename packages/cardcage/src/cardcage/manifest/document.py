"""Untrusted bytes to a plain tree, within limits: the only place that meets YAML and JSON syntax.

YAML is read from the parser's events rather than by its constructors: depth and number of nodes are bounded while they
grow, aliases and tags never come to mean anything, and each value keeps its line and its text (so that `version: 1.10`
is not the number 1.1). Scalars are those of JSON; dates, `yes`, `0777` and `1:30` are texts.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, cast

import yaml

from cardcage.foundation.errors import Fault
from cardcage.foundation.limits import MANIFEST_BYTES_MAX, MANIFEST_DEPTH_MAX, MANIFEST_NODES_MAX

Encoding = Literal["yaml", "json"]

FAULTS_MAX: Final = 100
"""Faults reported of one document: more help nobody, and a hostile one could have a thousand."""

NUMBER_CHARS_MAX: Final = 40
_BYTE_ORDER_MARKS: Final = (
    (b"\xef\xbb\xbf", "a byte-order mark"),
    (b"\xff\xfe", "the byte-order mark of UTF-16"),
    (b"\xfe\xff", "the byte-order mark of UTF-16"),
)
_FORBIDDEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
)
"""Control characters, and those that change how text around them is shown: they can make one text look like another."""

_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_WORDS: Final[Mapping[str, bool | None]] = {
    "": None,
    "~": None,
    **dict.fromkeys(("null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_PLAIN_KEY: Final = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A tree of dicts, lists and scalars. By path: the line of each value, and the text of each that was not quoted."""

    tree: Any
    lines: Mapping[str, int]
    texts: Mapping[str, str]


class _Stop(Exception):  # control flow inside this module
    """Reading cannot go on; its fault has been noted."""


def child_path(path: str, key: str | int) -> str:
    """The path of a member: `permissions.network[2]`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    if not _PLAIN_KEY.fullmatch(key):
        return f"{path}[{json.dumps(key[:40])}]"
    return f"{path}.{key}" if path else key


def read_document(data: bytes | str, encoding: Encoding) -> tuple[Document | None, list[Fault]]:
    """The tree of a document, and its faults of syntax; no tree where it could not be read to its end."""
    builder = _Builder()
    try:
        text = _decode(data)
        if encoding == "json":
            _read_json(text, builder)
        else:
            _read_yaml(text, builder)
    except _Stop as stop:
        builder.faults.append(cast(Fault, stop.args[0]))
        return None, builder.faults[:FAULTS_MAX]
    return Document(tree=builder.root, lines=builder.lines, texts=builder.texts), builder.faults[:FAULTS_MAX]


def _stop(message: str, path: str = "") -> _Stop:
    return _Stop(Fault(path=path, message=message))


def _decode(data: bytes | str) -> str:
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else bytes(data)
    if len(raw) > MANIFEST_BYTES_MAX:
        raise _stop(f"expected at most {MANIFEST_BYTES_MAX // 1024} KiB, found {-(-len(raw) // 1024)} KiB")
    for mark, words in _BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            raise _stop(f"line 1, column 1: found {words}; save the file as UTF-8 without one")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        where = _position(raw[: error.start].decode("utf-8", "replace"))
        raise _stop(f"{where}: expected UTF-8, found the byte 0x{raw[error.start]:02x}") from None
    if forbidden := _FORBIDDEN.search(text):
        where = _position(text[: forbidden.start()])
        raise _stop(f"{where}: found the control character U+{ord(forbidden[0]):04X}, which no manifest needs")
    if not text.strip():
        raise _stop("expected a mapping of keys to values, found an empty document")
    return text


def _position(before: str) -> str:
    line_start = before.rfind("\n") + 1
    return f"line {before.count(chr(10)) + 1}, column {len(before) - line_start + 1}"


@dataclass(slots=True)
class _Frame:
    """An open mapping or list."""

    container: dict[str, Any] | list[Any]
    path: str
    key: str | None = None
    key_lines: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(slots=True)
class _Builder:
    """Grows the tree one node at a time, and holds it to the limits."""

    root: Any = None
    lines: dict[str, int] = field(default_factory=dict[str, int])
    texts: dict[str, str] = field(default_factory=dict[str, str])
    faults: list[Fault] = field(default_factory=list[Fault])
    stack: list[_Frame] = field(default_factory=list[_Frame])
    nodes: int = 0

    def wants_key(self) -> bool:
        return bool(self.stack) and isinstance(self.stack[-1].container, dict) and self.stack[-1].key is None

    def key(self, key: str, line: int | None) -> None:
        frame = self.stack[-1]
        self._count()
        self._refuse_hidden(child_path(frame.path, key), key)
        if key in frame.key_lines:
            first = frame.key_lines[key]
            lines = f": first on line {first}, again on line {line}" if line is not None else ""
            self.fault(child_path(frame.path, key), f"the key stands here twice{lines}")
        frame.key_lines.setdefault(key, line or 0)
        frame.key = key

    def value(self, value: Any, line: int | None, text: str | None = None) -> str:
        """Put a value in its place, and return its path."""
        self._count()
        if not self.stack:
            self.root, path = value, ""
        else:
            path = self._place(self.stack[-1], value)
        if line is not None:
            self.lines[path] = line
        if text is not None:
            self.texts[path] = text
        if isinstance(value, str):
            self._refuse_hidden(path, value)
        return path

    def open(self, container: dict[str, Any] | list[Any], line: int | None) -> None:
        path = self.value(container, line)
        if len(self.stack) >= MANIFEST_DEPTH_MAX:
            raise _stop(f"expected at most {MANIFEST_DEPTH_MAX} levels, found more{_on(line)}", path)
        self.stack.append(_Frame(container, path))

    def close(self) -> None:
        self.stack.pop()

    def next_path(self) -> str:
        """Where the value that comes next will stand."""
        if not self.stack:
            return ""
        frame = self.stack[-1]
        if isinstance(frame.container, list):
            return child_path(frame.path, len(frame.container))
        return frame.path if frame.key is None else child_path(frame.path, frame.key)

    def number(self, text: str, line: int | None) -> None:
        """A number, held to a length that converts fast and to a size that a double holds."""
        value, problem = _number(text)
        path = self.value(value, line, text)
        if problem:
            self.fault(path, problem + _on(line))

    def fault(self, path: str, message: str) -> None:
        if len(self.faults) >= FAULTS_MAX - 1:
            raise _stop("there are more faults than these")
        self.faults.append(Fault(path=path, message=message))

    def _refuse_hidden(self, path: str, text: str) -> None:
        """The same characters once more, for they can also be written as escapes."""
        if forbidden := _FORBIDDEN.search(text):
            self.fault(path, f"found the control character U+{ord(forbidden[0]):04X}, which no manifest needs")

    def _place(self, frame: _Frame, value: Any) -> str:
        if isinstance(frame.container, list):
            frame.container.append(value)
            return child_path(frame.path, len(frame.container) - 1)
        assert frame.key is not None
        frame.container[frame.key] = value
        path, frame.key = child_path(frame.path, frame.key), None
        return path

    def _count(self) -> None:
        self.nodes += 1
        if self.nodes > MANIFEST_NODES_MAX:
            raise _stop(f"expected at most {MANIFEST_NODES_MAX} keys and values, found more")


def _on(line: int | None) -> str:
    return f" on line {line}" if line is not None else ""


def _number(text: str) -> tuple[int | float, str | None]:
    if len(text) > NUMBER_CHARS_MAX:
        return 0, f"expected a number of at most {NUMBER_CHARS_MAX} characters, found {len(text)}"
    value = int(text) if _INTEGER.fullmatch(text) else float(text)
    return (0, f"expected a number that a double can hold, found {text}") if math.isinf(value) else (value, None)


# YAML


def _read_yaml(text: str, builder: _Builder) -> None:
    loader = cast(type[yaml.SafeLoader], getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        # The events come one by one: whoever stops reading them stops the parser, whose time grows with the square of
        # the depth of brackets.
        for event in yaml.parse(text, Loader=loader):
            _take_event(event, builder)
    except yaml.YAMLError as error:
        raise _stop(_yaml_problem(error, text)) from None


def _take_event(event: yaml.Event, builder: _Builder) -> None:
    assert event.start_mark is not None
    line = event.start_mark.line + 1
    match event:
        case yaml.ScalarEvent():
            _refuse_marks(event, builder, line)
            _take_scalar(event, builder, line)
        case yaml.MappingStartEvent() | yaml.SequenceStartEvent():
            if builder.wants_key():
                raise _stop(f"line {line}: expected a text as a key, found a list or a mapping", builder.stack[-1].path)
            _refuse_marks(event, builder, line)
            builder.open({} if isinstance(event, yaml.MappingStartEvent) else [], line)
        case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
            builder.close()
        case yaml.AliasEvent():
            _take_alias(event, builder, line)
        case yaml.DocumentStartEvent() if builder.nodes:
            raise _stop(f"line {line}: expected one document, found a second one")
        case _:
            pass


def _take_scalar(event: yaml.ScalarEvent, builder: _Builder, line: int) -> None:
    text = event.value
    if builder.wants_key():
        builder.key(text, line)
    elif not event.implicit[0]:  # quoted, or a block: a text whatever it looks like
        builder.value(text, line)
    elif text in _WORDS:
        builder.value(_WORDS[text], line, text)
    elif _INTEGER.fullmatch(text) or _FLOAT.fullmatch(text):
        builder.number(text, line)
    else:
        builder.value(text, line)


def _take_alias(event: yaml.AliasEvent, builder: _Builder, line: int) -> None:
    words = f"found the alias *{event.anchor} on line {line}, and aliases are not accepted; write the value out"
    if builder.wants_key():
        raise _stop(words, builder.stack[-1].path)
    builder.fault(builder.value(None, line), words)


def _refuse_marks(event: yaml.ScalarEvent | yaml.CollectionStartEvent, builder: _Builder, line: int) -> None:
    """Anchors and tags: the beginning of aliases and of objects, neither of which a manifest is made of."""
    if event.anchor is not None:
        builder.fault(
            builder.next_path(), f"found the anchor &{event.anchor} on line {line}, and anchors are not accepted"
        )
    if event.tag is not None:
        builder.fault(builder.next_path(), f"found the tag {event.tag!r} on line {line}, and tags are not accepted")


def _yaml_problem(error: yaml.YAMLError, text: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return f"expected YAML: {str(error).splitlines()[0]}"
    mark = error.problem_mark
    line = [*text.splitlines(), ""][min(mark.line, text.count("\n"))]
    hint = "; indent with spaces, not tabs" if line[mark.column : mark.column + 1] == "\t" else ""
    problem = error.problem or "the text is no YAML"
    return f"line {mark.line + 1}, column {mark.column + 1}: expected YAML, but {problem}{hint}"


# JSON


class _Pairs(list[tuple[str, Any]]):
    """An object with its keys as written, so that none hides another."""


class _NumberText(str):
    """A number as written."""


def _read_json(text: str, builder: _Builder) -> None:
    try:
        tree = json.loads(
            text,
            object_pairs_hook=_Pairs,
            parse_float=_NumberText,
            parse_int=_NumberText,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise _stop(f"line {error.lineno}, column {error.colno}: expected JSON: {error.msg}") from None
    except RecursionError:
        raise _stop(f"expected at most {MANIFEST_DEPTH_MAX} levels, found more") from None
    _take_json(tree, builder)


def _refuse_constant(name: str) -> None:
    raise _stop(f"found {name}, which is no JSON")


def _take_json(value: Any, builder: _Builder) -> None:
    """Recursion is safe here: `open` refuses what is deeper than the limit."""
    match value:
        case _Pairs():
            builder.open({}, None)
            for key, member in value:
                builder.key(key, None)
                _take_json(member, builder)
            builder.close()
        case list():
            builder.open([], None)
            for member in cast(list[Any], value):
                _take_json(member, builder)
            builder.close()
        case _NumberText():
            builder.number(str(value), None)
        case str():
            builder.value(value, None)
        case _:
            builder.value(value, None, json.dumps(value))
