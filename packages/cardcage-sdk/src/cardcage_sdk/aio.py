"""The asyncio loop, for plugins with `async def` methods: calls run side by side, and a cancelled one is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from cardcage_sdk.blocking import (
    is_stream_value,
    leave_as_plugin_wishes,
    not_loaded,
    report_event_fault,
    unknown_method,
)
from cardcage_sdk.context import LinkedContext, set_current_call
from cardcage_sdk.driver import Driver, finished, make_driver
from cardcage_sdk.endpoints import Endpoint
from cardcage_sdk.entrypoint import EntryPoint
from cardcage_sdk.faults import Failure, cancelled, deadline_exceeded, failure_of, invalid_result
from cardcage_sdk.link import SUBSCRIBE, Job, Link, out_of_time, time_left_s
from cardcage_sdk.reserved import RESERVED, decoded
from cardcage_sdk.signature import InvalidArguments, is_generator
from cardcage_sdk.wire import Event, UnsendableValue


class AsyncServer:
    """Answers the host's calls side by side, one task each."""

    def __init__(self, link: Link, loop: asyncio.AbstractEventLoop) -> None:
        self._link = link
        self._loop = loop
        self._driver: Driver | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._flush_due = False
        self._drain_due = False
        link.loop_side = self

    async def run(self, found: Any, entry: EntryPoint, context: LinkedContext, load: Job) -> NoReturn:
        """Load the plugin within the loop, and serve until the host says goodbye or hangs up."""
        self._loop.add_reader(self._link.sock.fileno(), self._on_readable)
        self._start(self._serve(load, self._load(load, found, entry, context)))
        self.wake()
        await asyncio.Event().wait()
        raise AssertionError("the loop is left by the end of the process alone")

    # The link's wishes (LoopSide)

    def wake(self) -> None:
        """Take what is in `incoming`, soon: it may have come while a plain method was waiting for the host."""
        if not self._drain_due:
            self._drain_due = True
            self._loop.call_soon(self._drain)

    def flush_later(self) -> None:
        """Write once for all that is sent in this round of the loop."""
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    async def acall(self, name: str, args: Sequence[Any] | Mapping[str, Any], timeout_s: float | None) -> Any:
        """Call the host and await the answer. Cancelling it tells the host."""
        left_s = time_left_s(timeout_s)
        call_id, waiter = self._link.begin(name, args, left_s)
        answered: asyncio.Future[None] = self._loop.create_future()
        waiter.on_answer = lambda: None if answered.done() else answered.set_result(None)
        try:
            async with asyncio.timeout(left_s):
                await answered
        except TimeoutError:
            self._link.withdraw(call_id, "timeout")
            raise out_of_time(name, timeout_s) from None
        except asyncio.CancelledError:
            self._link.withdraw(call_id, "cancelled")
            raise
        return self._link.read_answer(waiter)

    def subscribe(self, pattern: str) -> None:
        """Ask the host for events without keeping the loop waiting; a refusal is logged."""
        _, waiter = self._link.begin(SUBSCRIBE, (pattern,), None)

        def note_refusal() -> None:
            try:
                self._link.read_answer(waiter)
            except Exception as fault:
                self._link.log("error", f"the subscription to {pattern!r} was refused: {fault}", None)

        waiter.on_answer = note_refusal

    # Reading and writing

    def _on_readable(self) -> None:
        self._drain_due = True  # what arrives is taken right here, one round earlier than by wake()
        self._link.look()
        self._drain()

    def _drain(self) -> None:
        self._drain_due = False
        incoming = self._link.incoming
        while incoming:
            entry = incoming.popleft()
            if isinstance(entry, Event):
                self._link.event_taken()
                self._start(self._deliver(entry))
            else:
                self._start(self._serve(entry, self._answer(entry)))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # The loop holds tasks weakly; without this set one could vanish while it waits.
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _flush(self) -> None:
        self._flush_due = False
        self._link.flush()

    # Answering

    async def _load(self, job: Job, found: Any, entry: EntryPoint, context: LinkedContext) -> None:
        driver = make_driver(found, entry, context)
        context.open_logger()
        description = await driver.describe()
        self._driver = driver
        self._link.answer(job, description)

    async def _serve(self, job: Job, work: Coroutine[Any, Any, None]) -> None:
        """Run the work of one call within its deadline, and answer for whatever it raises."""
        link, method = self._link, job.call.method
        set_current_call(job)
        failure = None
        if job.cancelled_reason is not None:
            failure = cancelled(method, job.cancelled_reason)
        elif job.expired:
            failure = deadline_exceeded(method, started=False)
        if failure is not None:
            work.close()
            link.refuse(job, failure)
            return
        # Only from here on: a task that is cancelled before its first step would never come to answer.
        task = asyncio.current_task()
        job.on_cancel = task.cancel if task is not None else None
        deadline = asyncio.timeout(job.remaining_s())
        try:
            async with deadline:
                await work
        except (SystemExit, KeyboardInterrupt) as wish:
            leave_as_plugin_wishes(link, job, wish)
        except BaseException as fault:
            if job.call.id in link.jobs:
                link.refuse(job, self._failure(job, fault, expired=deadline.expired()))
        finally:
            job.on_cancel = None  # the task's own context holds the job: together they would wait for a collection
        if not link.jobs:
            link.flush()  # nothing else is being answered that this answer could go out with

    def _failure(self, job: Job, fault: BaseException, *, expired: bool) -> Failure:
        method = job.call.method
        if job.cancelled_reason is not None:
            return cancelled(method, job.cancelled_reason)
        if expired:
            return deadline_exceeded(method, started=True)
        if self._driver is not None and not isinstance(fault, InvalidArguments):
            self._driver.count_error()
        return failure_of(fault, job)

    async def _answer(self, job: Job) -> None:
        method = job.call.method
        driver = self._driver
        if driver is None:
            self._link.refuse(job, not_loaded(method))
        elif (endpoint := driver.endpoints.callable.get(method)) is not None:
            args, named = endpoint.bind(job.call.args, self._link.session)
            value = endpoint.function(*args, **named)
            await self._deliver_value(job, endpoint, value)
        elif (reserved := RESERVED.get(method)) is not None:
            decode = self._link.session.decode
            arguments = decoded(method, job.call.args, decode, reserved.arguments)
            self._link.answer(job, await reserved.run(driver, arguments, decode))
        else:
            self._link.refuse(job, unknown_method(driver, method))

    async def _deliver_value(self, job: Job, endpoint: Endpoint, value: Any) -> None:
        if not is_generator(value):  # of all awaitables these alone are streams
            value = await finished(value)
        if hasattr(value, "__anext__"):
            if job.call.credit:
                await self._stream(job, value)
            else:
                self._link.answer(job, [item async for item in value])
        elif not is_stream_value(endpoint, value):
            self._link.answer(job, value)
        elif job.call.credit:
            await self._stream(job, _stepped(iter(value)))
        else:
            self._link.answer(job, list(value))

    async def _stream(self, job: Job, items: AsyncIterator[Any]) -> None:
        link, call_id = self._link, job.call.id
        allowed = asyncio.Event()
        job.on_credit = allowed.set
        try:
            async for item in items:
                while not link.session.items_allowed(call_id):
                    allowed.clear()
                    await allowed.wait()
                try:
                    link.send(link.session.item(call_id, item))
                except UnsendableValue as reason:
                    what = f"an item of {job.label}"
                    link.refuse(job, invalid_result(what, item, reason.__cause__ or reason))
                    return
                # A generator that never waits would keep cancels, credit and other calls from being seen.
                await asyncio.sleep(0)
            self._link.answer(job, None)
        finally:
            close = getattr(items, "aclose", None)
            if close is not None:
                await close()

    async def _deliver(self, event: Event) -> None:
        if self._driver is None:
            return
        try:
            await self._driver.handle_event(event.name, self._link.session.decode(event.data))
        except (SystemExit, KeyboardInterrupt) as wish:
            leave_as_plugin_wishes(self._link, None, wish)
        except Exception as fault:
            report_event_fault(self._link, event, fault)


async def _stepped(items: Iterator[Any]) -> AsyncGenerator[Any, None]:
    """A plain iterator as an asynchronous one; closing it closes the iterator."""
    try:
        for item in items:
            yield item
    finally:
        close = getattr(items, "close", None)
        if close is not None:
            close()


def serve_with_event_loop(link: Link, found: Any, entry: EntryPoint, context: LinkedContext, load: Job) -> NoReturn:
    """Serve the plugin with an event loop from now on, beginning with the call that loads it."""

    async def main() -> None:
        await AsyncServer(link, asyncio.get_running_loop()).run(found, entry, context, load)

    asyncio.run(main())
    raise AssertionError("the loop is left by the end of the process alone")
