"""One connection's state, without any I/O: methods give the bytes to write, and take the bytes that were read.

What a session keeps, and so can check:

- where the connection stands (`state`, see `states`);
- the calls this side has made and not yet had answered. **Every call is answered exactly once, by a result or an
  error, a cancelled one too.** So an answer to a cancelled call is expected, and dropped; an answer to a call that was
  answered or never made is the peer's fault;
- the calls the peer has made and this side still owes. Ids ascend, so an id is new, open, or over, and no table of old
  ids is needed. A cancel or a credit for a call that is over crossed its answer on the way, and is dropped;
- for each stream how many items may still come or go.

Messages are encoded from tuples: that saves building a struct that nobody would see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, overload

import msgspec

from cardcage_sdk.wire.codec import CODECS, Encoding, malformed
from cardcage_sdk.wire.errors import LocalProtocolError, RemoteProtocolError, UnsendableValue
from cardcage_sdk.wire.framing import Data
from cardcage_sdk.wire.ledger import NO_STREAM, Ledger
from cardcage_sdk.wire.limits import WireLimits
from cardcage_sdk.wire.messages import (
    KIND_OF,
    TOO_HEAVY,
    Call,
    Cancel,
    Credit,
    Error,
    Hello,
    Item,
    Kind,
    Message,
    Pong,
    Ready,
    Result,
)
from cardcage_sdk.wire.states import Direction, Role, State, allowed

T = TypeVar("T")

VERSIONS: Final = (1,)
"""The protocol versions that this package speaks."""


_CLOSED: Final = State.CLOSED

# As plain numbers, looked up once: members of an enumeration are slow to find, to hash and to encode.
_HELLO: Final = int(Kind.HELLO)
_READY: Final = int(Kind.READY)
_CALL: Final = int(Kind.CALL)
_RESULT: Final = int(Kind.RESULT)
_ERROR: Final = int(Kind.ERROR)
_CANCEL: Final = int(Kind.CANCEL)
_ITEM: Final = int(Kind.ITEM)
_CREDIT: Final = int(Kind.CREDIT)
_EVENT: Final = int(Kind.EVENT)
_LOG: Final = int(Kind.LOG)
_METRIC: Final = int(Kind.METRIC)
_PING: Final = int(Kind.PING)
_PONG: Final = int(Kind.PONG)
_GOODBYE: Final = int(Kind.GOODBYE)

_VALUES: Final = {
    _CALL: ("args", 2),
    _RESULT: ("value", 1),
    _ERROR: ("data", 3),
    _ITEM: ("value", 1),
    _EVENT: ("data", 1),
    _LOG: ("fields", 2),
}
"""The value that a message of this kind carries, and how many elements stand between the kind and it."""

_SENDABLE: Final[dict[tuple[Role, State], dict[int, State]]] = {
    (role, state): {int(kind): after for kind, after in allowed(role, state, Direction.SEND).items()}
    for role in Role
    for state in State
}

_RECEIVABLE: Final = {
    (role, state): {of_type: after[kind] for of_type, kind in KIND_OF.items() if kind in after}
    for role in Role
    for state in State
    for after in [allowed(role, state, Direction.RECEIVE)]
}


class Session:
    """The protocol's side of one connection. Not safe for several threads at once."""

    __slots__ = (
        "_calls",
        "_cancelled",
        "_checks",
        "_codec",
        "_enclose",
        "_encode",
        "_features_offered",
        "_frame_bytes_max",
        "_frames",
        "_in_flight_max",
        "_ledger",
        "_light_bytes",
        "_load_as",
        "_load_message",
        "_receivable",
        "_sendable",
        "_serving",
        "_whole",
        "encoding",
        "features",
        "limits",
        "role",
        "state",
        "version",
    )

    def __init__(
        self,
        role: Role,
        *,
        encoding: Encoding | None = None,
        limits: WireLimits = WireLimits(),  # noqa: B008 - frozen
        features: Sequence[str] = (),
    ) -> None:
        """A session that nothing was sent on yet.

        A host leaves `encoding` None and learns it from the hello; for a plugin None means binary. `features` are the
        names of optional features that this side can use; `self.features` holds those of both once it is ready.
        """
        self.role = role
        self.limits = limits
        self.encoding: Encoding | None = None
        self.version: int | None = None
        self.features: frozenset[str] = frozenset()
        self._features_offered = tuple(features)
        self._frame_bytes_max = limits.frame_bytes
        # What is no longer than this cannot have more lists and maps than are allowed.
        self._light_bytes = min(limits.containers, limits.parts)
        self._in_flight_max = limits.in_flight_calls
        self._ledger = ledger = Ledger(limits)
        # The same tables, one step nearer.
        self._calls = ledger.calls
        self._cancelled = ledger.cancelled
        self._serving = ledger.serving
        self._checks: dict[type[Message], Callable[[Any], bool]] = {
            Hello: self._on_hello,
            Ready: self._on_ready,
            Call: ledger.on_call,
            Result: ledger.on_answer,
            Error: ledger.on_answer,
            Cancel: ledger.on_cancel,
            Item: ledger.on_item,
            Credit: ledger.on_credit,
            Pong: ledger.on_pong,
        }
        if encoding is None and role is Role.PLUGIN:
            encoding = Encoding.BINARY
        if encoding is not None:
            self._speak(encoding)
        self._enter(State.OPENING)

    # What the session is at

    @property
    def mid_frame(self) -> bool:
        """Whether part of a frame has arrived and the rest has not."""
        return self.encoding is not None and self._frames.mid_frame

    @property
    def calls_open(self) -> int:
        """How many of this side's calls are not answered yet, cancelled ones included."""
        return len(self._calls) + len(self._cancelled)

    def is_waiting(self, call_id: int) -> bool:
        """Whether this side's call `call_id` is unanswered and not cancelled."""
        return call_id in self._calls

    def is_serving(self, call_id: int) -> bool:
        """Whether the peer's call `call_id` is still to be answered."""
        return call_id in self._serving

    def items_allowed(self, call_id: int) -> int:
        """How many items this side may now send for the peer's call `call_id`; 0 where it asked for no stream."""
        return max(0, self._serving.get(call_id, 0))

    # Sending

    def hello(self, **info: str | int | float | bool | None) -> bytes:
        """The plugin's first message. `info` tells the host about it, for people who read logs."""
        return self._send(_HELLO, (_HELLO, VERSIONS, self._features_offered, info))

    def ready(self, **info: str | int | float | bool | None) -> bytes:
        """The host's answer to the hello, with the version and the features that were chosen."""
        return self._send(_READY, (_READY, self.version, sorted(self.features), info))

    def call(
        self,
        method: str,
        args: Sequence[Any] | Mapping[str, Any],
        *,
        deadline_ms: int | None = None,
        credit: int = 0,
        meta: Mapping[str, str | int | float | bool | None] | None = None,
    ) -> tuple[int, bytes]:
        """Begin a call; returns its id and the bytes. `credit` above 0 asks for a stream."""
        if len(self._calls) + len(self._cancelled) >= self._in_flight_max:
            raise LocalProtocolError(
                f"{self.limits.in_flight_calls} calls are unanswered, and no more may be", code="call_limit"
            )
        if credit and not 0 <= credit <= self.limits.credit:
            raise LocalProtocolError(f"credit is 0 to {self.limits.credit}, not {credit}", code="credit")
        ledger = self._ledger
        call_id = ledger.last_call_id + 1
        data = self._send(_CALL, (_CALL, call_id, method, args, deadline_ms, credit, meta))
        ledger.last_call_id = call_id
        self._calls[call_id] = credit or NO_STREAM
        return call_id, data

    def result(self, call_id: int, value: Any) -> bytes:
        """Answer the peer's call."""
        if call_id not in self._serving:
            raise self._not_owed(call_id)
        data = self._send(_RESULT, (_RESULT, call_id, value))
        del self._serving[call_id]
        return data

    def error(self, call_id: int, code: str, message: str, data: Any = None) -> bytes:
        """Answer the peer's call with a failure; `code` is one of `ERROR_CODES`."""
        if call_id not in self._serving:
            raise self._not_owed(call_id)
        frame = self._send(_ERROR, (_ERROR, call_id, code, message, data))
        del self._serving[call_id]
        return frame

    def cancel(self, call_id: int, reason: str) -> bytes:
        """Give up this side's call: its answer and its items, when they come, are dropped."""
        if call_id not in self._calls:
            raise self._not_waiting(call_id)
        data = self._send(_CANCEL, (_CANCEL, call_id, reason))
        del self._calls[call_id]
        self._cancelled.add(call_id)
        return data

    def item(self, call_id: int, value: Any) -> bytes:
        """One item of the stream that the peer's call asked for; spends one credit."""
        if call_id not in self._serving:
            raise self._not_owed(call_id)
        left = self._serving[call_id]
        if left <= 0:
            why = "asked for no stream" if left == NO_STREAM else "has no credit left"
            raise LocalProtocolError(f"call {call_id} {why}, so no item may be sent", code="credit")
        data = self._send(_ITEM, (_ITEM, call_id, value))
        self._serving[call_id] = left - 1
        return data

    def credit(self, call_id: int, n: int) -> bytes:
        """Let the peer send `n` further items of the stream."""
        left = self._calls.get(call_id)
        if left is None:
            raise self._not_waiting(call_id)
        if left == NO_STREAM or n < 1 or left + n > self.limits.credit:
            raise LocalProtocolError(f"call {call_id} can't be given {n} more credit", code="credit")
        data = self._send(_CREDIT, (_CREDIT, call_id, n))
        self._calls[call_id] = left + n
        return data

    def event(self, name: str, data: Any) -> bytes:
        """Publish a fact."""
        return self._send(_EVENT, (_EVENT, name, data))

    def log(self, level: str, message: str, fields: Mapping[str, Any] | None = None) -> bytes:
        """One line for the peer's log."""
        return self._send(_LOG, (_LOG, level, message, fields))

    def metric(self, name: str, kind: str, value: float, tags: Mapping[str, str] | None = None) -> bytes:
        """One measurement."""
        return self._send(_METRIC, (_METRIC, name, kind, value, tags))

    def ping(self, nonce: int) -> bytes:
        """Ask for a pong of the same nonce."""
        if nonce in self._ledger.pings:
            raise LocalProtocolError(f"ping {nonce} is not answered yet")
        data = self._send(_PING, (_PING, nonce))
        self._ledger.pings.add(nonce)
        return data

    def pong(self, nonce: int) -> bytes:
        """Answer a ping."""
        return self._send(_PONG, (_PONG, nonce))

    def goodbye(self, code: str, message: str = "") -> bytes:
        """Say that this side calls no more; the second goodbye of the two ends the session."""
        return self._send(_GOODBYE, (_GOODBYE, code, message))

    # Receiving

    def receive_data(self, data: Data) -> list[Message]:
        """Take bytes that were read; return the messages that they complete, in order.

        The bytes are copied where they are needed later, so the caller may reuse its buffer at once.
        Raises `RemoteProtocolError` at the first fault, after which the session is closed. What comes to a closed
        session is ignored: where goodbyes cross, more may be on its way.
        """
        messages: list[Message] = []
        if self.state is _CLOSED or not data:
            return messages
        try:
            if self.encoding is None:
                self._speak(_encoding_of(data[0]))
            alone = self._whole(data)
            for frame in self._frames.split(data) if alone is None else (alone,):
                try:
                    message = self._load_message(frame) if len(frame) <= self._light_bytes else self._load_large(frame)
                except (ValueError, TypeError, RecursionError) as fault:
                    raise malformed(fault) from None
                of_type = type(message)
                after = self._receivable.get(of_type)
                if after is None:
                    raise self._unexpected(of_type)
                if after is not self.state:
                    self._enter(after)
                check = self._checks.get(of_type)
                if check is None or check(message):
                    messages.append(message)
                if after is _CLOSED:
                    break
        except RemoteProtocolError as fault:
            raise self._broken(fault, messages) from None
        return messages

    def receive_eof(self) -> None:
        """Take note that the peer has hung up. Raises `RemoteProtocolError` where no goodbye came before."""
        state, mid_frame = self.state, self.mid_frame
        self._enter(State.CLOSED)
        if state is State.CLOSED or (state is State.CLOSING and not mid_frame):
            return
        where = "in the middle of a message" if mid_frame else "without a goodbye"
        raise RemoteProtocolError(f"hung up {where}, in state {state}", code="hung_up")

    @overload
    def decode(self, raw: msgspec.Raw, type: type[T]) -> T: ...
    @overload
    def decode(self, raw: msgspec.Raw, type: Any = Any) -> Any: ...
    def decode(self, raw: msgspec.Raw, type: Any = Any) -> Any:  # noqa: A002 - msgspec's own word
        """Read a value that a message carries, straight into `type`.

        Raises `msgspec.ValidationError`, which names the path, where the value has another shape, is malformed, or (for
        `Any`) nests deeper than the limit. A value that was left out reads as None.
        """
        if type is not Any:
            # The way of nearly every call: a declared type that was seen before. All else goes the long way.
            try:
                return self._load_as(type)(raw)
            except (ValueError, TypeError, RecursionError):
                pass
        return self._codec.value(raw, type, self.limits.depth)

    def reader(self, type: Any) -> Callable[[msgspec.Raw], Any]:  # noqa: A002 - msgspec's own word
        """What reads values as `type`, for who reads many. It raises what msgspec does: `decode` says it better."""
        return self._codec.reader_of(type)

    # Inside

    def _speak(self, encoding: Encoding) -> None:
        self.encoding = encoding
        self._codec = codec = CODECS[encoding]
        self._encode = codec.encode
        self._enclose = codec.enclose
        self._load_message = codec.load_message
        self._load_as = codec.load_as
        self._frames = codec.reader(self.limits.frame_bytes)
        self._whole = self._frames.whole

    def _load_large(self, frame: Data) -> Message:
        """A message that is long enough to take up much memory once it is read: weighed before that.

        One whose value is too heavy is handed on without it, for its receiver to refuse. Where no value could be left
        out it is malformed.
        """
        from cardcage_sdk.wire.weight import overweight

        codec, limits = self._codec, self.limits
        json = self.encoding is Encoding.JSON
        why = overweight(bytes(frame), json=json, containers=limits.containers, parts=limits.parts)
        if not why:
            return self._load_message(frame)
        head = codec.load_head(frame)
        if head.kind not in _VALUES:
            raise RemoteProtocolError(f"sent a message that is too heavy: {why}")
        field, before = _VALUES[head.kind]
        others = (head.first, head.second, head.third)[:before]
        light = self._load_message(codec.encode((head.kind, *others, None)))
        return msgspec.structs.replace(light, **{field: TOO_HEAVY})

    def _enter(self, state: State) -> None:
        self.state = state
        self._sendable = _SENDABLE[self.role, state]
        self._receivable = _RECEIVABLE[self.role, state]

    def _send(self, kind: int, message: tuple[Any, ...]) -> bytes:
        after = self._sendable.get(kind)
        if after is None:
            raise LocalProtocolError(
                f"a {self.role} may not send {_name(kind)} in state {self.state}", code="unexpected_message"
            )
        try:
            body = self._encode(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as fault:
            raise UnsendableValue(f"a {_name(kind)} can't be encoded: {fault}") from fault
        if len(body) > self._frame_bytes_max:
            raise UnsendableValue(
                f"a {_name(kind)} of {len(body)} bytes can't be sent: frames are limited to {self.limits.frame_bytes}"
            )
        if after is not self.state:
            self._enter(after)
        return self._enclose(body)

    def _on_hello(self, message: Hello) -> bool:
        common = set(VERSIONS) & set(message.versions)
        if not common:
            raise RemoteProtocolError(
                f"offers protocol versions {_listed(message.versions)}, but the {self.role} speaks {_listed(VERSIONS)}",
                code="unsupported_version",
            )
        self.version = max(common)
        self.features = frozenset(self._features_offered) & frozenset(message.features)
        return True

    def _on_ready(self, message: Ready) -> bool:
        if message.version not in VERSIONS:
            raise RemoteProtocolError(
                f"chose protocol version {message.version}, but was offered {_listed(VERSIONS)}",
                code="unsupported_version",
            )
        strange = set(message.features) - set(self._features_offered)
        if strange:
            raise RemoteProtocolError(
                f"chose features that were not offered: {', '.join(sorted(strange))}", code="unsupported_version"
            )
        self.version = message.version
        self.features = frozenset(message.features)
        return True

    def _broken(self, fault: RemoteProtocolError, received: list[Message]) -> RemoteProtocolError:
        """Close the session; complete the fault: whose it was, what came before it, and a last word for the peer."""
        whole = RemoteProtocolError(f"the {self.role.peer} {fault.message}", code=fault.code)
        whole.received = received
        if self.encoding is not None and _GOODBYE in self._sendable:
            whole.farewell = self._enclose(self._encode((_GOODBYE, fault.code, whole.message[:1000])))
        self._enter(State.CLOSED)
        return whole

    def _unexpected(self, of_type: type[Message]) -> RemoteProtocolError:
        expected = _listed(_name(KIND_OF[each]) for each in self._receivable)
        return RemoteProtocolError(
            f"sent {_name(KIND_OF[of_type])} in state {self.state}, expected {expected}", code="unexpected_message"
        )

    def _not_owed(self, call_id: int) -> LocalProtocolError:
        return LocalProtocolError(
            f"call {call_id} of the {self.role.peer} is not open: answered before or never made", code="call_id"
        )

    def _not_waiting(self, call_id: int) -> LocalProtocolError:
        return LocalProtocolError(f"call {call_id} of this {self.role} is not open", code="call_id")


def _encoding_of(first: int) -> Encoding:
    match first:
        case 0x00:
            return Encoding.BINARY
        case 0x5B:
            return Encoding.JSON
        case _:
            shown = f" ({chr(first)!r})" if 0x20 < first < 0x7F else ""
            raise RemoteProtocolError(
                f"began with byte 0x{first:02x}{shown}, expected a hello: 0x00 (binary) or 0x5b ('[', JSON)"
            )


def _name(kind: int) -> str:
    return Kind(kind).name.lower()


def _listed(things: Iterable[object]) -> str:
    return ", ".join(str(thing) for thing in things)
