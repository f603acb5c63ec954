"""Many connections over one stream of bytes: how a guest's plugin reaches the host's relay. Standard library alone.

Used on both sides. In the guest it accepts from the listeners that stand in the plugin's network namespace; on the host
it makes a connection to the relay for each. A frame is a kind, the number of a connection, a length and content. What
one side may send for a connection before the other has passed it on is bounded by credit, so that one that nobody reads
holds up no other. It does no waiting of its own: `wanted` says what to wait for, `step` does what can be done.
"""

import select
import socket
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

HEADER = struct.Struct(">BIH")
OPEN, DATA, END, RESET, CREDIT = 1, 2, 3, 4, 5
PIECE_BYTES = 32 * 1024
WINDOW_BYTES = 128 * 1024
"""What may be under way for one connection in one direction."""

CREDIT_BYTES = WINDOW_BYTES // 4
"""So much must have been passed on before it is worth a frame."""

CONNECTIONS_MAX = 256
_OUT_BYTES_MAX = 512 * 1024
_UNREAD_BYTES_MAX = 32 * 1024 * 1024
"""So much never waits where both sides keep to the rules: a piece of each connection, and the words about them."""
_READS = select.POLLIN | select.POLLHUP | select.POLLERR


class StreamsError(Exception):
    """The other side does not keep to the rules; nothing more is believed of it."""


class _Connection:
    """One connection: its socket here, and what is under way."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.may_send = WINDOW_BYTES
        self.to_sock = b""
        self.passed_on = 0
        self.here_ended = False
        self.there_ended = False

    @property
    def over(self) -> bool:
        return self.here_ended and self.there_ended and not self.to_sock


class Streams:
    """The connections over `link`. `connect` makes one for a place of the plan, or says None where there is none."""

    def __init__(
        self,
        link: socket.socket,
        *,
        connect: "Callable[[int], socket.socket | None] | None" = None,
        before_close: "Callable[[int], object]" = lambda descriptor: None,
    ) -> None:
        """`before_close` is told of each descriptor while nobody else can have its number yet."""
        link.setblocking(False)
        self._link = link
        self._connect = connect
        self._before_close = before_close
        self._listeners: dict[int, tuple[int, socket.socket]] = {}
        self._connections: dict[int, _Connection] = {}
        self._last_number = 0
        self._in = b""
        self._out = bytearray()
        self.finished = False

    def listen(self, place: int, listener: socket.socket) -> None:
        """Carry what connects to `listener` as a connection to `place`."""
        listener.setblocking(False)
        self._listeners[listener.fileno()] = (place, listener)

    def wanted(self) -> "dict[int, int]":
        """Descriptor to what to wait for."""
        if self.finished:
            return {}
        room = len(self._out) < _OUT_BYTES_MAX
        events = {self._link.fileno(): select.POLLIN | (select.POLLOUT if self._out else 0)}
        if room and len(self._connections) < CONNECTIONS_MAX:
            events.update(dict.fromkeys(self._listeners, select.POLLIN))
        for one in self._connections.values():
            mask = select.POLLIN if room and not one.here_ended and one.may_send else 0
            mask |= select.POLLOUT if one.to_sock else 0
            if mask:
                events[one.sock.fileno()] = mask
        return events

    def step(self, ready: "Mapping[int, int]") -> None:
        """Move what can be moved. Raises `StreamsError`; nothing is to be moved then."""
        if self.finished:
            return
        if ready.get(self._link.fileno(), 0) & _READS:
            self._read_link()
        for descriptor, (place, listener) in self._listeners.items():
            if descriptor in ready:
                self._accept(place, listener)
        for number, one in list(self._connections.items()):
            mask = ready.get(one.sock.fileno(), 0)
            if mask and one.to_sock:
                self._pass_on(number, one)
            if mask & _READS and number in self._connections and not one.here_ended and one.may_send:
                self._read(number, one)
            if one.over:
                self._forget(number)
        self._write_link()

    def close(self) -> None:
        """End all connections and the link. Harmless twice."""
        if self.finished:
            return
        self.finished = True
        for number in list(self._connections):
            self._abort(number)
        for _, listener in self._listeners.values():
            self._close(listener)
        self._listeners.clear()
        self._close(self._link)

    def _close(self, sock: socket.socket) -> None:
        self._before_close(sock.fileno())
        sock.close()

    def _say(self, kind: int, number: int, content: bytes = b"") -> None:
        self._out += HEADER.pack(kind, number, len(content)) + content

    def _write_link(self) -> None:
        try:
            while self._out:
                del self._out[: self._link.send(self._out[:65536])]
        except BlockingIOError:
            if len(self._out) > _UNREAD_BYTES_MAX:
                raise StreamsError("the other side asks and asks, and takes no answer") from None
        except OSError:
            self.close()

    def _accept(self, place: int, listener: socket.socket) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        self._last_number += 1
        self._connections[self._last_number] = _Connection(sock)
        self._say(OPEN, self._last_number, place.to_bytes(2, "big"))

    def _read(self, number: int, one: _Connection) -> None:
        try:
            data = one.sock.recv(min(PIECE_BYTES, one.may_send))
        except BlockingIOError:
            return
        except OSError:
            self._say(RESET, number)
            self._forget(number)
            return
        if data:
            one.may_send -= len(data)
            self._say(DATA, number, data)
        else:
            one.here_ended = True
            self._say(END, number)

    def _pass_on(self, number: int, one: _Connection) -> None:
        try:
            while one.to_sock:
                sent = one.sock.send(one.to_sock)
                one.to_sock = one.to_sock[sent:]
                one.passed_on += sent
        except BlockingIOError:
            pass
        except OSError:
            self._say(RESET, number)
            self._forget(number)
            return
        if one.passed_on >= CREDIT_BYTES:
            self._say(CREDIT, number, one.passed_on.to_bytes(4, "big"))
            one.passed_on = 0
        if one.there_ended and not one.to_sock:
            _shut(one.sock)

    def _forget(self, number: int) -> None:
        one = self._connections.pop(number, None)
        if one is not None:
            self._close(one.sock)

    def _abort(self, number: int) -> None:
        """Close it so that whoever holds the other end sees a reset, and not an orderly end."""
        one = self._connections.get(number)
        if one is not None:
            try:
                one.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass  # it is gone
            self._forget(number)

    def _read_link(self) -> None:
        try:
            data = self._link.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._in += data
        while len(self._in) >= HEADER.size:
            kind, number, length = HEADER.unpack_from(self._in)
            end = HEADER.size + length
            if length > PIECE_BYTES:
                raise StreamsError(f"a frame of {length} bytes, but they are limited to {PIECE_BYTES}")
            if len(self._in) < end:
                return
            content, self._in = self._in[HEADER.size : end], self._in[end:]
            self._take(kind, number, content)

    def _take(self, kind: int, number: int, content: bytes) -> None:
        if kind == OPEN:
            self._open(number, content)
            return
        one = self._connections.get(number)
        if kind not in (DATA, END, RESET, CREDIT):
            raise StreamsError(f"a frame of kind {kind}, which is none")
        if one is None:
            return  # it ended here while this was under way
        if kind == DATA:
            if one.there_ended or len(one.to_sock) + len(content) > WINDOW_BYTES:
                raise StreamsError(f"more than connection {number} may carry")
            one.to_sock += content
            self._pass_on(number, one)
        elif kind == END:
            one.there_ended = True
            if not one.to_sock:
                _shut(one.sock)
            if one.over:
                self._forget(number)
        elif kind == RESET:
            self._abort(number)
        else:
            one.may_send += int.from_bytes(content, "big")
            if one.may_send > WINDOW_BYTES:
                raise StreamsError(f"more credit for connection {number} than was used")

    def _open(self, number: int, content: bytes) -> None:
        if self._connect is None or number in self._connections or number <= self._last_number or len(content) != 2:
            raise StreamsError(f"connection {number} cannot be opened")
        self._last_number = number
        sock = self._connect(int.from_bytes(content, "big")) if len(self._connections) < CONNECTIONS_MAX else None
        if sock is None:
            self._say(RESET, number)
        else:
            self._connections[number] = _Connection(sock)


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # its other end is gone already
