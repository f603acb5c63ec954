"""What goes wrong in a plugin, as the wire tells it: a code, one sentence, and facts."""

from __future__ import annotations

import os
from typing import Any, Final, NamedTuple

from cardcage_sdk.context import CallCancelled, CurrentCall
from cardcage_sdk.signature import InvalidArguments

MESSAGE_CHARS_MAX: Final = 4_000
TRACEBACK_CHARS_MAX: Final = 16_000
"""A traceback is for a person to read; what is longer is mostly one frame, repeated."""

_SDK_DIR: Final = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Failure(NamedTuple):
    """The answer to a call that failed."""

    code: str
    message: str
    data: dict[str, Any] | None = None


class LoadFault(Exception):
    """The plugin could not be loaded. `code` is `entrypoint_not_found` or `import_failed`."""

    def __init__(self, code: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.facts = facts


def failure_of(fault: BaseException, current: CurrentCall) -> Failure:
    """The failure that an exception amounts to, raised while the call was answered."""
    match fault:
        case InvalidArguments():
            return Failure("invalid_params", fault.message, dict(fault.facts))
        case LoadFault():
            return Failure(fault.code, fault.message, {"code": fault.code, **fault.facts})
        case CallCancelled():
            expired = current.cancelled_reason is None and current.expired
            return Failure("deadline_exceeded" if expired else "cancelled", f"{current.label} stopped: {fault}")
        case _:
            return plugin_error(fault, current.label)


def plugin_error(fault: BaseException, method: str) -> Failure:
    """The failure for an exception of the plugin's own code, with the traceback's frames that are the plugin's."""
    kind = type(fault).__name__
    return Failure(
        "plugin_error",
        f"{method} raised {summary(fault)}",
        {"type": kind, "message": text_of(fault), "traceback": traceback_text(fault)},
    )


def cancelled(method: str, reason: str) -> Failure:
    """The failure for a call that the host withdrew."""
    return Failure("cancelled", f"{method} was cancelled: {reason}")


def deadline_exceeded(method: str, *, started: bool) -> Failure:
    """The failure for a call whose time is over."""
    when = "before it had finished" if started else "before it could be run"
    return Failure("deadline_exceeded", f"the deadline of {method} passed {when}")


def invalid_result(method: str, value: Any, reason: BaseException) -> Failure:
    """The failure for a result that cannot be put on the wire."""
    kind = type(value).__qualname__
    return Failure(
        "invalid_result",
        f"{method} returned a {kind} that cannot be sent: {text_of(reason)}",
        {"method": method, "type": kind},
    )


def summary(fault: BaseException) -> str:
    """`ValueError: bad` on one line."""
    text = text_of(fault)
    return f"{type(fault).__name__}: {text}" if text else type(fault).__name__


def text_of(fault: BaseException) -> str:
    """The exception's own words, cut to a bound. An exception whose `__str__` raises has none."""
    try:
        return sendable(str(fault))
    except Exception:
        return ""


def sendable(text: str, chars_max: int = MESSAGE_CHARS_MAX) -> str:
    """`text` cut to a bound, with what UTF-8 cannot carry (lone surrogates) escaped."""
    return text[:chars_max].encode("utf-8", "backslashreplace").decode()


def traceback_text(fault: BaseException) -> str:
    """The traceback as Python prints it, without this package's frames and the import machinery's."""
    from traceback import TracebackException

    try:
        whole = TracebackException.from_exception(fault, compact=True)
        _trim(whole, depth=0)
        text = "".join(whole.format())
    except Exception:
        return summary(fault)
    if len(text) > TRACEBACK_CHARS_MAX:
        text = "...\n" + text[-TRACEBACK_CHARS_MAX:]
    return sendable(text, len(text))


def _trim(whole: Any, depth: int) -> None:
    """Drop foreign frames here and in what led to it. The causes are few; a cycle of them ends at the bound."""
    if whole is None or depth > 20:
        return
    own = [frame for frame in whole.stack if not _is_foreign(frame.filename)]
    whole.stack[:] = own
    _trim(whole.__cause__, depth + 1)
    _trim(whole.__context__, depth + 1)


def _is_foreign(filename: str) -> bool:
    return filename.startswith((_SDK_DIR, "<frozen "))
