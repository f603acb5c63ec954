"""The auditor that writes: a thread of its own takes what waits, and writes it in batches.

Handing an event in takes a microsecond or two and never touches the disk. The log is opened by the first event, so a
command that decides nothing leaves nothing. Where the disk refuses, what waits is kept as long as there is room.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from cardcage.audit.actions import Action
from cardcage.audit.event import AuditEvent
from cardcage.audit.intake import Batch, Intake
from cardcage.audit.repeats import WINDOW_S, Repeats
from cardcage.audit.sink import LogLimits, Sink
from cardcage.foundation.errors import CardcageError

LOGGER: Final = logging.getLogger("cardcage.audit")

GATHER_S: Final = 0.005
"""How long events may gather before they are written: a start makes a handful of them at once."""
RETRY_S: Final = 1.0
_UNWRITTEN_MAX: Final = 10_000


class AuditWriter:
    """An `Auditor` in front of a `Sink`. `open_sink` is called from the writer's thread, at the first event."""

    def __init__(
        self,
        open_sink: Callable[[LogLimits], Sink],
        *,
        wall_s: Callable[[], float],
        limits: LogLimits | None = None,
    ) -> None:
        self._open_sink = open_sink
        self._wall_s = wall_s
        self._limits = limits or LogLimits()
        self._intake = Intake()
        self._wake = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._settled = threading.Condition()
        self._settled_count = 0
        self._closing = False

    def record(self, event: AuditEvent) -> None:
        """Queue the event. What finds no room is counted, and the count is written as soon as there is some."""
        if event.at_s is None:
            event = msgspec.structs.replace(event, at_s=self._wall_s())
        if self._intake.put(event) and not self._wake.is_set():
            if self._thread is None:
                self._start()
            self._wake.set()

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until everything recorded so far was handed to the sink; False where it was not in time."""
        target = self._intake.taken_in
        self._wake.set()
        with self._settled:
            return self._settled.wait_for(lambda: self._settled_count >= target, timeout_s)

    def close(self, timeout_s: float = 10.0) -> None:
        """Write what waits, sign it, and end the thread. Harmless twice; later events are dropped."""
        self._intake.close()
        self._closing = True
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="cardcage audit", daemon=True)
                self._thread.start()
                # A program that ends without closing its manager still leaves a signed log.
                this = weakref.ref(self)
                atexit.register(lambda: (writer := this()) is not None and writer.close())

    def _run(self) -> None:
        desk = _Desk(self._open_sink, self._wall_s, self._limits)
        while True:
            self._wake.wait(desk.pause_s())
            self._wake.clear()
            if not self._closing:
                time.sleep(GATHER_S)
            closing = self._closing
            batch = self._intake.take()
            desk.work(batch, closing=closing)
            with self._settled:
                self._settled_count += len(batch.events)
                self._settled.notify_all()
            if closing:
                desk.close()
                return


class _Desk:
    """What the writer's thread has before it: what is not written yet, not on the disk, or not signed."""

    def __init__(self, open_sink: Callable[[LogLimits], Sink], wall_s: Callable[[], float], limits: LogLimits) -> None:
        self._open_sink = open_sink
        self._wall_s = wall_s
        self._limits = limits
        self._sink: Sink | None = None
        self._repeats = Repeats()
        self._unwritten: list[AuditEvent] = []
        self._given_up = 0
        self._unsigned = 0
        self._unsigned_since_s = 0.0
        self._unsynced_since_s: float | None = None
        self._failing = False

    def pause_s(self) -> float | None:
        """How long there is nothing to do but for new events; None for ever."""
        waits: list[float] = []
        now_s = time.monotonic()
        if self._failing:
            waits.append(RETRY_S)
        if self._repeats.waiting:
            waits.append(WINDOW_S)
        if self._unsynced_since_s is not None:
            waits.append(self._unsynced_since_s + self._limits.sync_s - now_s)
        if self._unsigned:
            waits.append(self._unsigned_since_s + self._limits.checkpoint_s - now_s)
        return max(0.0, min(waits)) if waits else None

    def work(self, batch: Batch, *, closing: bool) -> None:
        """Write what there is, and do what is due."""
        now_s = time.monotonic()
        self._gather(batch, now_s, closing=closing)
        try:
            if self._unwritten:
                self._write(now_s)
            self._do_what_is_due(now_s, closing=closing)
            self._recovered()
        except (OSError, CardcageError) as error:
            self._failed(error, closing=closing)
        except Exception:
            # What can never be written must not be tried for ever, nor end the record of all that follows.
            LOGGER.exception("%d audit events are lost: they cannot be written", len(self._unwritten))
            self._given_up += sum(map(_stands_for, self._unwritten))
            self._unwritten = []

    def close(self) -> None:
        """Let go of the sink."""
        if self._sink is not None:
            self._sink.close()

    def _gather(self, batch: Batch, now_s: float, *, closing: bool) -> None:
        events = [event for event in batch.events if self._repeats.admits(event, now_s)]
        events += self._repeats.due(now_s, all_=closing)
        if batch.lost is not None:
            events.append(batch.lost)
        room = _UNWRITTEN_MAX - len(self._unwritten)
        self._unwritten += events[:room]
        self._given_up += sum(map(_stands_for, events[room:]))

    def _write(self, now_s: float) -> None:
        if self._sink is None:
            self._sink = self._open_sink(self._limits)
        lost = [_given_up(self._given_up, self._wall_s())] if self._given_up else []
        self._sink.append([*self._unwritten, *lost])
        if not self._unsigned:
            self._unsigned_since_s = now_s
        self._unsigned += len(self._unwritten)
        self._unwritten, self._given_up = [], 0
        if self._unsynced_since_s is None:
            self._unsynced_since_s = now_s

    def _do_what_is_due(self, now_s: float, *, closing: bool) -> None:
        if self._sink is None:
            return
        old = self._unsigned and now_s - self._unsigned_since_s >= self._limits.checkpoint_s
        if self._unsigned and (closing or old or self._unsigned >= self._limits.checkpoint_lines):
            self._sink.checkpoint()
            self._unsigned, self._unsynced_since_s = 0, None
        elif self._unsynced_since_s is not None and now_s - self._unsynced_since_s >= self._limits.sync_s:
            self._sink.sync()
            self._unsynced_since_s = None

    def _failed(self, error: Exception, *, closing: bool) -> None:
        if not self._failing:
            LOGGER.error("the audit log cannot be written, and is tried again: %s", error)
        self._failing = True
        if closing and self._unwritten:
            LOGGER.error("%d audit events are lost: the log cannot be written: %s", len(self._unwritten), error)

    def _recovered(self) -> None:
        if self._failing:
            LOGGER.warning("the audit log can be written again")
        self._failing = False


def open_auditor(folder: Path, *, wall_s: Callable[[], float], limits: LogLimits | None = None) -> AuditWriter:
    """An auditor that writes to the log in `folder`. Raises `Misuse` where that could never be written."""
    from cardcage.audit.segments import prepare_folder

    prepare_folder(folder)

    def open_sink(chosen: LogLimits) -> Sink:
        from cardcage.audit.file_sink import FileSink  # the first event needs it, and many commands make none

        return FileSink(folder, wall_s=wall_s, limits=chosen)

    return AuditWriter(open_sink, wall_s=wall_s, limits=limits)


def _stands_for(event: AuditEvent) -> int:
    """How many events are lost with this one: a line that counts others takes its count with it."""
    counts = event.action in (Action.AUDIT_LOST, Action.AUDIT_REPEATED)
    return int(event.fields["count"]) if counts else 1


def _given_up(count: int, at_s: float) -> AuditEvent:
    return AuditEvent(
        action=Action.AUDIT_LOST,
        reason=f"{count} events could not be kept while the log could not be written",
        at_s=at_s,
        fields={"count": count},
    )
