"""Writes the test vectors in `vectors/` from the implementation in `cardcage_sdk.wire`.

    python protocol/make_vectors.py

The vectors are reviewed like code: a change in them is a change of the protocol. A test keeps them and the
implementation equal, and other languages' implementations are held to the same files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cardcage_sdk.wire import Encoding, Kind, LocalProtocolError, RemoteProtocolError, Role, Session, State
from cardcage_sdk.wire.codec import CODECS

VECTORS = Path(__file__).parent / "vectors"

HELLO: list[Any] = [0, [1], [], {"sdk": "vectors"}]
READY: list[Any] = [1, 1, [], {"host": "vectors"}]
CALL: list[Any] = [2, 1, "greet", ["Ada"], None, 0, None]
STREAM: list[Any] = [2, 1, "rows", ["bill.csv"], 30000, 2, None]

MESSAGES: dict[str, list[Any]] = {
    "hello": [0, [1], [], {}],
    "hello with features and info": [0, [1, 2], ["memfd", "trace"], {"sdk": "go", "pid": 7, "threads": True}],
    "ready": [1, 1, ["trace"], {"host": "cardcage"}],
    "call by position": CALL,
    "call by name, with a deadline": [2, 9007199254740991, "greet", {"name": "Ada"}, 30000, 0, None],
    "call of a stream, with meta": [2, 2, "rows", [], None, 64, {"trace": "00-4bf9-01", "hops": 2}],
    "result": [3, 1, "Good day, Ada."],
    "result of nothing": [3, 1, None],
    "result, nested": [3, 1, {"rows": [[1, -1, 255, 65536, 4294967296], [], {}], "ok": True, "rate": 0.25}],
    "result beyond ASCII": [3, 1, "Grüße, 東京 😀\n\u0000"],
    "result of the largest integers": [3, 1, [18446744073709551615, -9223372036854775808]],
    "error": [4, 1, "plugin_error", "no page 3", None],
    "error with data": [4, 1, "unavailable", "starting", {"retry_after_s": 2.5}],
    "cancel": [5, 1, "deadline_exceeded"],
    "item": [6, 1, {"service": "ec2", "cost": "1.25"}],
    "credit": [7, 1, 32],
    "event": [8, "cost.spike", {"service": "ec2"}],
    "log": [9, "warning", "page 3 is blurred", {"page": 3}],
    "log without fields": [9, "info", "done", None],
    "metric": [10, "pages_read", "counter", 1.0, {"kind": "scan"}],
    "metric without tags": [10, "queue", "gauge", 0.5, None],
    "ping": [11, 0],
    "pong": [12, 9007199254740991],
    "goodbye": [13, "stopping", ""],
}

# Each: what the host has read before ("nothing", or a hello it answered with ready), then these bytes.
INVALID: dict[str, tuple[str, str, bytes]] = {
    "first byte is neither": ("nothing", "malformed", b"hello\n"),
    "first frame too long": ("nothing", "malformed", b"\x01\x00\x00\x01"),
    "hello without versions": ("nothing", "malformed", b"[0,[]]\n"),
    "hello of unknown versions": ("nothing", "unsupported_version", b"[0,[2,3]]\n"),
    "call before the hello": ("nothing", "unexpected_message", b'[2,1,"greet",[]]\n'),
    "frame longer than 16 MiB": ("binary", "frame_too_large", b"\x01\x00\x00\x01"),
    "empty frame": ("binary", "malformed", b"\x00\x00\x00\x00"),
    "not MessagePack": ("binary", "malformed", b"\x00\x00\x00\x01\xc1"),
    "not an array": ("binary", "malformed", b"\x00\x00\x00\x01\x07"),
    "truncated inside the frame": ("binary", "malformed", b"\x00\x00\x00\x03\x93\x03\x01"),
    "bytes after the message": ("binary", "malformed", b"\x00\x00\x00\x04\x92\x0b\x07\xc0"),
    "not JSON": ("json", "malformed", b"print\n"),
    "two messages on a line": ("json", "malformed", b"[11,1][11,2]\n"),
    "kind unknown": ("json", "malformed", b"[14,1]\n"),
    "kind as text": ("json", "malformed", b'["call",1,"greet",[]]\n'),
    "no id": ("json", "malformed", b"[3]\n"),
    "id 0": ("json", "malformed", b"[3,0,null]\n"),
    "id beyond 2^53-1": ("json", "malformed", b"[3,9007199254740992,null]\n"),
    "id as text": ("json", "malformed", b'[3,"1",null]\n'),
    "method empty": ("json", "malformed", b'[2,1,"",[]]\n'),
    "method of 257 characters": ("json", "malformed", b'[2,1,"' + b"m" * 257 + b'",[]]\n'),
    "deadline negative": ("json", "malformed", b'[2,1,"greet",[],-1]\n'),
    "meta nested": ("json", "malformed", b'[2,1,"greet",[],null,0,{"a":[1]}]\n'),
    "log level unknown": ("json", "malformed", b'[9,"fatal","x"]\n'),
    "metric kind unknown": ("json", "malformed", b'[10,"x","sum",1]\n'),
    "metric value as text": ("json", "malformed", b'[10,"x","gauge","1"]\n'),
    "credit of 0": ("json", "malformed", b"[7,1,0]\n"),
    "hello again": ("json", "unexpected_message", b"[0,[1]]\n"),
    "ready from a plugin": ("json", "unexpected_message", b"[1,1]\n"),
    "pong without a ping": ("json", "unexpected_message", b"[12,1]\n"),
    "answer to a call never made": ("json", "call_id", b"[3,1,null]\n"),
    "item for a call never made": ("json", "call_id", b"[6,1,null]\n"),
    "cancel of a call never made": ("json", "call_id", b"[5,1]\n"),
    "credit for a call never made": ("json", "call_id", b"[7,1,1]\n"),
    "call id twice": ("json", "call_id", b'[2,1,"greet",[]]\n[2,1,"greet",[]]\n'),
    "call id descending": ("json", "call_id", b'[2,7,"greet",[]]\n[2,6,"greet",[]]\n'),
    "credit for a call without a stream": ("json", "credit", b'[2,1,"greet",[]]\n[7,1,1]\n'),
    "credit beyond its limit": ("json", "credit", b'[2,1,"rows",[],null,65537]\n'),
    "credit that adds up beyond its limit": ("json", "credit", b'[2,1,"rows",[],null,65536]\n[7,1,1]\n'),
}

# Each: the role under test, then its steps. ">" is sent by it, "<" is received by it; "!" is refused locally.
SCRIPTS: dict[str, tuple[Role, list[tuple[str, list[Any]]]]] = {
    "a host opens, calls and closes": (
        Role.HOST,
        [
            ("<", HELLO),
            (">", READY),
            (">", CALL),
            ("<", [3, 1, "Good day"]),
            (">", [13, "stopping", ""]),
            ("<", [13, "stopping", ""]),
        ],
    ),
    "a plugin opens, serves a call and closes": (
        Role.PLUGIN,
        [
            (">", HELLO),
            ("<", READY),
            ("<", CALL),
            (">", [3, 1, "Good day"]),
            ("<", [13, "stopping", ""]),
            (">", [13, "stopping", ""]),
        ],
    ),
    "each side numbers its own calls": (
        Role.HOST,
        [
            ("<", HELLO),
            (">", READY),
            (">", CALL),
            ("<", CALL),
            (">", [3, 1, "from the host"]),
            ("<", [3, 1, "from the plugin"]),
        ],
    ),
    "a stream runs on credit": (
        Role.PLUGIN,
        [
            (">", HELLO),
            ("<", READY),
            ("<", STREAM),
            (">", [6, 1, "a"]),
            (">", [6, 1, "b"]),
            ("!", [6, 1, "c"]),
            ("<", [7, 1, 1]),
            (">", [6, 1, "c"]),
            ("!", [6, 1, "d"]),
            (">", [3, 1, None]),
            ("<", [7, 1, 5]),
            ("!", [6, 1, "e"]),
        ],
    ),
    "items beyond the credit are a fault": (
        Role.HOST,
        [("<", HELLO), (">", READY), (">", STREAM), ("<", [6, 1, "a"]), ("<", [6, 1, "b"]), ("<", [6, 1, "c"])],
    ),
    "an item for a call without a stream is a fault": (
        Role.HOST,
        [("<", HELLO), (">", READY), (">", CALL), ("<", [6, 1, "a"])],
    ),
    "a cancelled call is still answered, once, and the answer dropped": (
        Role.HOST,
        [
            ("<", HELLO),
            (">", READY),
            (">", STREAM),
            (">", [5, 1, "cancelled"]),
            ("<", [6, 1, "late"]),
            ("<", [4, 1, "cancelled", "as asked", None]),
            ("<", [4, 1, "cancelled", "as asked", None]),
        ],
    ),
    "a call is answered once": (
        Role.HOST,
        [("<", HELLO), (">", READY), (">", CALL), ("<", [3, 1, 1]), ("<", [3, 1, 2])],
    ),
    "a cancel that crosses the answer is dropped": (
        Role.PLUGIN,
        [
            (">", HELLO),
            ("<", READY),
            ("<", CALL),
            (">", [3, 1, 1]),
            ("<", [5, 1, "cancelled"]),
            ("!", [4, 1, "cancelled", "x", None]),
        ],
    ),
    "a cancel that comes in time is to be answered": (
        Role.PLUGIN,
        [
            (">", HELLO),
            ("<", READY),
            ("<", CALL),
            ("<", [5, 1, "cancelled"]),
            (">", [4, 1, "cancelled", "as asked", None]),
        ],
    ),
    "open calls are answered between the goodbyes": (
        Role.PLUGIN,
        [
            (">", HELLO),
            ("<", READY),
            ("<", CALL),
            ("<", [13, "stopping", ""]),
            ("!", [2, 1, "cost_data", [], None, 0, None]),
            (">", [3, 1, "Good day"]),
            (">", [13, "stopping", ""]),
            ("!", [11, 1]),
        ],
    ),
    "a call that crosses our goodbye may arrive": (
        Role.HOST,
        [
            ("<", HELLO),
            (">", READY),
            (">", [13, "stopping", ""]),
            ("<", CALL),
            (">", [4, 1, "unavailable", "closing", None]),
        ],
    ),
    "goodbyes that cross": (
        Role.HOST,
        [
            ("<", HELLO),
            (">", READY),
            (">", [13, "stopping", ""]),
            ("<", [13, "stopping", ""]),
            ("!", [13, "stopping", ""]),
            ("<", [5, 1, "sent before it read our goodbye"]),
        ],
    ),
    "a host that can't use the plugin says goodbye in place of ready": (
        Role.PLUGIN,
        [(">", HELLO), ("<", [13, "refused", "upgrade the SDK"]), ("!", [11, 1])],
    ),
    "a plugin waits for ready": (Role.PLUGIN, [("!", [11, 1]), (">", HELLO), ("!", CALL), ("!", HELLO), ("<", READY)]),
    "a version that was not offered is a fault": (Role.PLUGIN, [(">", HELLO), ("<", [1, 2, [], {}])]),
    "a feature that was not offered is a fault": (Role.PLUGIN, [(">", HELLO), ("<", [1, 1, ["memfd"], {}])]),
    "a pong answers one ping": (
        Role.HOST,
        [("<", HELLO), (">", READY), (">", [11, 5]), ("!", [11, 5]), ("<", [12, 5]), ("<", [12, 5])],
    ),
}


def say(session: Session, message: list[Any]) -> bytes:
    """What `session` writes for `message`. Raises `LocalProtocolError` where it may not be said."""
    kind, *rest = message
    match Kind(kind):
        case Kind.HELLO:
            return session.hello(**rest[2])
        case Kind.READY:
            return session.ready(**rest[2])
        case Kind.CALL:
            call_id, data = session.call(rest[1], rest[2], deadline_ms=rest[3], credit=rest[4], meta=rest[5])
            assert call_id == rest[0], f"the script numbers the call {rest[0]}, the session {call_id}"
            return data
        case other:
            return getattr(session, other.name.lower())(*rest)


def line_of(message: list[Any]) -> bytes:
    """A message as a line of JSON, whoever may send it."""
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def ready_host(encoding: Encoding) -> Session:
    """A host's session that has met a plugin."""
    host = Session(Role.HOST)
    host.receive_data(Session(Role.PLUGIN, encoding=encoding).hello())
    host.ready()
    return host


def message_vectors() -> list[dict[str, Any]]:
    """Every kind of message in both encodings."""
    vectors: list[dict[str, Any]] = []
    for name, message in MESSAGES.items():
        frames = {encoding: _frame(message, encoding) for encoding in Encoding}
        vectors.append(
            {
                "name": name,
                "message": message,
                "binary": frames[Encoding.BINARY].hex(),
                "json": frames[Encoding.JSON].decode().removesuffix("\n"),
            }
        )
    return vectors


def _frame(message: list[Any], encoding: Encoding) -> bytes:
    """The frame of a message, encoded as a session does, whatever its state would allow."""
    codec = CODECS[encoding]
    return codec.enclose(codec.encode(message))


def invalid_vectors() -> list[dict[str, Any]]:
    """Bytes that a host must refuse, and the code of the refusal."""
    vectors: list[dict[str, Any]] = []
    for name, (before, code, data) in INVALID.items():
        host = Session(Role.HOST) if before == "nothing" else ready_host(Encoding(before))
        try:
            host.receive_data(data)
        except RemoteProtocolError as fault:
            assert host.state is State.CLOSED
            found = fault
        else:
            raise AssertionError(f"{name} was taken")
        assert found.code == code, f"{name}: expected {code}, found {found.code}: {found}"
        vectors.append({"name": name, "after": before, "bytes": data.hex(), "error": code})
    return vectors


def script_vectors() -> list[dict[str, Any]]:
    """Conversations seen from one side, with the state after each step."""
    return [{"name": name, "role": role, "steps": _steps(role, steps)} for name, (role, steps) in SCRIPTS.items()]


def _steps(role: Role, steps: list[tuple[str, list[Any]]]) -> list[dict[str, Any]]:
    session = Session(role, encoding=Encoding.JSON if role is Role.PLUGIN else None)
    return [_step(session, way, message) for way, message in steps]


def _step(session: Session, way: str, message: list[Any]) -> dict[str, Any]:
    if way == "<":
        step: dict[str, Any] = {"receive": message}
        try:
            step["dropped"] = not session.receive_data(line_of(message))
        except RemoteProtocolError as fault:
            step["error"] = fault.code
    else:
        step = {"send": message}
        try:
            say(session, message)
            assert way == ">", f"{message} was allowed"
        except LocalProtocolError:
            assert way == "!", f"{message} was refused"
            step["refused"] = True
    return {**step, "state": session.state}


def all_vectors() -> dict[str, str]:
    """File names and their text."""
    return {
        "messages.json": _text(message_vectors()),
        "invalid.json": _text(invalid_vectors()),
        "sessions.json": _text(script_vectors()),
    }


def _text(vectors: list[dict[str, Any]]) -> str:
    """One vector a line, and of a script one step a line, so that a change reads well in a diff."""
    return "[\n" + ",\n".join(_entry(vector) for vector in vectors) + "\n]\n"


def _entry(vector: dict[str, Any]) -> str:
    if "steps" not in vector:
        return "  " + json.dumps(vector, ensure_ascii=False)
    steps = ",\n".join("    " + json.dumps(step, ensure_ascii=False) for step in vector["steps"])
    head = json.dumps({key: value for key, value in vector.items() if key != "steps"}, ensure_ascii=False)
    return f'  {head[:-1]}, "steps": [\n{steps}\n  ]}}'


if __name__ == "__main__":
    VECTORS.mkdir(exist_ok=True)
    for file, text in all_vectors().items():
        (VECTORS / file).write_text(text)
        print(f"{file}: {len(json.loads(text))} vectors")
