"""What a session does by example; `test_wire_properties` drives it with everything else."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
import pytest

from cardcage_sdk.wire import (
    ERROR_CODES,
    Call,
    Encoding,
    Goodbye,
    Hello,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    Result,
    Role,
    Session,
    State,
    UnsendableValue,
    WireLimits,
)

Meet = Callable[..., tuple[Session, Session]]


def feed(session: Session, chunk: bytes, times: int) -> None:
    for _ in range(times):
        session.receive_data(chunk)


def only(messages: list[Message]) -> Any:
    (message,) = messages
    return message


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_host_learns_the_encoding_from_the_first_byte(encoding: Encoding) -> None:
    host, plugin = Session(Role.HOST), Session(Role.PLUGIN, encoding=encoding)
    hello = only(host.receive_data(plugin.hello(sdk="test", pid=7)))
    assert isinstance(hello, Hello)
    assert (host.encoding, host.state, hello.info) == (encoding, State.GREETED, {"sdk": "test", "pid": 7})
    plugin.receive_data(host.ready())
    assert (plugin.state, plugin.version, host.version) == (State.READY, 1, 1)


def test_both_end_up_with_the_features_that_both_offer() -> None:
    host = Session(Role.HOST, features=["trace", "memfd"])
    plugin = Session(Role.PLUGIN, features=["memfd", "zip"])
    host.receive_data(plugin.hello())
    plugin.receive_data(host.ready())
    assert host.features == plugin.features == {"memfd"}


@pytest.mark.parametrize("encoding", list(Encoding))
def test_values_are_decoded_once_into_the_type_that_is_asked_for(meet: Meet, encoding: Encoding) -> None:
    class Page(msgspec.Struct):
        number: int
        image: bytes

    host, plugin = meet(encoding)
    call_id, data = host.call("read", [3], deadline_ms=500, meta={"trace": "t"})
    call = only(plugin.receive_data(data))
    assert isinstance(call, Call)
    assert (call.id, call.method, call.deadline_ms, call.meta) == (call_id, "read", 500, {"trace": "t"})
    assert plugin.decode(call.args, list[int]) == [3]
    result = only(host.receive_data(plugin.result(call.id, Page(3, b"\x00\xff"))))
    assert isinstance(result.value, msgspec.Raw)
    assert host.decode(result.value, Page).image == b"\x00\xff"
    with pytest.raises(msgspec.ValidationError, match=r"`\$\.image`"):
        host.decode(
            msgspec.Raw(b'{"number":3,"image":1}' if encoding is Encoding.JSON else b"\x82\xa6number\x03\xa5image\x01"),
            Page,
        )


def test_the_callers_buffer_may_be_reused_at_once(meet: Meet) -> None:
    host, plugin = meet()
    buffer = bytearray(plugin.event("e", "kept") + plugin.event("f", "kept too"))
    first, second = host.receive_data(memoryview(buffer))
    buffer[:] = bytes(len(buffer))
    assert [host.decode(each.data) for each in (first, second)] == ["kept", "kept too"]  # type: ignore[union-attr]


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_reader_made_once_reads_what_decode_reads(meet: Meet, encoding: Encoding) -> None:
    host, plugin = meet(encoding)
    read = plugin.reader(tuple[str, int])
    for args in (["a", 1], ["b", 2]):
        call = only(plugin.receive_data(host.call("m", args)[1]))
        assert read(call.args) == plugin.decode(call.args, tuple[str, int]) == tuple(args)
    wrong = only(plugin.receive_data(host.call("m", ["a", "b"])[1]))
    with pytest.raises(msgspec.ValidationError, match=r"`\$\[1\]`"):
        read(wrong.args)


def test_a_type_that_cannot_be_hashed_can_be_asked_for(meet: Meet) -> None:
    host, plugin = meet()
    positive = Annotated[int, msgspec.Meta(gt=0, extra_json_schema={"examples": [1]})]
    event = only(host.receive_data(plugin.event("e", 3)))
    assert host.decode(event.data, list[positive] | positive) == 3


def test_a_trailing_value_that_was_left_out_reads_as_none(meet: Meet) -> None:
    host, _ = meet(Encoding.JSON)
    event = only(host.receive_data(b'[8,"done"]\n'))
    assert host.decode(event.data) is None
    assert host.decode(event.data, int | None) is None
    with pytest.raises(msgspec.ValidationError):
        host.decode(event.data, int)


def test_elements_that_a_later_version_adds_are_ignored(meet: Meet) -> None:
    host, _ = meet(Encoding.JSON)
    assert only(host.receive_data(b'[11,7,"new in version 1.1"]\n')).nonce == 7


def test_empty_lines_and_returns_are_passed_over(meet: Meet) -> None:
    host, _ = meet(Encoding.JSON)
    assert len(host.receive_data(b"\n\r\n[11,7]\r\n  \n[11,8]\n\n")) == 2


@pytest.mark.parametrize("encoding", list(Encoding))
@pytest.mark.parametrize(("depth", "fine"), [(64, True), (65, False), (900, False), (200_000, False)])
def test_values_of_any_shape_nest_to_a_limit(meet: Meet, encoding: Encoding, depth: int, fine: bool) -> None:
    host, _ = meet(encoding)
    opening, closing, leaf = (b"\x91", b"", b"\xc0") if encoding is Encoding.BINARY else (b"[", b"]", b"null")
    raw = msgspec.Raw(opening * depth + leaf + closing * depth)
    if fine:
        assert host.decode(raw) is not None
    else:
        with pytest.raises(msgspec.ValidationError, match="nested at most 64 levels"):
            host.decode(raw)


@pytest.mark.parametrize("encoding", list(Encoding))
def test_maps_count_as_levels_and_wide_values_are_fine(meet: Meet, encoding: Encoding) -> None:
    host, _ = meet(encoding)
    encode: Callable[[Any], bytes] = msgspec.msgpack.encode if encoding is Encoding.BINARY else msgspec.json.encode
    wide = [{"rows": [[n], {"n": n}]} for n in range(500)]
    assert host.decode(msgspec.Raw(encode(wide))) == wide
    deep: Any = 1
    for _ in range(65):
        deep = {"a": deep}
    with pytest.raises(msgspec.ValidationError, match="nested at most 64 levels"):
        host.decode(msgspec.Raw(encode([wide, deep])))


@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_message_nested_without_end_is_the_peers_fault_and_no_recursion_error(meet: Meet, encoding: Encoding) -> None:
    host, _ = meet(encoding)
    if encoding is Encoding.BINARY:
        body = b"\x93\x08\xa1e" + b"\x91" * 1_000_000 + b"\xc0"
        data = len(body).to_bytes(4, "big") + body
    else:
        data = b'[8,"e",' + b"[" * 1_000_000 + b"]" * 1_000_000 + b"]\n"
    with pytest.raises(RemoteProtocolError, match="nested too deeply"):
        host.receive_data(data)
    assert host.state is State.CLOSED


@pytest.mark.parametrize("raw", [b"\xa1\xff", b"\x81\x81\x01\x02\x03", b"\x92\x01", b"\xc1", b"\xd6\xff\x00"])
def test_a_value_that_is_malformed_inside_is_a_validation_error(meet: Meet, raw: bytes) -> None:
    host, _ = meet()
    for type_ in (Any, dict[str, Any], str):
        with pytest.raises(msgspec.ValidationError):
            host.decode(msgspec.Raw(raw), type_)


def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept(meet: Meet) -> None:
    host, _ = meet()
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError, match="the plugin sent a 1024 MiB frame, but frames are limited to 16 MiB"):
        host.receive_data(b"\x40\x00\x00\x00" + b"x" * 100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize("encoding", list(Encoding))
def test_an_endless_frame_holds_no_more_than_the_limit(meet: Meet, encoding: Encoding) -> None:
    host, _ = meet(encoding, frame_bytes=200_000)
    chunk = b"x" * 10_000
    host.receive_data(b"[" if encoding is Encoding.JSON else (200_000).to_bytes(4, "big"))
    tracemalloc.start()
    with pytest.raises(RemoteProtocolError):
        feed(host, chunk, times=100)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_good_messages_before_a_fault_are_not_lost(meet: Meet) -> None:
    host, plugin = meet()
    with pytest.raises(RemoteProtocolError) as e:
        host.receive_data(plugin.ping(1) + plugin.ping(2) + b"\x00\x00\x00\x01\xc1" + plugin.ping(3))
    assert [each.nonce for each in e.value.received] == [1, 2]  # type: ignore[union-attr]


def test_a_fault_comes_with_a_farewell_that_tells_the_peer(meet: Meet) -> None:
    host, plugin = meet(Encoding.JSON)
    with pytest.raises(RemoteProtocolError) as e:
        host.receive_data(b"[3,1,null]\n")
    goodbye = only(plugin.receive_data(e.value.farewell))
    assert isinstance(goodbye, Goodbye)
    assert (goodbye.code, goodbye.message) == ("call_id", "the plugin answered call 1, which was never made")


def test_where_the_encoding_is_unknown_there_is_no_farewell() -> None:
    with pytest.raises(RemoteProtocolError) as e:
        Session(Role.HOST).receive_data(b"hello")
    assert e.value.farewell == b""


def test_an_error_names_the_state_and_the_message() -> None:
    plugin = Session(Role.PLUGIN)
    plugin.hello()
    with pytest.raises(RemoteProtocolError, match="the host sent ping in state greeted, expected ready, goodbye"):
        plugin.receive_data(b"\x00\x00\x00\x03\x92\x0b\x07")
    with pytest.raises(LocalProtocolError, match="a plugin may not send call in state closed"):
        plugin.call("greet", [])


@pytest.mark.parametrize("value", [object(), 2**70, {1j: 2}, print])
def test_a_value_without_a_form_on_the_wire_changes_nothing(meet: Meet, value: object) -> None:
    host, plugin = meet()
    call_id, data = host.call("read", [])
    plugin.receive_data(data)
    with pytest.raises(UnsendableValue, match="a result can't be encoded"):
        plugin.result(call_id, value)
    assert plugin.is_serving(call_id)
    assert isinstance(only(host.receive_data(plugin.result(call_id, 1))), Result)
    with pytest.raises(UnsendableValue):
        host.call("read", [value])
    assert host.calls_open == 0
    assert host.call("read", [])[0] == 2


def test_a_value_that_holds_itself_is_unsendable(meet: Meet) -> None:
    host, _ = meet()
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(UnsendableValue):
        host.event("e", endless)


def test_a_message_longer_than_a_frame_is_unsendable(meet: Meet) -> None:
    host, _ = meet(frame_bytes=1000)
    with pytest.raises(UnsendableValue, match="frames are limited to 1000"):
        host.event("e", "x" * 1000)


def test_calls_in_flight_are_bounded_on_both_sides(meet: Meet) -> None:
    host, _ = meet(in_flight_calls=2)
    frames = [host.call("read", [])[1] for _ in range(2)]
    with pytest.raises(LocalProtocolError, match="2 calls are unanswered") as local:
        host.call("read", [])
    assert local.value.code == "call_limit"
    greedy, _ = meet()
    _, strict = meet(in_flight_calls=2)
    with pytest.raises(RemoteProtocolError, match="began a call while 2 others are unanswered") as remote:
        strict.receive_data(b"".join(greedy.call("read", [])[1] for _ in range(3)))
    assert (remote.value.code, len(remote.value.received), len(frames)) == ("call_limit", 2, 2)


def test_a_cancelled_call_counts_as_in_flight_until_it_is_answered(meet: Meet) -> None:
    host, plugin = meet(in_flight_calls=1)
    call_id, data = host.call("read", [])
    plugin.receive_data(data + host.cancel(call_id, "cancelled"))
    with pytest.raises(LocalProtocolError, match="1 calls are unanswered"):
        host.call("read", [])
    assert host.receive_data(plugin.error(call_id, "cancelled", "as asked")) == []
    assert host.call("read", [])[0] == call_id + 1


def test_hanging_up_without_a_goodbye_is_a_fault_and_after_one_it_is_not(meet: Meet) -> None:
    host, plugin = meet()
    with pytest.raises(RemoteProtocolError, match="hung up without a goodbye, in state ready"):
        host.receive_eof()
    plugin.goodbye("stopping")
    plugin.receive_eof()
    assert host.state is plugin.state is State.CLOSED


def test_hanging_up_in_the_middle_of_a_message_is_always_a_fault(meet: Meet) -> None:
    host, plugin = meet()
    event = plugin.event("e", "x")
    host.receive_data(plugin.goodbye("stopping") + event[:-1])
    assert host.mid_frame
    with pytest.raises(RemoteProtocolError, match="hung up in the middle of a message"):
        host.receive_eof()


def test_sending_and_crediting_streams_follow_the_credit(meet: Meet) -> None:
    host, plugin = meet()
    call_id, data = host.call("rows", [], credit=1)
    plugin.receive_data(data)
    assert plugin.items_allowed(call_id) == 1
    host.receive_data(plugin.item(call_id, 1))
    assert plugin.items_allowed(call_id) == 0
    with pytest.raises(LocalProtocolError, match="no credit left"):
        plugin.item(call_id, 2)
    plugin.receive_data(host.credit(call_id, 2))
    assert plugin.items_allowed(call_id) == 2
    for wrong in (0, -1, 65_536):
        with pytest.raises(LocalProtocolError):
            host.credit(call_id, wrong)


def test_the_documented_error_codes_are_those_of_the_package(project_root: Any) -> None:
    spec = (project_root / "protocol" / "spec.md").read_text()
    for code in ERROR_CODES:
        assert f"| `{code}` |" in spec


def test_the_documented_limits_are_those_of_the_package(project_root: Any) -> None:
    spec = (project_root / "protocol" / "spec.md").read_text()
    limits = WireLimits()
    rows = [
        ("frame or line", limits.frame_bytes),
        ("lists and maps of a message", limits.containers),
        ("other parts of a message", limits.parts),
        ("depth of a value", limits.depth),
        ("unanswered calls of one side", limits.in_flight_calls),
        ("outstanding credit of a call", limits.credit),
    ]
    for name, value in rows:
        assert f"| {name} | {value:,} |" in spec
