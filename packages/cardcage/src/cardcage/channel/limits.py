"""The numbers that bound a channel, each with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

READ_BUFFER_BYTES: Final = 256 * 1024
"""What one read may bring: more than a socket's own buffer holds. One buffer serves all channels of an event loop."""

COALESCE_BYTES: Final = 64 * 1024
"""Under load, frames up to this much are joined into one write; beyond it the joining costs more than a system call."""

IN_PLACE_S: Final = 50e-6
"""How long a lone call may wait for its answer without a turn of the event loop, which costs as much as the plugin's
work on a short call. A core that sleeps takes some 40 us to wake."""

IN_PLACE_RUN: Final = 16
"""Calls in a row that may be answered so; the next takes a turn of the loop: others get theirs within 0.8 ms."""

IN_PLACE_PAUSE: Final = 64
"""Lone calls that wait in the loop after others came beside one, and at most after one was not answered in place: at
50 us, what a slow plugin costs its host stays below 1 us a call. The first such miss costs one call of waiting, each
further one twice as many, and every answer in place halves that: another process may have taken the core."""

ERROR_DATA_BYTES_MAX: Final = 64 * 1024
"""Facts that come with a plugin's error and are kept: a traceback and some values. Longer ones are dropped."""

EVENT_BYTES_MAX: Final = 1024 * 1024
"""Data of an event that a plugin publishes. An event is a fact and goes to many; longer ones are dropped and told of.
Decoded, its lists and maps may take up to 64 MiB: the wire bounds how many there are."""

LOG_FIELDS_BYTES_MAX: Final = 64 * 1024
"""Fields of one log message; a line is cut at 8 KiB, and longer fields are dropped."""

STREAM_WINDOW_ITEMS: Final = 64
"""Items of a stream that may be on their way. At 10 us an item and 300 us for a sleeping host to answer with credit, 32
keep a plugin busy; twice that leaves room while credit is given for half a window at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelLimits:
    """What one channel may take up, in memory and in time."""

    serving: int = 128
    """Calls of the plugin that the host runs at once; a further one is answered `unavailable`."""

    serving_bytes: int = 32 * 1024 * 1024
    """Arguments of those calls together, as they were sent; a call that would pass it is answered `unavailable`. Two of
    the longest frames fit, and a single one always does."""

    write_soft_bytes: int = 1024 * 1024
    """Unsent bytes above which calls wait: a slow reader holds up its callers, not our memory."""

    write_hard_bytes: int = 32 * 1024 * 1024
    """Unsent bytes above which the plugin is disconnected: two of the longest frames."""

    stall_s: float = 60.0
    """How long a plugin may leave unsent bytes above the soft limit. A blocking plugin reads nothing while it works
    on a call, which may take 30 s by default; its callers' own deadlines pass before this one."""

    frame_s: float = 10.0
    """How long a frame may take from its first byte to its last; the longest takes some 10 ms on a local socket."""

    stream_bytes: int = 64 * 1024 * 1024
    """Items of one stream that wait for their consumer; a window of items of 1 MiB each fits."""

    goodbye_s: float = 1.0
    """How long to wait for the plugin's own goodbye after ours; it only has to read and answer one message."""
