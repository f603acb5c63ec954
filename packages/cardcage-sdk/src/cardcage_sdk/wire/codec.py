"""The two encodings: messages and values to bytes and back.

Frames decode to message structs in one pass; values inside them stay raw until their receiver says what type it
declares. A value of undeclared shape (`Any`) is held to the depth limit; declared types bound their own depth. Nesting
so deep that it would exhaust the C stack is caught by msgspec in both passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, cast

from msgspec import Raw, Struct, ValidationError, json, msgpack

from cardcage_sdk.wire.errors import RemoteProtocolError
from cardcage_sdk.wire.framing import BinaryFrames, Data, FrameReader, JsonLines, binary_frame
from cardcage_sdk.wire.messages import ABSENT, TOO_HEAVY, Message

_PARTS_IN_WORDS: Final = "lists, maps, texts or numbers"

_DECODERS_KEPT: Final = 2048
"""Declared types come from code, a few hundred for a host; the bound is there for code that makes types as it runs."""

_NOT_CONTAINERS: Final = bytes(set(range(256)) - {*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF})
"""Every byte that can't begin a MessagePack array or map. What is left of a value bounds its depth from above."""

_CONTAINERS: Final = frozenset({dict, list, tuple})


class Encoding(StrEnum):
    """How messages are written; the first byte of the hello tells which."""

    BINARY = "binary"
    JSON = "json"


class Head(Struct, array_like=True, frozen=True):
    """The kind of a message and the elements after it, unread."""

    kind: int
    first: Raw = ABSENT
    second: Raw = ABSENT
    third: Raw = ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec:
    """One encoding, as the functions that a session needs."""

    encode: Callable[[Any], bytes]
    """A message, given as a tuple, to the body of its frame."""
    enclose: Callable[[bytes], bytes]
    """A body to the frame that carries it."""
    reader: Callable[[int], FrameReader]
    """What cuts bytes into bodies no longer than the limit given."""
    load_message: Callable[[Data], Message]
    load_head: Callable[[Data], Head]
    """The first elements of a message, with all others passed over unread."""
    load_any: Callable[[Raw], Any]
    load_as: Callable[[Any], Callable[[Raw | bytes], Any]]
    """For a type, what reads a value as that type."""
    nil: bytes
    containers: Callable[[bytes], int]
    """An upper bound of a value's depth that is quick to find."""

    def value(self, raw: Raw, type_: Any, depth: int) -> Any:
        """The value of `raw` as `type_`, nested at most `depth` levels where that is `Any`.

        Raises `msgspec.ValidationError` for another shape, for malformed bytes and for excess depth.
        """
        if raw is TOO_HEAVY:
            raise ValidationError(f"Expected a lighter value, got one of more {_PARTS_IN_WORDS} than fit a message")
        try:
            if type_ is not Any:
                return self.reader_of(type_)(raw or self.nil)
            if not raw:
                return None
            value = self.load_any(raw)
        except ValidationError:
            raise
        except RecursionError:
            raise _too_deep(depth) from None
        except (ValueError, TypeError) as fault:
            # Malformed inside: the first pass has checked lengths only. Or a map whose keys can't be keys.
            raise ValidationError(str(fault)) from None
        data = bytes(raw)
        if len(data) > depth and self.containers(data) > depth:
            _check_depth(value, depth)
        return value

    def reader_of(self, type_: Any) -> Callable[[Raw | bytes], Any]:
        """What reads values as `type_`."""
        try:
            hash(type_)
        except TypeError:
            # Such as Annotated with a dict inside: built anew each time.
            return cast("Any", self.load_as).__wrapped__(type_)
        return self.load_as(type_)


def malformed(fault: Exception) -> RemoteProtocolError:
    """The error for a frame that `Codec.load_message` could not read. msgspec's sentences name the path."""
    if isinstance(fault, RecursionError):
        return RemoteProtocolError("sent a message that is nested too deeply to be read")
    return RemoteProtocolError(f"sent a malformed message: {fault}")


@lru_cache(maxsize=_DECODERS_KEPT)
def _msgpack_as(type_: Any) -> Callable[[Any], Any]:
    return msgpack.Decoder(type_).decode


@lru_cache(maxsize=_DECODERS_KEPT)
def _json_as(type_: Any) -> Callable[[Any], Any]:
    return json.Decoder(type_).decode


def _line(body: bytes) -> bytes:
    return body + b"\n"


def _msgpack_containers(raw: bytes) -> int:
    return len(raw.translate(None, _NOT_CONTAINERS))


def _json_containers(raw: bytes) -> int:
    return raw.count(b"[") + raw.count(b"{")


CODECS: Final = {
    Encoding.BINARY: Codec(
        encode=msgpack.Encoder().encode,
        enclose=binary_frame,
        reader=BinaryFrames,
        load_message=msgpack.Decoder(cast("type[Message]", Message)).decode,
        load_head=msgpack.Decoder(Head).decode,
        load_any=msgpack.Decoder().decode,
        load_as=_msgpack_as,
        nil=b"\xc0",
        containers=_msgpack_containers,
    ),
    Encoding.JSON: Codec(
        encode=json.Encoder().encode,
        enclose=_line,
        reader=JsonLines,
        load_message=json.Decoder(cast("type[Message]", Message)).decode,
        load_head=json.Decoder(Head).decode,
        load_any=json.Decoder().decode,
        load_as=_json_as,
        nil=b"null",
        containers=_json_containers,
    ),
}


def _check_depth(value: Any, depth: int) -> None:
    """Walk lists and maps level by level, without recursion. Keys count too: MessagePack lets them be arrays."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(depth):
        if not level:
            return
        level = [part for container in level for part in _parts(container) if type(part) in _CONTAINERS]
    if level:
        raise _too_deep(depth)


def _parts(container: Any) -> Iterable[Any]:
    return (*container.values(), *container) if isinstance(container, dict) else container  # pyright: ignore[reportUnknownVariableType]


def _too_deep(depth: int) -> ValidationError:
    return ValidationError(f"Expected a value nested at most {depth} levels, got a deeper one")
