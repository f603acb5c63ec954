"""The fourteen messages, as msgspec structs that encode to arrays whose first element is their kind.

Values of any shape (`args`, `value`, `data`, `fields`) stay `msgspec.Raw` until `Session.decode` reads them, once,
straight into the type that their receiver declares.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta, Raw

from cardcage_sdk.wire.limits import CODE_CHARS_MAX, ID_MAX, NAME_CHARS_MAX


class Kind(IntEnum):
    """The number that every message begins with."""

    HELLO = 0
    READY = 1
    CALL = 2
    RESULT = 3
    ERROR = 4
    CANCEL = 5
    ITEM = 6
    CREDIT = 7
    EVENT = 8
    LOG = 9
    METRIC = 10
    PING = 11
    PONG = 12
    GOODBYE = 13


ERROR_CODES: Final = (
    "method_not_found",
    "invalid_params",
    "invalid_result",
    "plugin_error",
    "deadline_exceeded",
    "cancelled",
    "refused",
    "unavailable",
    "internal",
)
"""The codes that an `error` may carry in version 1. A receiver reads any other as `plugin_error`."""

Scalar: TypeAlias = str | int | float | bool | None
Id: TypeAlias = Annotated[int, Meta(ge=1, le=ID_MAX)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=ID_MAX)]
Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=NAME_CHARS_MAX)]
Code: TypeAlias = Annotated[str, Meta(min_length=1, max_length=CODE_CHARS_MAX)]
LogLevel: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]
MetricKind: TypeAlias = Literal["counter", "gauge", "histogram"]

TOO_HEAVY: Final = Raw(b"\xc1")
"""What stands for a value that would take too much memory to be read: no value in either encoding."""

ABSENT: Final = Raw(b"")
"""A trailing value that the peer left out; `Session.decode` reads it as None."""


class _Message(msgspec.Struct, array_like=True, frozen=True, kw_only=True, gc=False):
    """What all messages share. Free of cycles, so the garbage collector need not look at them."""


class Hello(_Message, frozen=True, tag=Kind.HELLO.value):
    """The plugin's first message: the protocol versions and features it offers. `info` tells of it (sdk, language)."""

    versions: Annotated[list[Count], Meta(min_length=1, max_length=64)]
    features: Annotated[list[Code], Meta(max_length=64)] = []
    info: Annotated[dict[str, Scalar], Meta(max_length=64)] = {}


class Ready(_Message, frozen=True, tag=Kind.READY.value):
    """The host's answer to the hello: the version and the features that both will use."""

    version: Count
    features: Annotated[list[Code], Meta(max_length=64)] = []
    info: Annotated[dict[str, Scalar], Meta(max_length=64)] = {}


class Call(_Message, frozen=True, tag=Kind.CALL.value):
    """Asks the receiver to run `method`. `args` is an array (by position) or a map (by name).

    `deadline_ms` counts from the receipt. `credit` above 0 asks for a stream and permits that many items.
    """

    id: Id
    method: Name
    args: Raw
    deadline_ms: Count | None = None
    credit: Count = 0
    meta: Annotated[dict[str, Scalar], Meta(max_length=64)] | None = None


class Result(_Message, frozen=True, tag=Kind.RESULT.value):
    """Answers a call, and ends its stream."""

    id: Id
    value: Raw = ABSENT


class Error(_Message, frozen=True, tag=Kind.ERROR.value):
    """Answers a call that failed. `code` is one of `ERROR_CODES`; `data` holds further facts or nil."""

    id: Id
    code: Code
    message: str
    data: Raw = ABSENT


class Cancel(_Message, frozen=True, tag=Kind.CANCEL.value):
    """The caller no longer wants the answer. One is still owed, so that both sides can forget the id."""

    id: Id
    reason: str = ""


class Item(_Message, frozen=True, tag=Kind.ITEM.value):
    """One item of the stream that a call asked for."""

    id: Id
    value: Raw


class Credit(_Message, frozen=True, tag=Kind.CREDIT.value):
    """The caller takes `n` further items of its stream."""

    id: Id
    n: Id


class Event(_Message, frozen=True, tag=Kind.EVENT.value):
    """A fact, in the past tense; not answered."""

    name: Name
    data: Raw = ABSENT


class Log(_Message, frozen=True, tag=Kind.LOG.value):
    """One line for the log; `fields` is a map or nil."""

    level: LogLevel
    message: str
    fields: Raw = ABSENT


class Metric(_Message, frozen=True, tag=Kind.METRIC.value):
    """One measurement: an increment (counter), a level (gauge) or an observation (histogram)."""

    name: Name
    kind: MetricKind
    value: float
    tags: Annotated[dict[str, str], Meta(max_length=64)] | None = None


class Ping(_Message, frozen=True, tag=Kind.PING.value):
    """Asks for a `Pong` of the same nonce."""

    nonce: Count


class Pong(_Message, frozen=True, tag=Kind.PONG.value):
    """Answers a `Ping`."""

    nonce: Count


class Goodbye(_Message, frozen=True, tag=Kind.GOODBYE.value):
    """No more calls come from the sender. `code` says why (`stopping`, `protocol_error`, ...)."""

    code: Code
    message: str = ""


Message: TypeAlias = (
    Hello | Ready | Call | Result | Error | Cancel | Item | Credit | Event | Log | Metric | Ping | Pong | Goodbye
)

KIND_OF: Final[dict[type[Message], Kind]] = {
    Hello: Kind.HELLO,
    Ready: Kind.READY,
    Call: Kind.CALL,
    Result: Kind.RESULT,
    Error: Kind.ERROR,
    Cancel: Kind.CANCEL,
    Item: Kind.ITEM,
    Credit: Kind.CREDIT,
    Event: Kind.EVENT,
    Log: Kind.LOG,
    Metric: Kind.METRIC,
    Ping: Kind.PING,
    Pong: Kind.PONG,
    Goodbye: Kind.GOODBYE,
}
