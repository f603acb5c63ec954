"""The published vectors, schema and state table agree with the implementation."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path
from typing import Any, cast

import jsonschema
import msgspec
import pytest

from cardcage_sdk.wire import (
    TRANSITIONS,
    Direction,
    Encoding,
    Kind,
    LocalProtocolError,
    Message,
    RemoteProtocolError,
    Role,
    Session,
    State,
)

PROTOCOL = Path(__file__).resolve().parents[2] / "protocol"
MAKER = runpy.run_path(str(PROTOCOL / "make_vectors.py"))


def vectors(name: str) -> list[Any]:
    return [pytest.param(each, id=each["name"]) for each in json.loads((PROTOCOL / "vectors" / name).read_text())]


def test_the_published_vectors_are_those_that_the_implementation_makes() -> None:
    for name, text in MAKER["all_vectors"]().items():
        assert (PROTOCOL / "vectors" / name).read_text() == text, f"{name} is stale: run protocol/make_vectors.py"


def test_every_kind_has_a_vector() -> None:
    kinds = {vector["message"][0] for vector in json.loads((PROTOCOL / "vectors/messages.json").read_text())}
    assert kinds == set(Kind)


@pytest.mark.parametrize("vector", vectors("messages.json"))
def test_both_forms_of_a_message_say_the_same(vector: dict[str, Any]) -> None:
    frame = bytes.fromhex(vector["binary"])
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    assert msgspec.msgpack.decode(frame[4:]) == vector["message"] == json.loads(vector["json"])
    binary = msgspec.msgpack.decode(frame[4:], type=Message)
    line = msgspec.json.decode(vector["json"], type=Message)
    assert type(binary) is type(line)


@pytest.mark.parametrize("vector", vectors("messages.json"))
def test_the_schema_takes_every_valid_message(vector: dict[str, Any]) -> None:
    assert fits_schema(vector["message"])


@pytest.mark.parametrize("vector", vectors("invalid.json"))
def test_invalid_bytes_are_refused_with_their_code_however_they_are_cut(vector: dict[str, Any]) -> None:
    data = bytes.fromhex(vector["bytes"])
    for size in (len(data), 1, 3):
        host = Session(Role.HOST) if vector["after"] == "nothing" else MAKER["ready_host"](Encoding(vector["after"]))
        with pytest.raises(RemoteProtocolError) as e:
            feed(host, data, size)
        assert (e.value.code, host.state) == (vector["error"], State.CLOSED)


def feed(session: Session, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        session.receive_data(data[start : start + size])


@pytest.mark.parametrize("vector", vectors("invalid.json"))
def test_the_schema_refuses_lines_that_are_malformed_by_shape(vector: dict[str, Any]) -> None:
    try:
        message = json.loads(bytes.fromhex(vector["bytes"]))
    except ValueError:
        return  # No line of JSON, or several: beyond a schema.
    assert fits_schema(message) == (vector["error"] != "malformed")


@pytest.mark.parametrize("vector", vectors("sessions.json"))
@pytest.mark.parametrize("encoding", list(Encoding))
def test_a_scripted_conversation_goes_through_its_states(vector: dict[str, Any], encoding: Encoding) -> None:
    role = Role(vector["role"])
    session = Session(role, encoding=encoding if role is Role.PLUGIN else None)
    for step in vector["steps"]:
        if "send" in step:
            refused = False
            try:
                MAKER["say"](session, step["send"])
            except LocalProtocolError:
                refused = True
            assert refused == step.get("refused", False)
        else:
            take(session, encoding, step)
        assert session.state == step["state"]


def take(session: Session, encoding: Encoding, step: dict[str, Any]) -> None:
    frame = MAKER["_frame"](step["receive"], encoding)
    try:
        messages = session.receive_data(frame)
    except RemoteProtocolError as fault:
        assert fault.code == step.get("error")  # noqa: PT017 - a step may or may not be a fault
    else:
        assert "error" not in step
        assert len(messages) == (0 if step["dropped"] else 1)


def test_the_state_table_in_the_specification_is_the_one_that_runs() -> None:
    row = re.compile(r"^\| (\w+) \| (send|receive) \| ([\w, ]+) \| (\w+) \|$", re.MULTILINE)
    written = {
        (State(before), Direction(way), Kind[kind.strip().upper()]): State(after)
        for before, way, kinds, after in row.findall((PROTOCOL / "spec.md").read_text())
        for kind in kinds.split(",")
    }
    assert written == dict(TRANSITIONS)


def fits_schema(message: Any) -> bool:
    schema: dict[str, Any] = json.loads((PROTOCOL / "messages.schema.json").read_text())
    return cast("Any", jsonschema.Draft202012Validator(schema)).is_valid(message)
