"""Connections over one stream: both sides together, with sockets and without waiting."""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage.launch.vm import streams
from cardcage.launch.vm.streams import CONNECTIONS_MAX, DATA, HEADER, OPEN, WINDOW_BYTES, Streams, StreamsError

ROUNDS_MAX = 20_000


class Pair:
    """A guest's side and a host's, tied to each other, and the ends that plugin and relay hold."""

    def __init__(self) -> None:
        self.guest_link, self.host_link = socket.socketpair()
        self.accepted: list[tuple[int, socket.socket]] = []
        self.willing = True
        self.guest = Streams(self.guest_link)
        self.host = Streams(self.host_link, connect=self._connect)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.guest.listen(3, self.listener)

    def _connect(self, place: int) -> socket.socket | None:
        if not self.willing:
            return None
        theirs, ours = socket.socketpair()
        self.accepted.append((place, ours))
        return theirs

    def dial(self) -> tuple[socket.socket, socket.socket]:
        """A plugin's end of a new connection, and the relay's."""
        plugin = socket.create_connection(self.listener.getsockname())
        plugin.setblocking(False)
        count = len(self.accepted)
        self.run(lambda: len(self.accepted) > count)
        relay = self.accepted[-1][1]
        relay.setblocking(False)
        return plugin, relay

    def run(self, until: Callable[[], bool]) -> None:
        """Turn both sides until it is so."""
        for _ in range(ROUNDS_MAX):
            if until():
                return
            for side in (self.guest, self.host):
                watch = select.poll()
                for descriptor, mask in side.wanted().items():
                    watch.register(descriptor, mask)
                side.step(dict(watch.poll(1)))
        raise AssertionError("it did not come about")

    def close(self) -> None:
        self.guest.close()
        self.host.close()
        for _, sock in self.accepted:
            sock.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def drain(pair: Pair, sock: socket.socket, into: bytearray) -> Callable[[], bool]:
    """Reads what is there each time it is asked; true at the end."""

    def read() -> bool:
        try:
            part = sock.recv(65536)
        except BlockingIOError:
            return False
        into.extend(part)
        return not part

    return read


def test_a_connection_carries_both_ways_and_ends_one_way_at_a_time(pair: Pair) -> None:
    plugin, relay = pair.dial()
    assert pair.accepted[0][0] == 3, "the place of its listener"
    plugin.sendall(b"question")
    plugin.shutdown(socket.SHUT_WR)
    got = bytearray()
    pair.run(drain(pair, relay, got))
    assert got == b"question"
    relay.sendall(b"answer")
    relay.shutdown(socket.SHUT_WR)
    back = bytearray()
    pair.run(drain(pair, plugin, back))
    assert back == b"answer"
    plugin.close()


def test_a_connection_that_nobody_reads_holds_up_no_other_and_bounds_what_waits(pair: Pair) -> None:
    stuck, _ = pair.dial()
    sent = 0
    try:
        while True:
            sent += stuck.send(b"x" * 65536)
            pair.run(lambda: True)
            for side in (pair.guest, pair.host):
                watch = select.poll()
                for descriptor, mask in side.wanted().items():
                    watch.register(descriptor, mask)
                side.step(dict(watch.poll(0)))
    except BlockingIOError:
        pass
    plugin, relay = pair.dial()
    plugin.sendall(b"still moving")
    got = bytearray()
    read = drain(pair, relay, got)
    pair.run(lambda: read() or len(got) == len(b"still moving"))
    for one in (stuck, plugin):
        one.close()


def test_a_reset_of_the_relay_is_a_reset_for_the_plugin(pair: Pair) -> None:
    pair.willing = False
    plugin = socket.create_connection(pair.listener.getsockname())
    plugin.setblocking(False)

    def is_reset() -> bool:
        try:
            assert plugin.recv(1) == b"", "nothing was said"
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        raise AssertionError("an orderly end")

    pair.run(is_reset)
    plugin.close()


def test_the_end_of_the_link_ends_every_connection(pair: Pair) -> None:
    plugin, relay = pair.dial()
    pair.host.close()
    pair.run(lambda: pair.guest.finished)
    plugin.settimeout(30)
    with pytest.raises(ConnectionResetError):
        plugin.recv(1)
    assert relay.recv(1) == b""
    plugin.close()


def feed(data: bytes) -> None:
    """What a host makes of `data` from its guest."""
    theirs, ours = socket.socketpair()
    made: list[socket.socket] = []

    def connect(place: int) -> socket.socket:
        near, far = socket.socketpair()
        made.append(far)
        return near

    host = Streams(ours, connect=connect)
    try:
        theirs.sendall(data)
        theirs.shutdown(socket.SHUT_WR)
        for _ in range(200):
            if host.finished:
                return
            host.step(dict.fromkeys(host.wanted(), select.POLLIN | select.POLLOUT))
        raise AssertionError("it never ended")
    finally:
        host.close()
        theirs.close()
        for sock in made:
            sock.close()


def frame(kind: int, number: int, content: bytes = b"") -> bytes:
    return HEADER.pack(kind, number, len(content)) + content


@pytest.mark.parametrize(
    "data",
    [
        frame(9, 1),
        frame(OPEN, 1, b"\0\0") * 2,
        frame(OPEN, 1, b"\0"),
        frame(OPEN, 1, b"\0\0") + frame(5, 1, b"\0\0\0\1"),
        HEADER.pack(DATA, 1, 65535),
    ],
    ids=["an unknown kind", "a number twice", "no place", "credit that was never used", "a frame too long"],
)
def test_a_guest_that_breaks_the_rules_is_told_apart(data: bytes) -> None:
    with pytest.raises(StreamsError):
        feed(data)


def test_more_than_the_window_is_not_kept() -> None:
    theirs, ours = socket.socketpair()
    near, far = socket.socketpair()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    host = Streams(ours, connect=lambda _: near)
    with pytest.raises(StreamsError, match="more than connection 1 may carry"):  # noqa: PT012 -- whichever piece it is
        host.step(_send(theirs, ours, frame(OPEN, 1, b"\0\0")))
        for _ in range(200 * WINDOW_BYTES // 32768):
            host.step(_send(theirs, ours, frame(DATA, 1, b"x" * 32768)))
    host.close()
    theirs.close()
    far.close()


def _send(theirs: socket.socket, ours: socket.socket, data: bytes) -> dict[int, int]:
    theirs.sendall(data)
    return {ours.fileno(): select.POLLIN}


def test_connections_are_bounded() -> None:
    theirs, ours = socket.socketpair()
    made: list[socket.socket] = []

    def connect(_: int) -> socket.socket:
        near, far = socket.socketpair()
        made.append(far)
        return near

    host = Streams(ours, connect=connect)
    for number in range(1, CONNECTIONS_MAX + 20):
        host.step(_send(theirs, ours, frame(OPEN, number, b"\0\0")))
    assert len(made) == CONNECTIONS_MAX
    host.close()
    for sock in (theirs, *made):
        sock.close()


def test_a_guest_that_takes_no_answers_is_given_up_before_they_fill_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_UNREAD_BYTES_MAX", 1 << 20)  # reached sooner, and the same
    theirs, ours = socket.socketpair()
    host = Streams(ours, connect=lambda _: None)  # each is answered with a reset
    number, batch = 0, 5000
    with pytest.raises(StreamsError, match="takes no answer"):  # noqa: PT012 -- whichever piece it is
        while number < 500_000:
            asked = b"".join(frame(OPEN, number + one, b"\0\0") for one in range(1, batch + 1))
            number += batch
            host.step(_send(theirs, ours, asked))
    host.close()
    theirs.close()


frames = st.builds(frame, st.integers(0, 6), st.integers(0, 3), st.binary(max_size=6))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.one_of(st.binary(max_size=40), st.builds(frame, st.integers(0, 6), st.integers(0, 3), st.binary(max_size=6)))
    )
)
def test_whatever_a_guest_sends_is_carried_or_refused(parts: list[bytes]) -> None:
    try:
        feed(b"".join(parts))
    except StreamsError:
        pass


def test_frames_are_seven_bytes_and_content() -> None:
    assert struct.calcsize(">BIH") == HEADER.size == 7
