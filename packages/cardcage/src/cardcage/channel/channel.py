"""A channel: calls, streams, events and pings between the host and one plugin, over one socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeVar, overload

import msgspec

from cardcage.channel.calls import Waiting, WaitingCalls
from cardcage.channel.driver import Driver
from cardcage.channel.handler import ChannelHandler, CloseReason
from cardcage.channel.limits import (
    ERROR_DATA_BYTES_MAX,
    EVENT_BYTES_MAX,
    IN_PLACE_PAUSE,
    IN_PLACE_RUN,
    LOG_FIELDS_BYTES_MAX,
    ChannelLimits,
)
from cardcage.channel.peer import Peer, plain
from cardcage.channel.serving import Serving
from cardcage.channel.streams import Inbox, Stream
from cardcage.foundation.errors import CardcageError
from cardcage.foundation.limits import CALL_TIMEOUT_S, CONNECT_TIMEOUT_S
from cardcage_sdk.wire import (
    ID_MAX,
    Call,
    Cancel,
    Error,
    Event,
    Goodbye,
    Hello,
    Item,
    LocalProtocolError,
    Log,
    Message,
    Metric,
    Ping,
    Pong,
    Result,
    Role,
    Scalar,
    Session,
    State,
    UnsendableValue,
    WireLimits,
)

T = TypeVar("T")
Args = Sequence[Any] | Mapping[str, Any]

_log = logging.getLogger(__name__)

_READY: Final = State.READY

FOREVER_S: Final = ID_MAX / 1000
"""A timeout from here on has no form on the wire; the plugin is then told of no deadline."""

REASON_CHARS_MAX: Final = 1000
"""How much of a reason a goodbye carries."""

BUSY_RETRY_AFTER_S: Final = 0.1
"""When to try again after too many calls were in flight: some thousand calls are answered in that time."""


class Channel:
    """The host's end of one plugin's connection. Belongs to the event loop that it was opened in.

    Every error names the plugin and its version. When the connection ends, every call in flight fails with
    `PluginFault`, and `closed` resolves to the reason.
    """

    def __init__(self, *, handler: ChannelHandler, who: Peer, limits: ChannelLimits, wire: WireLimits) -> None:
        """Use `Channel.open`."""
        loop = asyncio.get_running_loop()
        self.who = who
        self.hello: Hello | None = None
        self._closed: asyncio.Future[CloseReason] = loop.create_future()
        self._loop = loop
        self._limits = limits
        self._session = Session(Role.HOST, limits=wire)
        self._handler = handler
        self._opened: asyncio.Future[None] = loop.create_future()
        self._calls = WaitingCalls(loop, self._expire)
        self._waiting = self._calls.by_id
        self._streams: dict[int, Inbox] = {}
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._last_nonce = 0
        self._in_place = 0
        """Lone calls in a row that were answered in place; below zero, how many are to wait in the loop first."""
        self._pause = 1
        """How many wait in the loop after the next that is not answered in place."""
        self._leaving: CloseReason | None = None
        self._ending: CloseReason | None = None
        self._driver: Driver
        self._serving: Serving
        self._take: dict[type[Message], Callable[[Any], None]] = {
            Result: self._on_result,
            Error: self._on_error,
            Item: self._on_item,
            Call: self._on_call,
            Cancel: self._on_cancel,
            Event: self._on_event,
            Log: self._on_log,
            Metric: self._on_metric,
            Ping: self._on_ping,
            Pong: self._on_pong,
            Hello: self._on_hello,
            Goodbye: self._on_goodbye,
        }

    @classmethod
    async def open(
        cls,
        sock: socket.socket,
        *,
        handler: ChannelHandler,
        who: Peer,
        timeout_s: float = CONNECT_TIMEOUT_S,
        limits: ChannelLimits = ChannelLimits(),  # noqa: B008 - frozen
        wire: WireLimits = WireLimits(),  # noqa: B008 - frozen
    ) -> Channel:
        """Wait for the plugin's hello on `sock` and answer it. The socket belongs to the channel, also on failure.

        Raises `PluginFault`: `deadline_exceeded` where no hello comes within `timeout_s`, `protocol_error` for anything
        that is no hello, `connection_lost` where the plugin hangs up.
        """
        channel = cls(handler=handler, who=who, limits=limits, wire=wire)
        await channel._connect(sock)
        try:
            async with asyncio.timeout(timeout_s):
                await channel._opened
        except TimeoutError:
            what = f"said no hello within {timeout_s:g} s"
            channel._driver.disconnect("deadline_exceeded", what)
            raise who.fault("deadline_exceeded", what) from None
        except BaseException:
            channel._driver.disconnect("closed", "was given up while it connected")
            raise
        return channel

    @property
    def closed(self) -> asyncio.Future[CloseReason]:
        """Resolves when the channel has ended. Shielded: cancelling one who waits leaves the others waiting.

        Each use makes a future that lasts as long as the channel: take it once to wait, and ask `ended` to look.
        """
        return asyncio.shield(self._closed)

    @property
    def ended(self) -> bool:
        """Whether the channel has ended, so that no call can be made on it any more."""
        return self._ending is not None

    # Calling

    @overload
    async def call(
        self,
        method: str,
        args: Args,
        result_type: type[T],
        timeout_s: float = ...,
        *,
        meta: Mapping[str, Scalar] | None = ...,
    ) -> T: ...
    @overload
    async def call(
        self,
        method: str,
        args: Args = ...,
        result_type: Any = ...,
        timeout_s: float = ...,
        *,
        meta: Mapping[str, Scalar] | None = ...,
    ) -> Any: ...
    async def call(
        self,
        method: str,
        args: Args = (),
        result_type: Any = Any,
        timeout_s: float = CALL_TIMEOUT_S,
        *,
        meta: Mapping[str, Scalar] | None = None,
    ) -> Any:
        """Call `method` and return its result as `result_type`.

        Cancelling the task that waits cancels the call in the plugin; so does the deadline, `timeout_s` from now.
        Raises `PluginFault` (`plugin_error`, `invalid_result`, `deadline_exceeded`, `connection_lost`,
        `protocol_error`, `method_not_found`, ...), `Misuse` for arguments that the plugin or the wire does not take,
        `Refused`, and `Unavailable` where too many calls are in flight or the channel is closing.
        """
        session = self._session
        driver = self._driver
        if driver.paused or session.state is not _READY:
            timeout_s = await self._until_callable(method, timeout_s)
        deadline_ms = int(timeout_s * 1000) or 1 if timeout_s < FOREVER_S else None
        try:
            call_id, frame = session.call(method, args, deadline_ms=deadline_ms, meta=meta)
        except LocalProtocolError as fault:
            raise self._not_begun(method, fault) from None
        messages: list[Message] = []
        if self._waiting:
            driver.write(frame)
            self._in_place = -IN_PLACE_PAUSE
        else:
            driver.write_now(frame)
            self._in_place += 1
            if self._in_place > 0:
                messages = self._said_in_place()
                if len(messages) == 1 and type(first := messages[0]) is Result and first.id == call_id:
                    return self._decoded(method, first.value, result_type)
        answer = self._calls.add(call_id, method, timeout_s)
        if messages:
            self._deliver(messages)
        try:
            raw = await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled():
                answer.exception()  # Seen, though nobody is left to be told: asyncio would log it otherwise.
            self._give_up(call_id, "cancelled")
            raise
        return self._decoded(method, raw, result_type)

    def stream(
        self,
        method: str,
        args: Args = (),
        item_type: Any = Any,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Stream[Any]:
        """Call `method` and iterate over the items that it sends, each as `item_type`; see `Stream`.

        `timeout_s` bounds the wait for each item. Raises, while iterating, what `call` raises.
        """
        return Stream(self, method, args, item_type, timeout_s, self._loop)

    def publish(self, name: str, data: Any) -> None:
        """Send an event to the plugin. Raises `Misuse` for data without a form on the wire, `Unavailable` where the
        plugin does not read what it was sent before, or the channel is closing."""
        if self._driver.paused:
            raise self.who.unavailable(f"does not read its events; {name} was not sent", retry_after_s=1.0, event=name)
        self._require_ready(f"event {name}")
        try:
            frame = self._session.event(name, data)
        except LocalProtocolError as fault:
            raise self.who.misuse(
                "invalid_params", f"can't be sent event {name}: {fault.message}", event=name
            ) from None
        self._driver.write(frame)

    async def ping(self, timeout_s: float) -> float:
        """Wait for the plugin to answer a ping; returns the seconds it took. Raises `PluginFault` as `call` does."""
        self._require_ready("a ping")
        self._last_nonce += 1
        nonce = self._last_nonce
        pong = self._pings[nonce] = self._loop.create_future()
        begun_s = self._loop.time()
        self._driver.write_now(self._session.ping(nonce))
        try:
            async with asyncio.timeout(timeout_s):
                await pong
        except TimeoutError:
            raise self.who.fault("deadline_exceeded", f"did not answer a ping within {timeout_s:g} s") from None
        finally:
            self._pings.pop(nonce, None)
        return self._loop.time() - begun_s

    async def close(self, reason: str = "the host is done with it") -> None:
        """Say goodbye, give the plugin a moment to answer what is open and say its own, and hang up.

        Calls still open then fail. Harmless where the channel has ended. Cancelling it hangs up at once.
        """
        if not self._driver.ended:
            self._leaving = self._leaving or CloseReason(code="closed", message=f"was closed: {reason}")
            try:
                if self._session.state is State.READY:
                    self._driver.write(self._session.goodbye("stopping", reason[:REASON_CHARS_MAX]))
                if self._session.state is State.CLOSING:
                    async with asyncio.timeout(self._limits.goodbye_s):
                        await self.closed
            except TimeoutError:
                pass  # It had its moment.
            finally:
                self._driver.disconnect(self._leaving.code, self._leaving.message)

    # The streams' view of the channel (see `streams.Source`)

    async def begin_stream(self, inbox: Inbox, args: Any, window: int) -> None:
        """Send a stream's call."""
        if self._driver.paused or self._session.state is not State.READY:
            await self._driver.writable()
            self._require_ready(inbox.method)
        try:
            inbox.call_id, frame = self._session.call(inbox.method, args, credit=window)
        except LocalProtocolError as fault:
            raise self._not_begun(inbox.method, fault) from None
        self._streams[inbox.call_id] = inbox
        self._driver.write(frame)

    def give_credit(self, inbox: Inbox, items: int) -> None:
        """Let the plugin send more of a stream."""
        if self._session.is_waiting(inbox.call_id) and self._session.state is not State.CLOSED:
            self._driver.write(self._session.credit(inbox.call_id, items))

    def end_stream(self, inbox: Inbox, reason: str) -> None:
        """Forget a stream; cancel its call where it still runs."""
        if self._streams.pop(inbox.call_id, None) is not None:
            inbox.end()
            self._cancel(inbox.call_id, reason)

    def decode_item(self, inbox: Inbox, raw: msgspec.Raw, item_type: Any) -> Any:
        """Read an item of a stream."""
        try:
            return self._session.decode(raw, item_type)
        except msgspec.ValidationError as fault:
            raise self._invalid(inbox.method, "item", fault) from None

    def late_item(self, inbox: Inbox, timeout_s: float) -> Exception:
        """The error for a stream that fell silent."""
        return self.who.fault(
            "deadline_exceeded", f"sent no item of {inbox.method} within {timeout_s:g} s", method=inbox.method
        )

    # What arrives

    def _deliver(self, messages: list[Message]) -> None:
        for message in messages:
            self._take[type(message)](message)
            if self._ending is not None:
                return
        if self._leaving is not None:
            open_calls = self._waiting or self._streams
            if self._session.state is State.CLOSED or not open_calls:
                self._leave()

    def _on_result(self, message: Result) -> None:
        if call := self._waiting.pop(message.id, None):
            if not call.answer.done():
                call.answer.set_result(message.value)
        elif inbox := self._streams.pop(message.id, None):
            inbox.end()

    def _on_error(self, message: Error) -> None:
        if call := self._waiting.pop(message.id, None):
            if not call.answer.done():
                call.answer.set_exception(self._answered(call.method, message))
        elif inbox := self._streams.pop(message.id, None):
            inbox.end(self._answered(inbox.method, message))

    def _on_item(self, message: Item) -> None:
        if inbox := self._streams.get(message.id):
            inbox.put(message.value)
            if inbox.bytes_held > self._limits.stream_bytes:
                self._break_off(
                    f"sent more than {self._limits.stream_bytes} bytes of {inbox.method} ahead of its reader",
                )

    def _on_call(self, message: Call) -> None:
        self._serving.begin(message)

    def _on_cancel(self, message: Cancel) -> None:
        self._serving.cancel(message.id)

    def _on_event(self, message: Event) -> None:
        size = memoryview(message.data).nbytes
        if size > EVENT_BYTES_MAX:
            self._note(f"event {message.name} was dropped: it has {size} bytes, and {EVENT_BYTES_MAX} are allowed")
            return
        self._hand_on(f"event {message.name}", message.data, lambda data: self._handler.on_event(message.name, data))

    def _on_log(self, message: Log) -> None:
        def take(fields: Any) -> None:
            if not isinstance(fields, dict | None):
                raise msgspec.ValidationError(f"Expected `object | null`, got `{type(fields).__name__}`")
            self._handler.on_log(message.level, message.message, fields)  # pyright: ignore[reportUnknownArgumentType]

        size = memoryview(message.fields).nbytes
        if size > LOG_FIELDS_BYTES_MAX:
            self._handler.on_log(message.level, message.message, {"dropped": f"fields of {size} bytes"})
            return
        self._hand_on("log", message.fields, take)

    def _note(self, text: str) -> None:
        """Tell of what was not taken where the plugin's own messages are read: bounded, as those are."""
        self._handler.on_log("warning", text, None)

    def _on_metric(self, message: Metric) -> None:
        try:
            self._handler.on_metric(message.name, message.kind, message.value, message.tags)
        except Exception:
            _log.exception("the host failed to take metric %s of %s", message.name, self.who)

    def _on_ping(self, message: Ping) -> None:
        if self._session.state is not State.CLOSED:
            self._driver.write(self._session.pong(message.nonce))

    def _on_pong(self, message: Pong) -> None:
        pong = self._pings.get(message.nonce)
        if pong is not None and not pong.done():
            pong.set_result(None)

    def _on_hello(self, message: Hello) -> None:
        self.hello = message
        if self._session.state is not State.GREETED:
            return  # What followed the hello has already ended the session.
        self._driver.write_now(self._session.ready(host="cardcage"))
        if not self._opened.done():
            self._opened.set_result(None)

    def _on_goodbye(self, message: Goodbye) -> None:
        # Answered in `_deliver` once nothing is open: answers to open calls may still come.
        if self._leaving is None:
            words = f": {message.message}" if message.message else ""
            self._leaving = CloseReason(code="goodbye", message=f"said goodbye ({message.code}){words}")
            self._loop.call_later(self._limits.goodbye_s, self._leave)

    def _leave(self) -> None:
        """Say our goodbye where it is still to be said, and hang up once both have."""
        if self._driver.ended or self._leaving is None:
            return
        if self._leaving.code == "goodbye" and self._session.state is State.CLOSING:
            self._driver.write(self._session.goodbye("stopping"))
        if self._session.state is State.CLOSED:
            self._driver.finish(self._leaving.code, self._leaving.message)

    def _hand_on(self, what: str, raw: msgspec.Raw, take: Callable[[Any], None]) -> None:
        """Decode a value and give it to the handler. A value that can't be read ends the channel; a handler's failure,
        which is the host's bug, does not."""
        try:
            take(self._session.decode(raw))
        except msgspec.ValidationError as fault:
            self._break_off(f"sent a malformed {what}: {fault}")
        except Exception:
            _log.exception("the host failed to take %s of %s", what, self.who)

    def _said_in_place(self) -> list[Message]:
        """What the plugin says at once; settles how the next lone calls are to wait."""
        if self._in_place > IN_PLACE_RUN:
            self._in_place = 0
            return []
        messages = self._driver.read_in_place()
        if messages:
            self._pause = max(self._pause // 2, 1)
        else:
            self._in_place = -self._pause
            self._pause = min(self._pause * 2, IN_PLACE_PAUSE)
        return messages

    def _decoded(self, method: str, raw: msgspec.Raw, result_type: Any) -> Any:
        try:
            return self._session.decode(raw, result_type)
        except msgspec.ValidationError as fault:
            raise self._invalid(method, "result", fault) from None

    # Endings

    async def _connect(self, sock: socket.socket) -> None:
        def make() -> Driver:
            self._driver = Driver(self._session, self._limits, on_messages=self._deliver, on_end=self._on_end)
            self._serving = Serving(
                self._session,
                self._handler,
                self.who,
                limit=self._limits.serving,
                limit_bytes=self._limits.serving_bytes,
                write=self._driver.write,
                writable=self._driver.writable,
            )
            return self._driver

        await Driver.open(sock, make)

    def _on_end(self, reason: CloseReason) -> None:
        """Settle everything that waits. Runs once."""
        if self._leaving is not None and reason.code in ("goodbye", "connection_lost"):
            reason = self._leaving
        self._ending = reason = replace(reason, message=plain(reason.message))
        self._calls.fail(lambda call: self._ended(call.method))
        streams, self._streams = self._streams, {}
        for inbox in streams.values():
            inbox.end(self._ended(inbox.method))
        for pong in self._pings.values():
            if not pong.done():
                pong.set_exception(self._ended("a ping"))
        self._serving.end()
        if not self._opened.done():
            self._opened.set_exception(self._ended("a hello"))
            self._opened.exception()  # Seen: who opens may have been cancelled, and nobody waits then.
        self._closed.set_result(reason)

    def _ended(self, method: str) -> CardcageError:
        """The error for a call that the channel's end cut off, or that came after it."""
        reason = self._ending
        assert reason is not None
        code = "connection_lost" if reason.expected else reason.code
        return self.who.fault(code, f"{reason.message}, while {method} was wanted", method=method)

    def _expire(self, call_id: int, call: Waiting) -> None:
        self._cancel(call_id, "deadline_exceeded")
        if not call.answer.done():
            what = f"did not answer {call.method} within {call.timeout_s:g} s"
            call.answer.set_exception(self.who.fault("deadline_exceeded", what, method=call.method))

    def _give_up(self, call_id: int, reason: str) -> None:
        if self._waiting.pop(call_id, None) is not None:
            self._cancel(call_id, reason)

    def _cancel(self, call_id: int, reason: str) -> None:
        if self._session.is_waiting(call_id) and self._session.state is not State.CLOSED:
            self._driver.write(self._session.cancel(call_id, reason))

    def _break_off(self, what: str) -> None:
        farewell = self._session.goodbye("protocol_error", what) if self._session.state is State.READY else b""
        self._driver.disconnect("protocol_error", what, farewell)

    # Errors

    async def _until_callable(self, method: str, timeout_s: float) -> float:
        """Wait until a call may be written; returns what is left of `timeout_s`."""
        begun_s = self._loop.time()
        try:
            async with asyncio.timeout(timeout_s):
                await self._driver.writable()
        except TimeoutError:
            what = f"has not read what it was sent; {method} could not be begun within {timeout_s:g} s"
            raise self.who.fault("deadline_exceeded", what, method=method) from None
        self._require_ready(method)
        return max(0.0, timeout_s - (self._loop.time() - begun_s))

    def _require_ready(self, what: str) -> None:
        if self._ending is not None:
            raise self._ended(what)
        if self._session.state is not State.READY:
            raise self.who.unavailable(f"is stopping and can't be sent {what}")

    def _answered(self, method: str, message: Error) -> CardcageError:
        # The failure itself matters more than facts that are too many or can't be read.
        data = None
        if memoryview(message.data).nbytes <= ERROR_DATA_BYTES_MAX:
            with contextlib.suppress(msgspec.ValidationError):
                data = self._session.decode(message.data)
        return self.who.answered(method, message.code, message.message, data)

    def _invalid(self, method: str, what: str, fault: msgspec.ValidationError) -> CardcageError:
        found = f"gave a wrong {what} for {method}: {fault}"
        return self.who.fault("invalid_result", found, method=method)

    def _not_begun(self, method: str, fault: LocalProtocolError) -> CardcageError:
        if isinstance(fault, UnsendableValue):
            return self.who.misuse("invalid_params", f"can't be called: {method}: {fault.message}", method=method)
        return self.who.unavailable(
            f"can't be called now: {fault.message}", retry_after_s=BUSY_RETRY_AFTER_S, method=method
        )
