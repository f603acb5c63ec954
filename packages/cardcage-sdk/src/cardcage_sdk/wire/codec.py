"""Messages and values to bytes and back, in either encoding.

Frames decode to message structs in one pass; values inside them stay raw until their receiver says what type it declares.
A value of undeclared shape (`Any`) is held to the depth limit; declared types bound their own depth. Nesting so deep that
it would exhaust the C stack is caught by msgspec in both passes.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar, cast

import msgspec
from msgspec import json, msgpack

from cardcage_sdk.wire.errors import RemoteProtocolError
from cardcage_sdk.wire.framing import BinaryFrames, Data, FrameReader, JsonLines, binary_frame
from cardcage_sdk.wire.messages import Message

T = TypeVar("T")

_DECODERS_KEPT: Final = 2048
"""Declared types come from code, a few hundred for a host; the bound is there for code that makes types as it runs."""

_NOT_CONTAINERS: Final = bytes(set(range(256)) - {*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF})
"""Every byte that can't begin a MessagePack array or map. What is left of a value bounds its depth from above."""


class Encoding(StrEnum):
    """How messages are written; the first byte of the hello tells which."""

    BINARY = "binary"
    JSON = "json"


@lru_cache(maxsize=_DECODERS_KEPT)
def _msgpack_decoder(type_: Any) -> Callable[[Any], Any]:
    return msgpack.Decoder(type_).decode


@lru_cache(maxsize=_DECODERS_KEPT)
def _json_decoder(type_: Any) -> Callable[[Any], Any]:
    return json.Decoder(type_).decode


_pack = msgpack.Encoder().encode
_dump = json.Encoder().encode
_unpack_message = msgpack.Decoder(cast("type[Message]", Message)).decode
_load_message = json.Decoder(cast("type[Message]", Message)).decode
_unpack_any = msgpack.Decoder().decode
_load_any = json.Decoder().decode

Encode: TypeAlias = Callable[[Any], bytes]


def encode_binary(message: Any) -> bytes:
    """The binary frame of a message, given as a tuple or a struct."""
    return binary_frame(_pack(message))


def encode_json(message: Any) -> bytes:
    """The line of a message, given as a tuple or a struct."""
    return _dump(message) + b"\n"


def frame_reader(encoding: Encoding, limit: int) -> FrameReader:
    """What cuts the bytes of `encoding` into frames of at most `limit` bytes."""
    return BinaryFrames(limit) if encoding is Encoding.BINARY else JsonLines(limit)


def decode_message(encoding: Encoding, frame: Data) -> Message:
    """The message in `frame`. Raises `RemoteProtocolError` that says where it is malformed."""
    try:
        return _unpack_message(frame) if encoding is Encoding.BINARY else _load_message(frame)
    except RecursionError:
        raise RemoteProtocolError("sent a message nested too deeply to read", code="malformed") from None
    except (ValueError, TypeError) as fault:
        # msgspec's errors and UnicodeDecodeError are ValueErrors. Its sentences name what was expected, found, and the path.
        raise RemoteProtocolError(f"sent a malformed message: {fault}", code="malformed") from None


def decode_value(encoding: Encoding, raw: msgspec.Raw, type_: type[T] | Any, depth: int) -> Any:
    """The value of `raw` as `type_`. Raises `msgspec.ValidationError` for a wrong shape, malformed bytes and excess depth."""
    try:
        if type_ is not Any:
            return _decoder(encoding, type_)(raw or _nil(encoding))
        if not raw:
            return None
        if encoding is Encoding.BINARY:
            value = _unpack_any(raw)
            containers = len(bytes(raw).translate(None, _NOT_CONTAINERS))
        else:
            value = _load_any(raw)
            text = bytes(raw)
            containers = text.count(b"[") + text.count(b"{")
    except msgspec.ValidationError:
        raise
    except RecursionError:
        raise _too_deep(depth) from None
    except (ValueError, TypeError) as fault:
        raise msgspec.ValidationError(str(fault)) from None
    if containers > depth:
        _check_depth(value, depth)
    return value


def _decoder(encoding: Encoding, type_: Any) -> Callable[[Any], Any]:
    make = _msgpack_decoder if encoding is Encoding.BINARY else _json_decoder
    try:
        return make(type_)
    except TypeError:
        # A type that can't be hashed, such as Annotated[..., a dict], is built anew each time.
        return make.__wrapped__(type_)


def _nil(encoding: Encoding) -> bytes:
    return b"\xc0" if encoding is Encoding.BINARY else b"null"


def _check_depth(value: Any, depth: int) -> None:
    """Walk one level of lists and maps at a time, without recursion. Map keys count too: MessagePack lets them be arrays."""
    level: list[Any] = [value] if type(value) in _CONTAINERS else []
    for _ in range(depth):
        if not level:
            return
        level = [
            part
            for container in level
            for part in ((*container.values(), *container) if type(container) is dict else container)
            if type(part) in _CONTAINERS
        ]
    if level:
        raise _too_deep(depth)


_CONTAINERS: Final = frozenset({dict, list, tuple})


def _too_deep(depth: int) -> msgspec.ValidationError:
    return msgspec.ValidationError(f"Expected a value nested at most {depth} levels, got a deeper one")
