"""Streams: the items of one call, taken at the consumer's pace."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from cardcage.channel.limits import STREAM_WINDOW_ITEMS

T = TypeVar("T")


class Inbox:
    """What has arrived for one stream and was not taken yet. The channel fills it; the `Stream` empties it."""

    __slots__ = ("bytes_held", "call_id", "error", "items", "method", "over", "waiter")

    def __init__(self, method: str) -> None:
        self.method = method
        self.call_id = 0
        self.items: deque[msgspec.Raw] = deque()
        self.bytes_held = 0
        self.over = False
        self.error: Exception | None = None
        self.waiter: asyncio.Future[None] | None = None

    def put(self, item: msgspec.Raw) -> None:
        """Hold an item until it is taken."""
        self.items.append(item)
        self.bytes_held += memoryview(item).nbytes
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        """No more items come; with an error, the consumer meets it after the items that came before."""
        if not self.over:
            self.over = True
            self.error = error
            self._wake()

    def _wake(self) -> None:
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)


class Source(Protocol):
    """What a stream needs of its channel."""

    async def begin_stream(self, inbox: Inbox, args: Any, window: int) -> None:
        """Send the call."""
        ...

    def give_credit(self, inbox: Inbox, items: int) -> None:
        """Let the plugin send more."""
        ...

    def end_stream(self, inbox: Inbox, reason: str) -> None:
        """Cancel the call where it still runs. Harmless after the end."""
        ...

    def decode_item(self, inbox: Inbox, raw: msgspec.Raw, item_type: Any) -> Any:
        """Read an item, or raise the plugin's fault."""
        ...

    def late_item(self, inbox: Inbox, timeout_s: float) -> Exception:
        """The error for an item that did not come in time."""
        ...


class Stream(AsyncIterator[T], Generic[T]):
    """An asynchronous iterator over the items of one call.

    The call is made when the first item is asked for. `timeout_s` bounds the wait for each item, not the whole: a bill
    may take as long as its reader needs. Leaving `async with`, `aclose()`, an error or dropping the iterator cancels
    the call in the plugin.
    """

    def __init__(
        self, source: Source, method: str, args: Any, item_type: Any, timeout_s: float, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._source = source
        self._inbox = Inbox(method)
        self._args = args
        self._item_type = item_type
        self._timeout_s = timeout_s
        self._loop = loop
        self._taken = 0
        self._begun = False
        self._closed = False

    def __aiter__(self) -> Stream[T]:
        return self

    async def __anext__(self) -> T:
        inbox = self._inbox
        if self._closed:
            raise StopAsyncIteration
        if not inbox.items:
            await self._wait(inbox)
        if not inbox.items:
            self._closed = True
            if inbox.error is not None:
                raise inbox.error
            raise StopAsyncIteration
        return self._take(inbox)

    async def aclose(self) -> None:
        """End the stream; the plugin is told where it has more to send. Items not taken are dropped."""
        self._closed = True
        self._inbox.items.clear()
        self._source.end_stream(self._inbox, "the stream was closed")

    async def __aenter__(self) -> Stream[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # The collector may run in any thread, and after the loop has closed.
        if self._begun and not self._inbox.over:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._source.end_stream, self._inbox, "the stream was dropped")

    async def _wait(self, inbox: Inbox) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                if not self._begun:
                    self._begun = True
                    await self._source.begin_stream(inbox, self._args, STREAM_WINDOW_ITEMS)
                while not inbox.items and not inbox.over:
                    inbox.waiter = self._loop.create_future()
                    await inbox.waiter
        except TimeoutError:
            self._closed = True
            self._source.end_stream(inbox, "deadline_exceeded")
            raise self._source.late_item(inbox, self._timeout_s) from None
        except BaseException:
            self._closed = True
            self._source.end_stream(inbox, "cancelled")
            raise
        finally:
            inbox.waiter = None

    def _take(self, inbox: Inbox) -> T:
        raw = inbox.items.popleft()
        inbox.bytes_held -= memoryview(raw).nbytes
        self._taken += 1
        # Half a window at a time: a credit message for each item would double the messages.
        if self._taken >= STREAM_WINDOW_ITEMS // 2 and not inbox.over:
            self._source.give_credit(inbox, self._taken)
            self._taken = 0
        try:
            return self._source.decode_item(inbox, raw, self._item_type)
        except Exception:
            self._closed = True
            self._source.end_stream(inbox, "an item was not of the declared type")
            raise
