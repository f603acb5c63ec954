"""The wire protocol between a host and a plugin, without any I/O. Both sides use it; `protocol/spec.md` defines it.

    session = Session(Role.PLUGIN)
    sock.sendall(session.hello(sdk="python"))
    for message in session.receive_data(sock.recv(65536)):
        match message:
            case Call():
                sock.sendall(session.result(message.id, handle(message.method, session.decode(message.args))))

Only what this module names is public.
"""

from cardcage_sdk.wire.codec import Encoding
from cardcage_sdk.wire.errors import LocalProtocolError, ProtocolError, RemoteProtocolError, UnsendableValue
from cardcage_sdk.wire.limits import CODE_CHARS_MAX, ID_MAX, NAME_CHARS_MAX, WireLimits
from cardcage_sdk.wire.messages import (
    ERROR_CODES,
    Call,
    Cancel,
    Credit,
    Error,
    Event,
    Goodbye,
    Hello,
    Item,
    Kind,
    Log,
    LogLevel,
    Message,
    Metric,
    MetricKind,
    Ping,
    Pong,
    Ready,
    Result,
    Scalar,
)
from cardcage_sdk.wire.session import VERSIONS, Session
from cardcage_sdk.wire.states import TRANSITIONS, Direction, Role, State

__all__ = [
    "CODE_CHARS_MAX",
    "ERROR_CODES",
    "ID_MAX",
    "NAME_CHARS_MAX",
    "TRANSITIONS",
    "VERSIONS",
    "Call",
    "Cancel",
    "Credit",
    "Direction",
    "Encoding",
    "Error",
    "Event",
    "Goodbye",
    "Hello",
    "Item",
    "Kind",
    "LocalProtocolError",
    "Log",
    "LogLevel",
    "Message",
    "Metric",
    "MetricKind",
    "Ping",
    "Pong",
    "ProtocolError",
    "Ready",
    "RemoteProtocolError",
    "Result",
    "Role",
    "Scalar",
    "Session",
    "State",
    "UnsendableValue",
    "WireLimits",
]
