"""Sessions against each other and against noise, driven by Hypothesis.

What always holds: two sessions that do only what they may never call each other wrong, however their bytes are cut and
delayed and whatever crosses on the way; what one sends the other receives, in order, but for what is to be dropped; how
bytes are cut changes nothing; and noise raises `RemoteProtocolError` and nothing else.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cardcage_sdk.wire import (
    ERROR_CODES,
    ID_MAX,
    Call,
    Cancel,
    Credit,
    Encoding,
    Error,
    Event,
    Goodbye,
    Hello,
    Item,
    Log,
    Message,
    Metric,
    Ping,
    Pong,
    Ready,
    RemoteProtocolError,
    Result,
    Role,
    Session,
    State,
    WireLimits,
)

Meet = Callable[..., tuple[Session, Session]]

# A busy machine makes single examples slow, which says nothing about the code.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

TEXT = st.text(max_size=20)
NAMES = st.text(min_size=1, max_size=20)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
FACTS = st.dictionaries(TEXT, SCALARS | TEXT, max_size=4)
COUNTS = st.integers(0, ID_MAX)
# What both encodings carry unchanged.
VALUES = st.recursive(
    SCALARS | TEXT, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=10
)
WANTED = [Any, int, str, list[Any], dict[str, Any], dict[str, list[int]], bytes]
LEVELS = st.sampled_from(["debug", "info", "warning", "error", "critical"])
TAGS = st.none() | st.dictionaries(TEXT, TEXT, max_size=3)

# Every kind, as the array that is on the wire, with ids that make most conversations wrong somewhere.
IDS = st.integers(1, 6)
ARRAYS: st.SearchStrategy[tuple[Any, ...]] = st.one_of(
    st.tuples(st.just(0), st.lists(COUNTS, min_size=1, max_size=3), st.lists(NAMES, max_size=2), FACTS),
    st.tuples(st.just(1), COUNTS, st.lists(NAMES, max_size=2), FACTS),
    st.tuples(st.just(2), IDS, NAMES, VALUES, st.none() | COUNTS, st.integers(0, 3), st.none() | FACTS),
    st.tuples(st.just(3), IDS, VALUES),
    st.tuples(st.just(4), IDS, st.sampled_from(ERROR_CODES), TEXT, VALUES),
    st.tuples(st.just(5), IDS, TEXT),
    st.tuples(st.just(6), IDS, VALUES),
    st.tuples(st.just(7), IDS, st.integers(1, 3)),
    st.tuples(st.just(8), NAMES, VALUES),
    st.tuples(st.just(9), LEVELS, TEXT, st.none() | FACTS),
    st.tuples(st.just(10), NAMES, st.sampled_from(["counter", "gauge", "histogram"]), st.floats(-1e9, 1e9), TAGS),
    st.tuples(st.just(11), COUNTS),
    st.tuples(st.just(12), st.integers(0, 2)),
    st.tuples(st.just(13), NAMES, TEXT),
)


def framed(array: Any, encoding: Encoding) -> bytes:
    if encoding is Encoding.JSON:
        return msgspec.json.encode(array) + b"\n"
    body = msgspec.msgpack.encode(array)
    return struct.pack(">I", len(body)) + body


def as_message(frame: bytes, encoding: Encoding) -> Message:
    if encoding is Encoding.JSON:
        return msgspec.json.decode(frame, type=Message)
    return msgspec.msgpack.decode(frame[4:], type=Message)


def busy_host(encoding: Encoding) -> Session:
    """A host with five calls in flight, two of them streams, one cancelled, and a ping."""
    host = Session(Role.HOST)
    host.receive_data(Session(Role.PLUGIN, encoding=encoding).hello())
    host.ready()
    for credit in (0, 0, 0, 2, 3):
        host.call("work", [], credit=credit)
    host.cancel(3, "cancelled")
    host.ping(1)
    return host


def outcome(session: Session, chunks: list[bytes]) -> tuple[list[Message], str | None, State]:
    """All messages that a session takes from the chunks, the code of the fault that ended it, and where it stands."""
    taken: list[Message] = []
    for chunk in chunks:
        try:
            taken += session.receive_data(chunk)
        except RemoteProtocolError as fault:
            assert session.state is State.CLOSED
            return taken + fault.received, fault.code, session.state
    return taken, None, session.state


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


def bytewise(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize("encoding", list(Encoding))
@UNHURRIED
@given(arrays=st.lists(ARRAYS, max_size=12), places=st.lists(st.integers(0, 4000), max_size=20))
def test_how_a_conversation_is_cut_changes_nothing(
    encoding: Encoding, arrays: list[tuple[Any, ...]], places: list[int]
) -> None:
    data = b"".join(framed(array, encoding) for array in arrays)
    whole = outcome(busy_host(encoding), [data])
    assert outcome(busy_host(encoding), bytewise(data)) == whole
    assert outcome(busy_host(encoding), cut(data, places)) == whole


@pytest.mark.parametrize("encoding", list(Encoding))
@UNHURRIED
@given(
    arrays=st.lists(ARRAYS, min_size=1, max_size=6),
    places=st.lists(st.integers(0, 4000), max_size=8),
    at=st.integers(0, 4000),
    noise=st.binary(min_size=1, max_size=5),
)
def test_how_a_damaged_conversation_is_cut_changes_nothing(
    encoding: Encoding, arrays: list[tuple[Any, ...]], places: list[int], at: int, noise: bytes
) -> None:
    data = bytearray(b"".join(framed(array, encoding) for array in arrays))
    at %= len(data)
    data[at : at + len(noise)] = noise
    whole = outcome(busy_host(encoding), [bytes(data)])
    assert outcome(busy_host(encoding), bytewise(bytes(data))) == whole
    assert outcome(busy_host(encoding), cut(bytes(data), places)) == whole


@UNHURRIED
@given(role=st.sampled_from(Role), chunks=st.lists(st.binary(max_size=64), max_size=12))
def test_noise_raises_nothing_but_a_remote_error(role: Role, chunks: list[bytes]) -> None:
    outcome(Session(role), chunks)


@pytest.mark.parametrize("encoding", list(Encoding))
@UNHURRIED
@given(start=st.sampled_from(["nothing", "ready"]), bodies=st.lists(st.binary(max_size=40), max_size=6))
def test_noise_in_well_formed_frames_raises_nothing_but_a_remote_error(
    encoding: Encoding, start: str, bodies: list[bytes]
) -> None:
    host = busy_host(encoding) if start == "ready" else Session(Role.HOST)
    frames = [struct.pack(">I", len(body)) + body if encoding is Encoding.BINARY else body + b"\n" for body in bodies]
    outcome(host, frames)


@pytest.mark.parametrize("encoding", list(Encoding))
@given(
    raw=st.binary(max_size=60),
    wanted=st.sampled_from(WANTED),
)
@settings(max_examples=400, deadline=None)
def test_a_value_of_noise_raises_nothing_but_a_validation_error(encoding: Encoding, raw: bytes, wanted: Any) -> None:
    session = busy_host(encoding)
    try:
        session.decode(msgspec.Raw(raw), wanted)
    except msgspec.ValidationError:
        pass  # The one error it may raise.


@pytest.mark.parametrize("encoding", list(Encoding))
@UNHURRIED
@given(value=VALUES)
def test_values_come_out_as_they_went_in(encoding: Encoding, value: Any) -> None:
    session = busy_host(encoding)
    raw = msgspec.Raw(msgspec.msgpack.encode(value) if encoding is Encoding.BINARY else msgspec.json.encode(value))
    assert session.decode(raw) == value


@pytest.mark.parametrize("encoding", list(Encoding))
@given(
    args=st.lists(VALUES, max_size=3) | st.dictionaries(TEXT, VALUES, max_size=3),
    value=VALUES,
    names=st.tuples(NAMES, TEXT),
    deadline_ms=st.none() | COUNTS,
    credit=st.integers(1, 65_536),
    facts=FACTS,
    number=st.floats(allow_nan=False, allow_infinity=False),
    nonce=COUNTS,
)
@UNHURRIED
def test_every_kind_comes_out_as_it_went_in(
    encoding: Encoding,
    args: list[Any] | dict[str, Any],
    value: Any,
    names: tuple[str, str],
    deadline_ms: int | None,
    credit: int,
    facts: Mapping[str, Any],
    number: float,
    nonce: int,
) -> None:
    host, plugin = Session(Role.HOST, features=["zip"]), Session(Role.PLUGIN, encoding=encoding, features=["zip"])
    name, text = names

    def over(frame: bytes, receiver: Session, of_type: type[Message]) -> Any:
        (message,) = receiver.receive_data(frame)
        assert type(message) is of_type
        return message

    hello = over(plugin.hello(**facts) if "self" not in facts else plugin.hello(), host, Hello)
    assert (hello.versions, hello.features) == ([1], ["zip"])
    assert over(host.ready(), plugin, Ready).features == ["zip"]
    call_id, frame = host.call(name, args, deadline_ms=deadline_ms, credit=credit, meta=facts)
    call = over(frame, plugin, Call)
    assert (call.id, call.method, call.deadline_ms, call.credit, call.meta) == (
        call_id,
        name,
        deadline_ms,
        credit,
        facts,
    )
    assert plugin.decode(call.args) == args
    item = over(plugin.item(call_id, value), host, Item)
    assert host.decode(item.value) == value
    assert over(host.credit(call_id, 1), plugin, Credit).n == 1
    cancelled = over(host.call(name, args)[1], plugin, Call)
    assert over(host.cancel(cancelled.id, text), plugin, Cancel).reason == text
    assert host.decode(over(plugin.result(call_id, value), host, Result).value) == value
    failing = over(host.call(name, args)[1], plugin, Call)
    error = over(plugin.error(failing.id, "refused", text, value), host, Error)
    assert (error.code, error.message, host.decode(error.data)) == ("refused", text, value)
    event = over(plugin.event(name, value), host, Event)
    assert (event.name, host.decode(event.data)) == (name, value)
    log = over(plugin.log("warning", text, facts), host, Log)
    assert (log.level, log.message, host.decode(log.fields)) == ("warning", text, facts)
    metric = over(plugin.metric(name, "gauge", number, {text: name}), host, Metric)
    assert (metric.name, metric.kind, metric.value, metric.tags) == (name, "gauge", number, {text: name})
    assert over(plugin.ping(nonce), host, Ping).nonce == nonce
    assert over(host.pong(nonce), plugin, Pong).nonce == nonce
    assert over(host.goodbye(name, text), plugin, Goodbye) == Goodbye(code=name, message=text)


class End:
    """One side of a conversation: its session, the bytes on their way to it, and what should arrive."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.pipe = bytearray()
        self.sent_to_it: list[Message] = []
        self.received: list[Message] = []
        self.owes: list[Call] = []
        self.pinged: list[int] = []
        self.made: list[int] = []
        self.nonce = 0


class Conversation(RuleBasedStateMachine):
    """Two honest sides, each doing at random what its session allows, over pipes that deliver when they like."""

    def __init__(self) -> None:
        super().__init__()
        self.encoding = Encoding.BINARY
        self.ends: list[End] = []

    @initialize(encoding=st.sampled_from(Encoding))
    def open(self, encoding: Encoding) -> None:
        limits = WireLimits(in_flight_calls=5, credit=8)
        self.encoding = encoding
        self.ends = [
            End(Session(Role.HOST, limits=limits)),
            End(Session(Role.PLUGIN, encoding=encoding, limits=limits)),
        ]
        self.say(1, self.ends[1].session.hello())

    def say(self, side: int, frame: bytes) -> None:
        other = self.ends[1 - side]
        other.pipe += frame
        other.sent_to_it.append(as_message(frame, self.encoding))

    def able(self, side: int, *states: State) -> bool:
        return self.ends[side].session.state in (states or (State.READY, State.CLOSING))

    sides = st.integers(0, 1)

    @rule(side=sides, credit=st.integers(0, 3), args=st.lists(VALUES, max_size=2))
    def call(self, side: int, credit: int, args: list[Any]) -> None:
        end = self.ends[side]
        if self.able(side, State.READY) and end.session.calls_open < 5:
            call_id, frame = end.session.call("work", args, credit=credit)
            end.made.append(call_id)
            self.say(side, frame)

    @rule(side=sides, which=st.integers(0, 20), value=VALUES, fails=st.booleans())
    def answer(self, side: int, which: int, value: Any, fails: bool) -> None:
        end = self.ends[side]
        if self.able(side) and end.owes:
            call = end.owes.pop(which % len(end.owes))
            session = end.session
            self.say(
                side, session.error(call.id, "plugin_error", "no", value) if fails else session.result(call.id, value)
            )

    @rule(side=sides, which=st.integers(0, 20), value=VALUES)
    def item(self, side: int, which: int, value: Any) -> None:
        end = self.ends[side]
        streams = [call for call in end.owes if end.session.items_allowed(call.id)]
        if self.able(side) and streams:
            self.say(side, end.session.item(streams[which % len(streams)].id, value))

    @rule(side=sides, which=st.integers(0, 20))
    def cancel(self, side: int, which: int) -> None:
        end = self.ends[side]
        waiting = [call_id for call_id in end.made if end.session.is_waiting(call_id)]
        if self.able(side) and waiting:
            self.say(side, end.session.cancel(waiting[which % len(waiting)], "changed its mind"))

    @rule(side=sides, which=st.integers(0, 20))
    def credit(self, side: int, which: int) -> None:
        end = self.ends[side]
        waiting = [call_id for call_id in end.made if end.session.is_waiting(call_id)]
        if self.able(side) and waiting:
            try:
                frame = end.session.credit(waiting[which % len(waiting)], 2)
            except Exception as refused:
                assert "can't be given" in str(refused)  # noqa: PT017 - no stream, or enough credit
            else:
                self.say(side, frame)

    @rule(side=sides, value=VALUES, text=TEXT)
    def tell(self, side: int, value: Any, text: str) -> None:
        if self.able(side):
            session = self.ends[side].session
            self.say(side, session.event("told", value))
            self.say(side, session.log("info", text, {"value": value}))
            self.say(side, session.metric("told", "counter", 1.0))

    @rule(side=sides)
    def ping(self, side: int) -> None:
        if self.able(side):
            end = self.ends[side]
            end.nonce += 1
            self.say(side, end.session.ping(end.nonce))

    @rule(side=sides)
    def pong(self, side: int) -> None:
        end = self.ends[side]
        if self.able(side) and end.pinged:
            self.say(side, end.session.pong(end.pinged.pop(0)))

    @rule(side=sides)
    @precondition(lambda self: len(self.ends) == 2 and all(len(end.received) > 6 for end in self.ends))
    def goodbye(self, side: int) -> None:
        if self.able(side):
            self.say(side, self.ends[side].session.goodbye("stopping"))

    @rule(side=sides, amount=st.integers(1, 200))
    def deliver(self, side: int, amount: int) -> None:
        end = self.ends[side]
        chunk = bytes(end.pipe[:amount])
        del end.pipe[:amount]
        # An honest peer is never called wrong: this raises nothing.
        for message in end.session.receive_data(memoryview(bytearray(chunk))):
            end.received.append(message)
            match message:
                case Hello():
                    self.say(side, end.session.ready())
                case Call():
                    end.owes.append(message)
                case Ping():
                    end.pinged.append(message.nonce)
                case _:
                    pass

    @rule(side=sides)
    def deliver_all(self, side: int) -> None:
        self.deliver(side, len(self.ends[side].pipe) or 1)

    @invariant()
    def what_was_sent_arrives_in_order_but_for_what_crossed(self) -> None:
        for end in self.ends:
            arrived = iter(end.received)
            expected = next(arrived, None)
            dropped: list[Message] = []
            for message in end.sent_to_it:
                if expected is not None and message == expected:
                    expected = next(arrived, None)
                else:
                    dropped.append(message)
            assert expected is None, f"{expected} arrived out of order or was never sent"
            if not end.pipe and end.session.state is not State.CLOSED:
                assert all(isinstance(message, Result | Error | Item | Cancel | Credit) for message in dropped)

    def teardown(self) -> None:
        for side in range(len(self.ends)):
            self.deliver_all(side)


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)
