"""Values of many parts: counted before they are read, and refused without an end of the connection."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage_sdk.wire import Call, Encoding, Error, Event, Item, Log, RemoteProtocolError, Result, Role, Session
from cardcage_sdk.wire.weight import overweight

Meet = Callable[..., tuple[Session, Session]]

SMALL = {"containers": 20, "parts": 50}
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=40)
    | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=8), inner, max_size=6),
    max_leaves=60,
)


def frame(encoding: Encoding, *array: Any) -> bytes:
    if encoding is Encoding.JSON:
        return msgspec.json.encode(array) + b"\n"
    body = msgspec.msgpack.encode(array)
    return struct.pack(">I", len(body)) + body


def parts_of(value: Any) -> tuple[int, int]:
    """Lists and maps, and other parts that are objects of their own, by walking what was read."""
    if isinstance(value, dict):
        inner = [*value.keys(), *value.values()]  # pyright: ignore[reportUnknownVariableType]
    elif isinstance(value, list | tuple):
        inner = list(value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    else:
        small = isinstance(value, bool | None) or (isinstance(value, int) and -32 <= value <= 127)
        return 0, int(not small and value != "")
    counts = [parts_of(part) for part in inner]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return 1 + sum(held for held, _ in counts), sum(more for _, more in counts)


@given(value=VALUES, containers=st.integers(0, 30), parts=st.integers(0, 60))
@settings(deadline=None)
def test_a_binary_value_is_weighed_as_what_it_holds(value: Any, containers: int, parts: int) -> None:
    held, more = parts_of(value)
    why = overweight(msgspec.msgpack.encode(value), json=False, containers=containers, parts=parts)
    assert bool(why) is (held > containers or more > parts)


@given(value=VALUES)
@settings(deadline=None)
def test_a_json_value_that_is_light_is_never_taken_for_a_heavy_one(value: Any) -> None:
    data = msgspec.json.encode(value)
    held, _ = parts_of(msgspec.json.decode(data))
    marks = data.count(b",") + data.count(b":") + 1
    assert overweight(data, json=True, containers=held, parts=marks) == ""
    if held:
        assert overweight(data, json=True, containers=held - 1, parts=marks)


@given(data=st.binary(max_size=300), json=st.booleans())
def test_noise_can_be_weighed(data: bytes, json: bool) -> None:
    overweight(data, json=json, containers=1, parts=1)


def test_a_text_without_an_end_is_weighed_in_one_look() -> None:
    assert overweight(b'["' + b'\\"' * 2_000_000 + b",,,", json=True, containers=1, parts=2) == ""


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize(
    ("head", "field"),
    [
        ((2, 1, "work"), "args"),
        ((3, 1), "value"),
        ((4, 1, "plugin_error", "no"), "data"),
        ((6, 1), "value"),
        ((8, "told"), "data"),
        ((9, "info", "line"), "fields"),
    ],
)
def test_a_value_of_too_many_parts_is_handed_on_for_its_receiver_to_refuse(
    encoding: Encoding, head: tuple[Any, ...], field: str, meet: Meet
) -> None:
    host, _ = meet(encoding, **SMALL)
    host.call("work", [], credit=5)
    (message,) = host.receive_data(frame(encoding, *head, [{}] * 60))
    assert isinstance(message, Call | Result | Error | Item | Event | Log)
    for wanted in (Any, list[dict[str, int]], dict[str, Any]):
        with pytest.raises(msgspec.ValidationError, match="Expected a lighter value"):
            host.decode(getattr(message, field), wanted)
    (after,) = host.receive_data(frame(encoding, 8, "told", {"a": 1}))
    assert isinstance(after, Event)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_message_without_a_value_that_has_too_many_parts_is_a_fault(encoding: Encoding, meet: Meet) -> None:
    host, _ = meet(encoding, **SMALL)
    with pytest.raises(RemoteProtocolError, match="too heavy: Expected at most 50 texts") as caught:
        host.receive_data(frame(encoding, 11, 1, *["text"] * 60))
    assert caught.value.code == "malformed"


@pytest.mark.parametrize("encoding", list(Encoding))
def test_what_stands_before_a_heavy_value_is_checked_as_ever(encoding: Encoding, meet: Meet) -> None:
    for head in ((3, "one"), (3,), (4, 1, "", "no"), (8, "x" * 300)):
        host, _ = meet(encoding, **SMALL)
        host.call("work", [])
        with pytest.raises(RemoteProtocolError):
            host.receive_data(frame(encoding, *head, [[]] * 60))


@pytest.mark.parametrize("encoding", list(Encoding))
@given(body=st.binary(min_size=60, max_size=300))
@settings(deadline=None)
def test_noise_that_is_long_enough_to_be_weighed_raises_nothing_but_a_remote_error(
    encoding: Encoding, body: bytes
) -> None:
    from cardcage_sdk.wire import WireLimits

    host = Session(Role.HOST, limits=WireLimits(**SMALL))
    host.receive_data(Session(Role.PLUGIN, encoding=encoding).hello())
    host.ready()
    try:
        host.receive_data(body + b"\n" if encoding is Encoding.JSON else struct.pack(">I", len(body)) + body)
    except RemoteProtocolError:
        pass  # The one error it may raise.


def test_the_longest_frame_of_empty_maps_takes_no_more_memory_than_itself(meet: Meet) -> None:
    host, _ = meet()
    host.call("work", [])
    count = 16 * 1024 * 1024 - 20
    body = b"\x93\x03\x01\xdd" + struct.pack(">I", count) + b"\x80" * count
    longest = struct.pack(">I", len(body)) + body
    tracemalloc.start()
    try:
        (message,) = host.receive_data(longest)
        assert isinstance(message, Result)
        with pytest.raises(msgspec.ValidationError):
            host.decode(message.value)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(longest)
