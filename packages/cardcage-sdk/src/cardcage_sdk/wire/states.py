"""The life of one connection, as data.

`TRANSITIONS` says which kind may be sent or received in which state, and the state that follows. A pair that it lacks
is an error that names both. Two kinds belong to one side: only the plugin says hello, only the host says ready.

A goodbye closes a connection in two steps, so that answers on the way are not lost: the first, from either side, leads
to CLOSING, where open calls may still be answered but none begun; the second, from either side, to CLOSED. A call may
still be *received* in CLOSING, because the peer may have sent it before it read our goodbye.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from cardcage_sdk.wire.messages import Kind


class Role(StrEnum):
    """Which end of the connection a session stands at."""

    HOST = "host"
    PLUGIN = "plugin"

    @property
    def peer(self) -> Role:
        """The other end."""
        return Role.PLUGIN if self is Role.HOST else Role.HOST


class State(StrEnum):
    """Where a connection stands."""

    OPENING = "opening"
    """Nothing was said yet."""
    GREETED = "greeted"
    """The plugin has said hello; the host is to answer."""
    READY = "ready"
    """Both sides may call."""
    CLOSING = "closing"
    """One side has said goodbye: open calls may be answered, none begun."""
    CLOSED = "closed"
    """Both have said goodbye, or one broke the protocol or hung up. What still arrives is ignored."""


class Direction(StrEnum):
    """Which way a message goes, seen from the session."""

    SEND = "send"
    RECEIVE = "receive"


_ONE_SENDER: Final = {Kind.HELLO: Role.PLUGIN, Kind.READY: Role.HOST}

_ANY_TIME = (
    Kind.RESULT,
    Kind.ERROR,
    Kind.CANCEL,
    Kind.ITEM,
    Kind.CREDIT,
    Kind.EVENT,
    Kind.LOG,
    Kind.METRIC,
    Kind.PING,
    Kind.PONG,
)


def _transitions() -> Iterator[tuple[tuple[State, Direction, Kind], State]]:
    for way in Direction:
        yield (State.OPENING, way, Kind.HELLO), State.GREETED
        yield (State.GREETED, way, Kind.READY), State.READY
        yield (State.GREETED, way, Kind.GOODBYE), State.CLOSED
        for state in (State.READY, State.CLOSING):
            for kind in _ANY_TIME:
                yield (state, way, kind), state
        yield (State.READY, way, Kind.CALL), State.READY
        yield (State.READY, way, Kind.GOODBYE), State.CLOSING
        yield (State.CLOSING, way, Kind.GOODBYE), State.CLOSED
    yield (State.CLOSING, Direction.RECEIVE, Kind.CALL), State.CLOSING


TRANSITIONS: Final[Mapping[tuple[State, Direction, Kind], State]] = MappingProxyType(dict(_transitions()))


def allowed(role: Role, state: State, way: Direction) -> dict[Kind, State]:
    """The kinds that a session of `role` may send or receive in `state`, each with the state that follows."""
    sender = role if way is Direction.SEND else role.peer
    return {
        kind: after
        for (before, direction, kind), after in TRANSITIONS.items()
        if before is state and direction is way and _ONE_SENDER.get(kind, sender) is sender
    }
