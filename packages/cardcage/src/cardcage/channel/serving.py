"""The plugin's calls into the host: a task for each, bounded, each answered once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from cardcage.channel.handler import ChannelHandler
from cardcage.channel.peer import Peer
from cardcage.foundation.errors import CardcageError, Misuse, PluginFault, Refused, Unavailable
from cardcage_sdk.wire import ERROR_CODES, Call, Session, State, UnsendableValue

_log = logging.getLogger(__name__)


class Serving:
    """Runs the calls of one plugin and writes their answers."""

    def __init__(
        self,
        session: Session,
        handler: ChannelHandler,
        who: Peer,
        *,
        limit: int,
        limit_bytes: int,
        write: Callable[[bytes], None],
        writable: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._session = session
        self._handler = handler
        self._who = who
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._bytes = 0
        self._write = write
        self._writable = writable
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def begin(self, call: Call) -> None:
        """Start the call, or answer at once that too many are running."""
        if self._session.state is not State.READY:
            self._refuse(call, "the host is closing the connection")
        elif len(self._tasks) >= self._limit:
            self._refuse(call, f"the host runs {self._limit} calls of this plugin already, the most at once")
        elif self._bytes and self._bytes + _size(call) > self._limit_bytes:
            self._refuse(call, f"the host holds {self._bytes} bytes of arguments of this plugin's calls already")
        else:
            task = asyncio.get_running_loop().create_task(self._run(call), name=f"{self._who} calls {call.method}")
            self._tasks[call.id] = task
            self._bytes += _size(call)
            task.add_done_callback(lambda _: self._done(call))

    def cancel(self, call_id: int) -> None:
        """Cancel the call where it still runs; it is then answered with `cancelled`."""
        if task := self._tasks.get(call_id):
            task.cancel()

    def end(self) -> None:
        """Cancel all calls; nobody waits for the answers any more."""
        for task in list(self._tasks.values()):
            task.cancel()

    async def _run(self, call: Call) -> None:
        try:
            value = await self._value(call)
            await self._writable()
        except TimeoutError:
            what = f"{call.method} took too long (its deadline was {call.deadline_ms} ms)"
            self._answer_error(call, "deadline_exceeded", what)
        except CardcageError as error:
            self._answer_error(call, _code_of(error), error.message, _data_of(error))
        except Exception:
            # A bug of the host: its traceback is for the host's log, not for the plugin.
            _log.exception("the host failed to answer %s of %s", call.method, self._who)
            self._answer_error(call, "internal", f"the host failed in {call.method}")
        else:
            self._answer(call, value)

    def _done(self, call: Call) -> None:
        # Here and not in `_run`: a task that is cancelled before its first step never enters its body.
        del self._tasks[call.id]
        self._bytes -= _size(call)
        self._answer_error(call, "cancelled", f"{call.method} was cancelled")

    async def _value(self, call: Call) -> Any:
        try:
            args = self._session.decode(call.args)
        except msgspec.ValidationError as fault:
            raise Misuse(f"the arguments of {call.method} can't be read: {fault}") from None
        if not isinstance(args, list | dict):
            raise Misuse(f"the arguments of {call.method} must be an array or a map, not {type(args).__name__}")
        seconds = None if call.deadline_ms is None else call.deadline_ms / 1000
        async with asyncio.timeout(seconds):
            return await self._handler.on_call(call.method, args, call.meta or {})

    def _answer(self, call: Call, value: Any) -> None:
        if not self._session.is_serving(call.id) or self._session.state is State.CLOSED:
            return
        try:
            self._write(self._session.result(call.id, value))
        except UnsendableValue as fault:
            _log.error("the host's answer to %s of %s can't be sent: %s", call.method, self._who, fault.message)
            self._answer_error(call, "internal", f"the host's answer to {call.method} can't be sent")

    def _answer_error(self, call: Call, code: str, message: str, data: Any = None) -> None:
        if self._session.is_serving(call.id) and self._session.state is not State.CLOSED:
            self._write(self._session.error(call.id, code, message, data))

    def _refuse(self, call: Call, why: str) -> None:
        self._answer_error(call, "unavailable", f"{call.method} was not begun: {why}")


def _size(call: Call) -> int:
    return memoryview(call.args).nbytes


def _code_of(error: CardcageError) -> str:
    if error.code in ERROR_CODES:
        return error.code
    match error:
        case Refused():
            return "refused"
        case Misuse():
            return "invalid_params"
        case Unavailable():
            return "unavailable"
        case PluginFault():
            return "plugin_error"
        case _:
            return "internal"


def _data_of(error: CardcageError) -> dict[str, Any] | None:
    """The facts that help a plugin's author: the error's own code, its hint, and when to try again."""
    facts: dict[str, Any] = {"code": error.code}
    if error.hint:
        facts["hint"] = error.hint
    if isinstance(error, Unavailable) and error.retry_after_s is not None:
        facts["retry_after_s"] = error.retry_after_s
    return facts
