"""The blocking loop: one call after the other, no event loop, no threads. Half the latency, a third of the memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import monotonic
from types import GeneratorType
from typing import Any, Final, NoReturn

from cardcage_sdk.context import LinkedContext, set_current_call, set_current_context
from cardcage_sdk.driver import Driver, make_driver, run_now
from cardcage_sdk.endpoints import Endpoint, is_asynchronous
from cardcage_sdk.entrypoint import EntryPoint, find_plugin
from cardcage_sdk.faults import Failure, cancelled, deadline_exceeded, failure_of, invalid_result, plugin_error, summary
from cardcage_sdk.link import Job, Link
from cardcage_sdk.reserved import LOAD, RESERVED, decoded, load_request
from cardcage_sdk.signature import InvalidArguments
from cardcage_sdk.wire import Event, UnsendableValue

QUICK_S: Final = 0.000_5
"""A function that took less may keep the answers before its own waiting; a slower one lets them go first."""

EXIT_BY_PLUGIN: Final = 1
"""The plugin ended its process by an exception that means just that, without a status of its own."""


class BlockingServer:
    """Answers the host's calls in turn."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._driver: Driver | None = None
        self._callable: dict[str, Endpoint] = {}
        """What can be called by name; nothing until the plugin is loaded."""

    def run(self) -> NoReturn:
        """Serve until the host says goodbye or hangs up."""
        link = self._link
        incoming = link.incoming
        while True:
            # First what is there: a call may have come in one read with the ready.
            while incoming:
                entry = incoming.popleft()
                if isinstance(entry, Job):
                    self._serve(entry)
                else:
                    link.event_taken()
                    self._deliver(entry)
                del entry  # not to be held while waiting: its data may be megabytes
            link.receive()

    def _serve(self, job: Job) -> None:
        set_current_call(job)
        begun_s = monotonic()
        try:
            if job.cancelled_reason is not None:
                self._link.refuse(job, cancelled(job.call.method, job.cancelled_reason))
            elif job.deadline_s is not None and begun_s >= job.deadline_s:
                self._link.refuse(job, deadline_exceeded(job.call.method, started=False))
            elif (endpoint := self._callable.get(job.call.method)) is not None:
                self._call(job, endpoint, begun_s)
            else:
                self._answer(job)
        except (SystemExit, KeyboardInterrupt) as wish:
            leave_as_plugin_wishes(self._link, job, wish)
        except BaseException as fault:  # CancelledError and its kind too: whatever is raised is the call's answer
            if self._driver is not None and not isinstance(fault, InvalidArguments):
                self._driver.count_error()
            self._link.refuse(job, failure_of(fault, job))
        finally:
            set_current_call(None)

    def _answer(self, job: Job) -> None:
        """Answer what is no method of the plugin's own."""
        method = job.call.method
        driver = self._driver
        if driver is None:
            self._answer_unloaded(job)
        elif (reserved := RESERVED.get(method)) is not None:
            self._link.flush()
            decode = self._link.session.decode
            arguments = decoded(method, job.call.args, decode, reserved.arguments)
            self._link.answer(job, run_now(_as_coroutine(reserved.run(driver, arguments, decode))))
        else:
            self._link.refuse(job, unknown_method(driver, method))

    def _answer_unloaded(self, job: Job) -> None:
        if job.call.method != LOAD:
            self._link.refuse(job, not_loaded(job.call.method))
            return
        request = load_request(job.call.args, self._link.session.decode)
        context = LinkedContext(self._link, request.context)
        set_current_context(context)
        found = find_plugin(request.entrypoint)
        if is_asynchronous(found):
            serve_asynchronously(self._link, found, request.entrypoint, context, job)
        driver = make_driver(found, request.entrypoint, context)
        if "logging" in sys.modules:
            context.open_logger()
        description = run_now(driver.describe())
        if driver.has_asynchronous_tools:
            serve_asynchronously(self._link, driver.plugin, request.entrypoint, context, job)
        self._driver = driver
        self._callable = driver.endpoints.callable
        self._link.answer(job, description)

    def _call(self, job: Job, endpoint: Endpoint, begun_s: float) -> None:
        args, named = endpoint.bind(job.call.args, self._link.session)
        if not endpoint.quick:
            self._link.flush()
        value = endpoint.function(*args, **named) if named else endpoint.function(*args)
        endpoint.quick = monotonic() - begun_s < QUICK_S
        if not is_stream_value(endpoint, value):
            self._link.answer(job, value)
        elif job.call.credit:
            self._stream(job, iter(value))
        else:
            self._link.answer(job, list(value))

    def _stream(self, job: Job, items: Iterator[Any]) -> None:
        """Send items while there is credit. Leaving by any way closes a generator, so that its `finally` blocks run."""
        try:
            while True:
                self._link.flush()
                try:
                    item = next(items)
                except StopIteration as stop:
                    self._link.answer(job, stop.value)
                    return
                failure = self._wait_for_credit(job) or self._send_item(job, item)
                if failure is not None:
                    self._link.refuse(job, failure)
                    return
        finally:
            close = getattr(items, "close", None)
            if close is not None:
                close()

    def _wait_for_credit(self, job: Job) -> Failure | None:
        """Wait until an item may be sent; why none may be any more, where that comes first."""
        link, method = self._link, job.call.method
        link.look()
        while True:
            if job.cancelled_reason is not None:
                return cancelled(method, job.cancelled_reason)
            remaining_s = job.remaining_s()
            if remaining_s is not None and remaining_s <= 0:
                return deadline_exceeded(method, started=True)
            if link.session.items_allowed(job.call.id):
                return None
            if remaining_s is None:
                link.receive()
            else:
                link.receive_within(remaining_s)

    def _send_item(self, job: Job, item: Any) -> Failure | None:
        try:
            self._link.send(self._link.session.item(job.call.id, item))
        except UnsendableValue as reason:
            return invalid_result(f"an item of {job.label}", item, reason.__cause__ or reason)
        return None

    def _deliver(self, event: Event) -> None:
        if self._driver is None:
            return
        self._link.flush()
        try:
            run_now(self._driver.handle_event(event.name, self._link.session.decode(event.data)))
        except (SystemExit, KeyboardInterrupt) as wish:
            leave_as_plugin_wishes(self._link, None, wish)
        except BaseException as fault:
            report_event_fault(self._link, event, fault)


def is_stream_value(endpoint: Endpoint, value: Any) -> bool:
    """Whether a result is to be taken item by item: a generator, or what a function that declares a stream returned.

    Other iterators are not: an open file is one, and its lines are seldom what was meant.
    """
    return type(value) is GeneratorType or (endpoint.is_stream and hasattr(value, "__iter__"))


def not_loaded(method: str) -> Failure:
    """The failure for a call that comes before the plugin is loaded."""
    return Failure("unavailable", f'expected {LOAD} first, found a call of "{method}"')


def unknown_method(driver: Driver, method: str) -> Failure:
    """The failure for a method that the plugin has not."""
    if method == LOAD:
        return Failure("refused", "the plugin is loaded already, and a process holds one")
    known = ", ".join(driver.endpoints.methods) or "none"
    return Failure(
        "method_not_found",
        f'the plugin has no method "{method}" (it has: {known})',
        {"method": method, "found": list(driver.endpoints.methods)},
    )


def report_event_fault(link: Link, event: Event, fault: BaseException) -> None:
    """Log what a handler of an event raised: an event has no answer that could carry it."""
    failure = plugin_error(fault, f'the handler of event "{event.name}"')
    link.log("error", failure.message, failure.data)


def leave_as_plugin_wishes(link: Link, job: Job | None, wish: BaseException) -> NoReturn:
    """Answer the call that ended the process, say goodbye with a code that names how, and go."""
    where = job.label if job is not None else "an event handler"
    if job is not None and job.call.id in link.jobs:
        link.refuse(job, plugin_error(wish, where))
    if isinstance(wish, SystemExit):
        status = wish.code if isinstance(wish.code, int) else EXIT_BY_PLUGIN if wish.code else 0
        link.leave(status & 0xFF, "system_exit", f"{where} called sys.exit({wish.code!r})")
    link.leave(EXIT_BY_PLUGIN, "keyboard_interrupt", f"{where} raised {summary(wish)}")


def serve_asynchronously(link: Link, found: Any, entry: EntryPoint, context: LinkedContext, job: Job) -> NoReturn:
    """Hand the connection over to an event loop; asyncio is imported here, by the plugins that need it."""
    from cardcage_sdk.aio import serve_with_event_loop

    serve_with_event_loop(link, found, entry, context, job)


async def _as_coroutine(work: Any) -> Any:
    return await work
