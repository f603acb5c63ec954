"""Connections that the host makes for a plugin and hands to it, where the plugin may make none itself.

A connection is a pair of TCP sockets on the loopback interface, connected to each other: one goes to the plugin, which
finds a socket of the kind that it asked for; the other to the relay, which dials, checks, counts and passes on, as it
does for what it accepts from a listener.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Iterable
from typing import Final

from cardcage.launch.runner import OpenListener
from cardcage.sandbox.network import Listener

_LOOPBACK: Final = "127.0.0.1"
_STRANGERS_MAX: Final = 8
"""Other processes of the machine may connect to a port while it is open, which is for some microseconds."""

_PATIENCE_MS: Final = 20
"""The kernel connects two ends on the loopback interface while it is asked to; the host's loop waits for no longer."""


class HandedListener(socket.socket):
    """Looks like a listening socket to whoever accepts from it; its connections are handed in by `hand_in`."""

    def __init__(self) -> None:
        ours, self._entrance = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(fileno=ours.detach())
        self.setblocking(False)
        self._entrance.setblocking(False)

    def hand_in(self, connection: socket.socket) -> bool:
        """Let the next `accept` return `connection`, which is closed here. False where too many wait already."""
        with connection:
            try:
                socket.send_fds(self._entrance, [b"c"], [connection.fileno()])
            except OSError:
                return False
        return True

    def accept(self) -> tuple[socket.socket, object]:
        """The next connection and its peer's address. Raises `BlockingIOError` where none waits."""
        _, descriptors, _, _ = socket.recv_fds(self, 1, 1, socket.MSG_CMSG_CLOEXEC)
        if not descriptors:
            raise ConnectionAbortedError(errno.ECONNABORTED, "the descriptor could not be taken")
        connection = socket.socket(fileno=descriptors[0])
        return connection, connection.getsockname()

    def close(self) -> None:
        """Close it, and whatever waits in it."""
        self._entrance.close()
        super().close()


class Switchboard:
    """The connections of one process: which addresses lead somewhere, and to which listener of the relay."""

    def __init__(self, places: Iterable[Listener]) -> None:
        self._by_address = {(place.address, place.port): (place, HandedListener()) for place in places}

    @property
    def listeners(self) -> list[OpenListener]:
        """Every place with its listener, for the relay."""
        return [(place, listener) for place, listener in self._by_address.values()]

    def connect(self, address: str, port: int) -> socket.socket | int:
        """The plugin's end of a connection to `address`, or the error that the plugin gets."""
        found = self._by_address.get((address, port))
        if found is None:
            return errno.ENETUNREACH
        try:
            theirs, ours = connected_pair()
        except OSError as error:
            return error.errno or errno.EAGAIN
        if not found[1].hand_in(ours):
            theirs.close()
            return errno.ECONNREFUSED
        return theirs


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """Two TCP sockets that are connected to each other and to nobody else. Raises `OSError`."""
    with socket.create_server((_LOOPBACK, 0), backlog=_STRANGERS_MAX) as server:
        server.setblocking(False)
        theirs = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            theirs.setblocking(False)
            theirs.connect_ex(server.getsockname())
            ours = _accept_from(server, theirs)
            _prepare(theirs)
            _prepare(ours)
        except BaseException:
            theirs.close()
            raise
        return theirs, ours


def _accept_from(server: socket.socket, theirs: socket.socket) -> socket.socket:
    """The other end of `theirs`. It is there already, unless strangers fill the queue."""
    ready = select.poll()
    ready.register(server, select.POLLIN)
    for _ in range(_STRANGERS_MAX):
        if not ready.poll(_PATIENCE_MS):
            break
        ours, peer = server.accept()
        if peer == theirs.getsockname():
            return ours
        ours.close()
    raise OSError(errno.EAGAIN, "strangers took the connection's place")


def _prepare(sock: socket.socket) -> None:
    # Small writes of both sides would wait for each other's acknowledgements otherwise.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
