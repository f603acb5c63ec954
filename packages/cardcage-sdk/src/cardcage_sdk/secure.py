"""A link that nobody else can read or change: mutual TLS 1.3 laid under a plain socket, over any stream of bytes.

The wire stays what it is: whoever speaks it holds one end of a plain socket pair. A `SecurePump` holds the other end
and the stream (a socket, or the character device of a virtual machine), and moves bytes between the two, enciphered on
the stream. It does no waiting of its own, so the same code runs under the host's event loop and, by `serve`, in the
small process that stands before a plugin. That process alone holds the plugin's private key: the plugin's own memory
never does.

Everything is bounded: what was read is written before more is read, in each direction apart, so a slow reader slows
down its writer and nobody else. Half of a connection may end (TLS says so by its close_notify) while the other goes on.
Standard library alone; imported only where a link is enciphered, because OpenSSL takes some megabytes of memory.
"""

from __future__ import annotations

import os
import select
import socket
import ssl
import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from time import monotonic
from typing import Final

READ_BYTES: Final = 64 * 1024
"""One read of either side: four records of TLS."""

HOST_NAME: Final = "host.cardcage.internal"
"""What the host's certificate is for. No resolver knows it; OpenSSL checks it as it would check any host's."""

INSTANCE_URI: Final = "cardcage://instance/"
"""What an instance's certificate is for: this, and the instance's id."""

LAST_WORDS_S: Final = 2.0
"""How long what a plugin wrote before it ended may take to be passed on."""

_PLAIN: Final = 0
_STREAM: Final = 1


class LinkError(Exception):
    """The link could not be made safe, or did not stay so. The text says why, in OpenSSL's words where they are all
    that is known."""


def host_context(ca_pem: str, own_pem: bytes) -> ssl.SSLContext:
    """What the host accepts: TLS 1.3 from whoever shows a certificate of `ca_pem`. `own_pem`: certificate and key."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, ca_pem, own_pem)
    context.num_tickets = 0  # nobody comes back: a link lives as long as its instance
    return context


def instance_context(ca_pem: str, own_pem: bytes) -> ssl.SSLContext:
    """What an instance accepts: TLS 1.3 with a server whose certificate is the host's."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, ca_pem, own_pem)
    context.check_hostname = True
    return context


def _context(protocol: int, ca_pem: str, own_pem: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=ca_pem)
    load_certificate(context, own_pem)
    return context


def load_certificate(context: ssl.SSLContext, pem: bytes) -> None:
    """Make the certificate and key in `pem` the ones that `context` shows. OpenSSL takes them from a path only; where
    the system has memory files, the key touches no disk."""
    with _as_file(pem) as path:
        context.load_cert_chain(path)


@contextmanager
def _as_file(content: bytes) -> Generator[str, None, None]:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, content)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
        return
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.name


def peer_names(tls: ssl.SSLObject) -> tuple[str, ...]:
    """The URIs that the verified peer's certificate is for."""
    names = (tls.getpeercert() or {}).get("subjectAltName", ())
    return tuple(str(pair[1]) for pair in names if isinstance(pair, tuple) and pair[0] == "URI")


class SecurePump:
    """Moves bytes between `plain`, a socket, and `stream`, a descriptor; owns neither, and sets both non-blocking.

    `wanted` says what to wait for, `step` does what can be done now, until `finished`. `check` is called once with the
    verified peer, before any byte of it is believed, and raises `LinkError` where it is the wrong one.
    """

    def __init__(
        self,
        plain: socket.socket,
        stream: int,
        context: ssl.SSLContext,
        *,
        server: bool,
        check: Callable[[ssl.SSLObject], None] | None = None,
    ) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server, server_hostname=None if server else HOST_NAME
        )
        self._plain, self._stream, self._check = plain, stream, check
        plain.setblocking(False)
        os.set_blocking(stream, False)
        self.secure = False
        """Whether both sides have proved who they are."""
        self.finished = False
        """Whether nothing is left to be moved: both ends may be closed."""
        self._to_stream: memoryview = memoryview(b"")
        self._to_plain: memoryview = memoryview(b"")
        self._plain_ended = self._stream_ended = False
        self._last_words = False
        self._buffer = memoryview(bytearray(READ_BYTES))
        self._shake_hands()

    def wanted(self) -> tuple[int, int]:
        """What to wait for, on `plain` and on `stream`: `select.POLLIN` and `select.POLLOUT`, together or none."""
        plain = select.POLLOUT if self._to_plain else 0
        if self.secure and not self._to_stream and not self._plain_ended:
            plain |= select.POLLIN
        stream = select.POLLOUT if self._to_stream else 0
        # The bound is for a peer that asks for new keys without end and reads none of the answers.
        if not self._to_plain and not self._stream_ended and len(self._to_stream) <= 2 * READ_BYTES:
            stream |= select.POLLIN
        return plain, stream

    def step(self, plain: int, stream: int) -> None:
        """Move what can be moved, given what `poll` said of both. Raises `LinkError`; nothing is to be moved then."""
        try:
            if stream and self._to_stream:
                self._write_stream()
            if plain and self._to_plain:
                self._write_plain()
            if stream & ~select.POLLOUT and not self._to_plain and not self._stream_ended:
                self._read_stream()
            if plain & ~select.POLLOUT and self.secure and not self._to_stream and not self._plain_ended:
                self._read_plain()
        except ssl.SSLCertVerificationError as error:
            raise self._broken(error.verify_message) from error
        except ssl.SSLError as error:
            raise self._broken((error.reason or str(error)).replace("_", " ").lower()) from error
        if self._stream_ended and self._plain_ended and not self._to_plain and not self._to_stream:
            self.finished = True

    @property
    def plain_is_passed_on(self) -> bool:
        """Whether the plain end has ended and all that came from it has been written."""
        return self._plain_ended and not self._to_stream

    def end_plain(self) -> None:
        """The process at the plain end is gone: take what is left there now, and wait for no more."""
        self._last_words = True

    def _broken(self, why: str) -> LinkError:
        self._flush_alert()
        self.finished = True
        return LinkError(why)

    def _flush_alert(self) -> None:
        """Tell the other side, where there is room: without it, it would only see the end."""
        try:
            if not self._to_stream and self._outgoing.pending:
                os.write(self._stream, self._outgoing.read())
        except OSError:
            pass  # it is gone, and knows

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            if self._check is not None:
                self._check(self._tls)
            self.secure = True
        self._send_outgoing()

    def _send_outgoing(self) -> None:
        if self._outgoing.pending:
            data = self._outgoing.read()
            self._to_stream = memoryview(bytes(self._to_stream) + data if self._to_stream else data)
            self._write_stream()

    def _write_stream(self) -> None:
        try:
            while self._to_stream:
                self._to_stream = self._to_stream[os.write(self._stream, self._to_stream) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more
            self._lose_stream()

    def _write_plain(self) -> None:
        try:
            while self._to_plain:
                self._to_plain = self._to_plain[self._plain.send(self._to_plain) :]
        except BlockingIOError:
            return
        except OSError:
            self._to_plain = memoryview(b"")  # nobody reads it any more; reading from it says the rest
            return
        if self._stream_ended:
            self._shut_plain()

    def _read_stream(self) -> None:
        try:
            data = os.read(self._stream, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose_stream()
            return
        self._incoming.write(data)
        if not self.secure:
            self._shake_hands()
        if self.secure:
            self._decipher()

    def _decipher(self) -> None:
        parts: list[bytes] = []
        try:
            # As long as the records reach: what came in one read is at most what one read may bring.
            while part := self._tls.read(READ_BYTES):
                parts.append(part)
            self._stream_ended = True  # close_notify: in order
        except ssl.SSLZeroReturnError:
            self._stream_ended = True  # the same, where this side has ended already
        except ssl.SSLWantReadError:
            pass
        self._send_outgoing()  # an answer to a change of keys
        self._to_plain = memoryview(parts[0] if len(parts) == 1 else b"".join(parts))
        self._write_plain()

    def _read_plain(self) -> None:
        try:
            count = self._plain.recv_into(self._buffer)
        except BlockingIOError:
            if not self._last_words:
                return
            count = 0
        except OSError:
            count = 0
        if count:
            self._tls.write(self._buffer[:count])
        else:
            self._end_stream()
        self._send_outgoing()

    def _end_stream(self) -> None:
        """Say that nothing more will come from the plain end. What comes the other way is still passed on."""
        self._plain_ended = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass  # it waits for the other side's, which `_decipher` sees

    def _lose_stream(self) -> None:
        self._to_stream = memoryview(b"")
        self._stream_ended = self._plain_ended = True
        if not self._to_plain:
            self._shut_plain()

    def _shut_plain(self) -> None:
        try:
            self._plain.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # its other end is gone already


def serve(pump: SecurePump, plain: socket.socket, stream: int, *, wake: int, on_wake: Callable[[], bool]) -> None:
    """Move bytes until both sides have ended, or the process at the plain end has.

    Where `wake` becomes readable `on_wake` is called. Once it says True, that process is gone: what it left is passed
    on, for at most `LAST_WORDS_S`, and no more is waited for. Raises `LinkError`.
    """
    ends = plain.fileno(), stream
    while not pump.finished:
        ready = _wait(pump, ends, wake, timeout_s=None)
        if wake in ready and on_wake():
            _pass_on_last_words(pump, ends)
            return
        pump.step(ready.get(ends[_PLAIN], 0), ready.get(ends[_STREAM], 0))


def _pass_on_last_words(pump: SecurePump, ends: tuple[int, int]) -> None:
    pump.end_plain()
    deadline_s = monotonic() + LAST_WORDS_S
    while not pump.finished and not pump.plain_is_passed_on:
        left_s = deadline_s - monotonic()
        if left_s <= 0:
            return
        # What is there is read without asking; that nothing is there is then the end of it.
        reads = pump.wanted()[_PLAIN] & select.POLLIN
        ready = _wait(pump, ends, -1, timeout_s=0 if reads else left_s)
        pump.step(ready.get(ends[_PLAIN], 0) | reads, ready.get(ends[_STREAM], 0))


def _wait(pump: SecurePump, ends: tuple[int, int], wake: int, *, timeout_s: float | None) -> dict[int, int]:
    watch = select.poll()
    for descriptor, mask in zip(ends, pump.wanted(), strict=True):
        if mask:
            watch.register(descriptor, mask)
    if wake >= 0:
        watch.register(wake, select.POLLIN)
    return dict(watch.poll(None if timeout_s is None else timeout_s * 1000))
