"""Who broke the protocol: this side (`LocalProtocolError`) or the peer (`RemoteProtocolError`).

A local error is a bug in the code that drives the session; the session stays as it was and may be used further. A
remote error ends the session: what the peer sends after it cannot be trusted to mean anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cardcage_sdk.wire.messages import Message


class ProtocolError(Exception):
    """Root of the wire's errors. `code` is a stable word; the sentence says what was expected and found."""

    code: str = "protocol_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class LocalProtocolError(ProtocolError):
    """This side tried to send what the protocol forbids now. Nothing was sent and nothing has changed."""


class UnsendableValue(LocalProtocolError):
    """A value has no form on the wire (an open file, an integer of 100 bits) or is longer than a frame may be.

    An answer that failed so is still owed: send an `error` in its place.
    """

    code = "unsendable_value"


class RemoteProtocolError(ProtocolError):
    """The peer sent what the protocol forbids. The session is closed.

    Codes: `malformed`, `frame_too_large`, `unexpected_message`, `unsupported_version`, `call_limit`, `call_id`,
    `credit`, `hung_up`.

    `received` holds the good messages that stood before the fault in the same chunk of data, and would otherwise be
    lost. `farewell` is a goodbye that may be written, as a courtesy to the peer's author, before the connection is
    dropped; it is empty where the peer's encoding is not known.
    """

    code = "malformed"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code)
        self.received: list[Message] = []
        self.farewell = b""
