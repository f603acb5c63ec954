"""The plugin's end of the wire: reads and writes the socket, and sorts what arrives.

Calls and events wait in `incoming` for whoever serves them; answers go to those who wait; pings are answered on the
spot. So a blocking plugin that waits for an answer of the host may read the socket itself, without anything being lost
or run out of turn.
"""

from __future__ import annotations

import os
import select
import sys
from _thread import allocate_lock, get_ident
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from socket import MSG_DONTWAIT, socket
from time import monotonic
from typing import Any, Final, NoReturn, Protocol

from cardcage_sdk.context import CallCancelled, CurrentCall, HostError, current_call
from cardcage_sdk.faults import Failure, invalid_result, sendable
from cardcage_sdk.wire import (
    Call,
    Cancel,
    Credit,
    Error,
    Event,
    Goodbye,
    Message,
    Ping,
    ProtocolError,
    Ready,
    RemoteProtocolError,
    Result,
    Role,
    Session,
    UnsendableValue,
)

SUBSCRIBE: Final = "cardcage.subscribe"

READ_BYTES: Final = 64 * 1024
"""One read. Most wake-ups bring a few hundred bytes; a large frame takes several, which cost little beside copying."""

EVENTS_QUEUED_MAX: Final = 4096
"""Events that wait while the plugin is busy. What comes above is dropped, and the loss is logged."""

EXIT_PROTOCOL: Final = 76
"""EX_PROTOCOL of sysexits.h: the host sent what the protocol forbids."""


class Job(CurrentCall, eq=False):
    """A call of the host that is still to be answered."""

    on_cancel: Callable[[], Any] | None = None
    on_credit: Callable[[], Any] | None = None


class Waiter:
    """A call of the plugin's that the host has not answered yet."""

    __slots__ = ("answer", "on_answer")

    def __init__(self) -> None:
        self.answer: Result | Error | None = None
        self.on_answer: Callable[[], Any] | None = None


class LoopSide(Protocol):
    """What an event loop does for its link."""

    def wake(self) -> None:
        """Something is in `incoming`."""
        ...

    def flush_later(self) -> None:
        """Something is to be written."""
        ...

    async def acall(self, name: str, args: Sequence[Any] | Mapping[str, Any], timeout_s: float | None) -> Any:
        """Call the host and await the answer."""
        ...

    def subscribe(self, pattern: str) -> None:
        """Ask the host for events, without waiting."""
        ...


class Link:
    """One connection to the host. Used by one thread; `log`, `metric` and `publish` may be called by any."""

    def __init__(self, sock: socket, session: Session | None = None) -> None:
        self.sock = sock
        self.session = session or Session(Role.PLUGIN)
        self.ready = False
        self.incoming: deque[Job | Event] = deque()
        self.jobs: dict[int, Job] = {}
        self.loop_side: LoopSide | None = None
        """Set where an event loop serves; None means that the reader serves and flushes in turn."""
        self._buffer = bytearray(READ_BYTES)
        self._view = memoryview(self._buffer)
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._await_data = self._poll.poll
        self._out: list[bytes] = []
        self._out_lock = allocate_lock()
        self._thread = get_ident()
        self._waiting: dict[int, Waiter] = {}
        self._events_queued = 0
        self._events_lost = 0

    # Reading

    def receive(self) -> None:
        """Send what is due, then wait for data and sort it."""
        if self._out:
            self.flush()
        # Not by a read that blocks: the kernel wakes one as well when the host reads the last answer, for nothing.
        self._await_data()
        self._take(self.sock.recv_into(self._buffer))

    def receive_within(self, timeout_s: float) -> bool:
        """The same, but wait no longer than `timeout_s`; whether anything came."""
        self.flush()
        if not self._poll.poll(max(0.0, timeout_s) * 1000):
            return False
        self._take(self.sock.recv_into(self._buffer))
        return True

    def look(self) -> None:
        """Sort what is there already, without waiting and without sending. For the serving thread; others see no more
        than it has seen."""
        if get_ident() != self._thread:
            return
        try:
            count = self.sock.recv_into(self._buffer, 0, MSG_DONTWAIT)
        except BlockingIOError:
            return
        self._take(count)

    def _take(self, count: int) -> None:
        if count == 0:
            self.leave(0)
        try:
            messages = self.session.receive_data(self._view[:count])
        except RemoteProtocolError as fault:
            # The session is closed and cannot be spoken on; the farewell it made is all that may be sent.
            print(f"cardcage: {fault.message}", file=sys.stderr)
            if fault.farewell:
                self._out.append(fault.farewell)
            self.leave(EXIT_PROTOCOL)
        for message in messages:
            if isinstance(message, Call):
                self._begin(message)
            else:
                self._sort(message)

    def _begin(self, call: Call) -> None:
        deadline_s = None if call.deadline_ms is None else monotonic() + call.deadline_ms / 1000
        self.jobs[call.id] = job = Job(call, deadline_s, self.look)
        self.incoming.append(job)
        if self.loop_side is not None:
            self.loop_side.wake()

    def _sort(self, message: Message) -> None:
        match message:
            case Result() | Error():
                waiter = self._waiting.pop(message.id, None)
                if waiter is not None:
                    waiter.answer = message
                    if waiter.on_answer is not None:
                        waiter.on_answer()
            case Cancel():
                self._cancel(message)
            case Credit():
                job = self.jobs.get(message.id)
                if job is not None and job.on_credit is not None:
                    job.on_credit()
            case Event():
                self._queue_event(message)
            case Ping():
                self.send(self.session.pong(message.nonce))
            case Ready():
                self.ready = True
            case Goodbye():
                self.leave(0, "stopping", "as the host asked")
            case _:
                pass  # logs, metrics and pongs of the host's mean nothing here

    def _cancel(self, message: Cancel) -> None:
        job = self.jobs.get(message.id)
        if job is None:
            return
        job.cancelled_reason = message.reason or "the caller has withdrawn"
        if job.on_cancel is not None:
            job.on_cancel()

    def _queue_event(self, event: Event) -> None:
        if self._events_queued >= EVENTS_QUEUED_MAX:
            self._events_lost += 1
            return
        self._events_queued += 1
        self.incoming.append(event)
        if self.loop_side is not None:
            self.loop_side.wake()

    def event_taken(self) -> None:
        """Note that an event has been taken out of `incoming`."""
        self._events_queued -= 1
        if self._events_lost and not self._events_queued:
            self.log("warning", f"{self._events_lost} events were dropped, since the plugin was too busy", None)
            self._events_lost = 0

    # Writing

    def send(self, data: bytes) -> None:
        """Queue bytes; they go out before the next wait, together with their neighbours."""
        self._out.append(data)
        if self.loop_side is not None:
            self.loop_side.flush_later()

    def flush(self) -> None:
        """Write what is queued. Blocks while the host does not read; ends the process where it is gone."""
        if not self._out:
            return
        with self._out_lock:
            out, self._out = self._out, []
            try:
                self.sock.sendall(out[0] if len(out) == 1 else b"".join(out))
            except OSError:
                self._exit(0)

    def answer(self, job: Job, value: Any) -> None:
        """Answer a call; with a failure, where the value has no form on the wire."""
        try:
            data = self.session.result(job.call.id, value)
        except UnsendableValue as reason:
            self.refuse(job, invalid_result(job.label, value, reason.__cause__ or reason))
            return
        self.send(data)
        del self.jobs[job.call.id]

    def refuse(self, job: Job, failure: Failure) -> None:
        """Answer a call with a failure."""
        message = sendable(failure.message)
        try:
            data = self.session.error(job.call.id, failure.code, message, failure.data)
        except ProtocolError:
            # The facts may hold what cannot be sent, such as an argument's name of many megabytes; the rest still can.
            data = self.session.error(job.call.id, failure.code, message)
        self.send(data)
        del self.jobs[job.call.id]

    def leave(self, status: int, code: str = "stopping", message: str = "") -> NoReturn:
        """Say goodbye where that is possible and end the process, at once: no code of the plugin runs any more."""
        try:
            for job in list(self.jobs.values()):
                self.refuse(job, Failure("unavailable", f"the plugin left before it had answered {job.call.method}"))
            self._out.append(self.session.goodbye(code, message[:1000]))
        except ProtocolError:
            pass  # the session is closed: the host has hung up or broken the protocol
        self.flush()
        self._exit(status)

    def _exit(self, status: int) -> NoReturn:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass  # nobody reads it any more, or the plugin has closed or replaced it
        os._exit(status)

    # The plugin's way to the host (HostLink)

    def call(self, name: str, args: Sequence[Any] | Mapping[str, Any], timeout_s: float | None) -> Any:
        """Call the host and wait, sorting what else arrives meanwhile."""
        if get_ident() != self._thread:
            raise RuntimeError(f"{name}: the host can be called only from the thread that serves the plugin")
        left_s = time_left_s(timeout_s)
        call_id, waiter = self.begin(name, args, left_s)
        until_s = None if left_s is None else monotonic() + left_s
        while waiter.answer is None:
            if until_s is None:
                self.receive()
            elif not self.receive_within(until_s - monotonic()) and monotonic() >= until_s:
                self.withdraw(call_id, "timeout")
                raise out_of_time(name, timeout_s)
        return self.read_answer(waiter)

    async def acall(self, name: str, args: Sequence[Any] | Mapping[str, Any], timeout_s: float | None) -> Any:
        """Call the host and await the answer; in a blocking plugin there is nothing to await."""
        if self.loop_side is None:
            return self.call(name, args, timeout_s)
        return await self.loop_side.acall(name, args, timeout_s)

    def begin(self, name: str, args: Sequence[Any] | Mapping[str, Any], timeout_s: float | None) -> tuple[int, Waiter]:
        """Send a call of the plugin's; its answer will be in the waiter."""
        deadline_ms = None if timeout_s is None else max(0, int(timeout_s * 1000))
        call_id, data = self.session.call(name, args, deadline_ms=deadline_ms)
        waiter = self._waiting[call_id] = Waiter()
        self.send(data)
        return call_id, waiter

    def withdraw(self, call_id: int, reason: str) -> None:
        """Give up a call of the plugin's."""
        if self._waiting.pop(call_id, None) is not None:
            self.send(self.session.cancel(call_id, reason))

    def read_answer(self, waiter: Waiter) -> Any:
        """The value of an answer that has come. Raises `HostError`."""
        match waiter.answer:
            case Result(value=value):
                return self.session.decode(value)
            case Error(code=code, message=message, data=data):
                raise HostError(code, message, self.session.decode(data))
            case None:
                raise AssertionError("the answer was read before it came")

    def publish(self, event_type: str, data: Any) -> None:
        """Send an event."""
        self._send_now(self.session.event(event_type, data))

    def subscribe(self, pattern: str) -> None:
        """Ask the host for events."""
        if self.loop_side is None:
            self.call(SUBSCRIBE, (pattern,), None)
        else:
            self.loop_side.subscribe(pattern)

    def log(self, level: str, message: str, fields: Mapping[str, Any] | None) -> None:
        """Send a line for the log. What cannot be sent is sent without its fields."""
        try:
            data = self.session.log(level, message, fields)
        except ProtocolError:
            data = self.session.log(level, sendable(message))
        self._send_now(data)

    def metric(self, name: str, kind: str, value: float, tags: Mapping[str, str] | None) -> None:
        """Send a measurement."""
        self._send_now(self.session.metric(name, kind, value, tags))

    def _send_now(self, data: bytes) -> None:
        """Send at once rather than before the next wait: a method may run for long after this line."""
        self._out.append(data)
        self.flush()


def time_left_s(timeout_s: float | None) -> float | None:
    """The shorter of the timeout and what the call that is being answered has left: what comes later is of no use."""
    current = current_call()
    remaining_s = None if current is None else current.remaining_s()
    if remaining_s is None or (timeout_s is not None and timeout_s < remaining_s):
        return timeout_s
    return max(0.0, remaining_s)


def out_of_time(name: str, timeout_s: float | None) -> Exception:
    """The error for an answer of the host's that did not come: the timeout's, or that of the call being answered."""
    current = current_call()
    if current is not None and current.expired:
        return CallCancelled(f"its deadline passed while it waited for {name}")
    return TimeoutError(f"the host did not answer {name} within {timeout_s} s")
