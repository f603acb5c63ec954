"""Hearing what a plugin tries: each call that names a file, a program or an address, answered and written down.

One thread for each process. Files are left to the walls, which stand as ever; a program that was not granted is not
started, and an address that was not granted is not reached. Names are answered with addresses that mean nothing
outside of the recording, so that a connection to one tells its name.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Final

from cardcage.sandbox import notify
from cardcage.sandbox.recording import CHANGES, CONNECTIONS, LOOKS, OPENS, PROGRAMS

RESOLVER: Final = "127.0.0.53"
"""Where the plugin's resolver asks for names while a recording is made, by TCP."""
RESOLV_CONF: Final = f"nameserver {RESOLVER}\noptions use-vc timeout:2 attempts:1\n"
NSSWITCH_CONF: Final = "passwd: files\ngroup: files\nhosts: files dns\n"

THINGS_MAX: Final = 5000
"""Different things noted of one process: a plugin that tries more is not one to learn from."""
_PATH_BYTES_MAX: Final = 4096
_NAMES_MAX: Final = 4000
_QUESTION_BYTES_MAX: Final = 512
_RESOLVERS_MAX: Final = 32
"""Connections to the resolver at once, each with a thread of its own."""
_AT_FDCWD: Final = -100
_ADDRESS_BYTES_MAX: Final = 128
_RESOLVER_PORT: Final = 53
_LOOPBACK: Final = "127.0.0.1"


class Deed(StrEnum):
    """What was tried with a thing."""

    LOOK = "look"
    """Whether a file is there."""
    READ = "read"
    LIST = "list"
    """Reading a folder's names."""
    WRITE = "write"
    MAKE = "make"
    """Making, removing or renaming something, which changes its folder."""
    RUN = "run"
    CONNECT = "connect"
    """A thing is then `host:port`, with a name where the plugin asked for one."""
    ASK = "ask"
    """The address of a name."""


@dataclass(frozen=True, slots=True, order=True)
class Tried:
    """One thing that the plugin tried."""

    deed: Deed
    thing: str


class Recorder:
    """Serves the listener of one process in a thread, until the process has ended or `close` is called."""

    def __init__(self, descriptor: int, *, working_dir: str, reachable: Collection[tuple[str, int]]) -> None:
        """`reachable` are the places inside that lead to granted endpoints, `working_dir` where paths begin."""
        self._listener = notify.Listener(descriptor)
        self._working_dir = working_dir
        self._reachable = frozenset(reachable)
        self._tried: dict[Tried, None] = {}
        self._programs: frozenset[str] = frozenset()
        self._names: dict[str, str] = {}
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC)
        self._resolvers = threading.BoundedSemaphore(_RESOLVERS_MAX)
        self._thread = threading.Thread(target=self._serve, name="cardcage-recorder", daemon=True)

    def start(self, programs: Collection[str]) -> None:
        """Begin to answer; `programs` are those that may be started, or `*` for any."""
        self._programs = frozenset(programs)
        self._thread.start()

    def close(self) -> None:
        """Stop answering; what still waits fails. Harmless twice."""
        if self._stop_write < 0:
            return
        os.write(self._stop_write, b"x")
        self._thread.join()
        for descriptor in (self._stop_read, self._stop_write):
            os.close(descriptor)
        self._stop_write = -1

    @property
    def tried(self) -> tuple[Tried, ...]:
        """What was tried so far, in order, each once."""
        return tuple(self._tried)

    def _note(self, deed: Deed, thing: str) -> None:
        if len(self._tried) < THINGS_MAX:
            self._tried.setdefault(Tried(deed, thing))

    def _serve(self) -> None:
        watch = select.poll()
        watch.register(self._listener.fileno(), select.POLLIN)
        watch.register(self._stop_read, select.POLLIN)
        try:
            while True:
                for descriptor, event in watch.poll():
                    if descriptor == self._stop_read or not event & select.POLLIN:
                        return  # told to stop, or nobody is left whom the filter could ask for
                    self._listener.serve_one(self)
        finally:
            self._listener.close()

    # what is decided ------------------------------------------------------------------------------------------------

    def decide(self, asked: notify.Notification, reader: notify.Reader) -> notify.Answer | None:
        """Note the call, and say what becomes of it; None where that was said already."""
        if asked.name in CONNECTIONS:
            return self._decide_connection(asked, reader)
        if asked.name in PROGRAMS:
            return self._decide_program(asked, reader)
        try:
            if asked.name in OPENS:
                self._note_open(asked, reader)
            elif asked.name in LOOKS:
                self._note(Deed.LOOK, self._path_of(asked, reader, at=asked.name in _LOOKS_AT))
            elif asked.name in CHANGES:
                self._note_change(asked, reader)
        except (OSError, ValueError, struct.error):
            pass  # a path that cannot be read is none that could be granted; the kernel judges the call itself
        return notify.PROCEED

    def _note_open(self, asked: notify.Notification, reader: notify.Reader) -> None:
        at = asked.name in ("openat", "openat2")
        path = self._path_of(asked, reader, at=at)
        flags = os.O_WRONLY | os.O_CREAT
        if asked.name == "openat2":
            flags = struct.unpack("=Q", reader.read(asked, asked.arguments[2], 8))[0]
        elif asked.name != "creat":
            flags = asked.arguments[2 if at else 1]
        access = flags & os.O_ACCMODE
        if flags & os.O_CREAT and access == os.O_RDONLY:
            access = os.O_WRONLY
        if access in (os.O_RDONLY, os.O_RDWR):
            self._note(Deed.LIST if flags & os.O_DIRECTORY else Deed.READ, path)
        if access in (os.O_WRONLY, os.O_RDWR) or flags & os.O_TRUNC:
            self._note(Deed.WRITE, path)

    def _note_change(self, asked: notify.Notification, reader: notify.Reader) -> None:
        at = asked.name.endswith(("at", "at2"))
        deed = Deed.WRITE if asked.name == "truncate" else Deed.MAKE
        self._note(deed, self._path_of(asked, reader, at=at))
        if asked.name.startswith("rename"):
            place, folder = (3, asked.arguments[2]) if at else (1, None)
            self._note(deed, self._absolute(asked, self._text(asked, reader, asked.arguments[place]), folder))

    def _decide_program(self, asked: notify.Notification, reader: notify.Reader) -> notify.Answer:
        # The real filter lets these calls through, so that they are heard of: none goes on but to what was granted.
        try:
            path = self._path_of(asked, reader, at=asked.name == "execveat")
        except (OSError, ValueError):
            return notify.Fail(errno.EACCES)
        if path in self._programs or "*" in self._programs:
            return notify.PROCEED
        self._note(Deed.RUN, path)
        return notify.Fail(errno.ENOENT)

    # paths ----------------------------------------------------------------------------------------------------------

    def _path_of(self, asked: notify.Notification, reader: notify.Reader, *, at: bool) -> str:
        text = self._text(asked, reader, asked.arguments[1 if at else 0])
        return self._absolute(asked, text, asked.arguments[0] if at else None)

    def _text(self, asked: notify.Notification, reader: notify.Reader, address: int) -> str:
        # A path may end at the last byte before a hole: read to the end of its page first, and on only if need be.
        first = min(_PATH_BYTES_MAX, 4096 - address % 4096)
        raw = reader.read(asked, address, first)
        if b"\0" not in raw and first < _PATH_BYTES_MAX:
            raw += reader.read(asked, address + first, _PATH_BYTES_MAX - first)
        end = raw.find(b"\0")
        if end < 0:
            raise ValueError("the path does not end")
        return raw[:end].decode()

    def _absolute(self, asked: notify.Notification, text: str, folder: int | None) -> str:
        """The path from the root, as the plugin sees it, without `.` and `..`. Raises `ValueError` for an empty one."""
        if not text:
            raise ValueError("no path")
        if text.startswith("/"):
            return _normal(text)
        signed = None if folder is None else struct.unpack("=i", struct.pack("=I", folder & 0xFFFFFFFF))[0]
        if signed is None or signed == _AT_FDCWD:
            return _normal(f"{self._working_dir}/{text}")
        return _normal(f"{os.readlink(f'/proc/{asked.pid}/fd/{signed}')}/{text}")

    # connections ----------------------------------------------------------------------------------------------------

    def _decide_connection(self, asked: notify.Notification, reader: notify.Reader) -> notify.Answer | None:
        size = asked.arguments[2] & 0xFFFFFFFF
        raw = reader.read(asked, asked.arguments[1], min(size, _ADDRESS_BYTES_MAX))
        where = _inet_address(raw)
        if where is None or where in self._reachable:
            return notify.PROCEED  # no address of the network at all, or one that leads to a granted endpoint
        if where == (RESOLVER, _RESOLVER_PORT):
            self._give_resolver(asked)
            return None
        host, port = where
        name = next((name for name, address in self._names.items() if address == host), None)
        shown = name or (f"[{host}]" if ":" in host else host)
        self._note(Deed.CONNECT, f"{shown}:{port}")
        return notify.Fail(errno.ECONNREFUSED)

    def _give_resolver(self, asked: notify.Notification) -> None:
        if not self._resolvers.acquire(blocking=False):
            self._listener.answer(asked, notify.Fail(errno.EAGAIN))
            return
        theirs, ours = self._resolver_pair()
        thread = threading.Thread(target=self._resolve, args=(ours,), name="cardcage-names", daemon=True)
        thread.start()
        with theirs:
            place = asked.arguments[0] & 0xFFFFFFFF
            self._listener.answer(asked, notify.Give(theirs.fileno(), place, close_on_exec=True))

    def _resolver_pair(self) -> tuple[socket.socket, socket.socket]:
        try:
            return _connected_pair()
        except OSError:
            self._resolvers.release()
            raise

    def _resolve(self, connection: socket.socket) -> None:
        """Answer questions for names over one connection: an address of our own for each."""
        with connection:
            connection.settimeout(5.0)
            try:
                while head := _receive(connection, 2):
                    size = int.from_bytes(head, "big")
                    question = _receive(connection, size) if size <= _QUESTION_BYTES_MAX else b""
                    if len(question) < 17:
                        return
                    answer = self._answer_name(question)
                    connection.sendall(len(answer).to_bytes(2, "big") + answer)
            except OSError:
                return
            finally:
                self._resolvers.release()

    def _answer_name(self, question: bytes) -> bytes:
        name, end = _name_in(question)
        kind = int.from_bytes(question[end : end + 2], "big")
        asked = question[12 : end + 4]
        address = self._address_of(name) if kind == 1 else None
        head = question[:2] + b"\x81\x80" + b"\0\x01" + (b"\0\x01" if address else b"\0\0") + b"\0\0\0\0"
        if address is None:
            return head + asked
        return head + asked + b"\xc0\x0c\0\x01\0\x01\0\0\0\x3c\0\x04" + socket.inet_aton(address)

    def _address_of(self, name: str) -> str | None:
        self._note(Deed.ASK, name)
        if name not in self._names and len(self._names) < _NAMES_MAX:
            number = len(self._names) + 1
            self._names[name] = f"127.101.{number >> 8}.{number & 0xFF}"
        return self._names.get(name)


_LOOKS_AT: Final = frozenset({"newfstatat", "statx", "faccessat", "faccessat2", "readlinkat"})


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in PurePosixPath(path).parts[1:]:
        if part == "..":
            parts = parts[:-1]
        elif part != ".":
            parts.append(part)
    return "/" + "/".join(parts)


def _inet_address(raw: bytes) -> tuple[str, int] | None:
    if len(raw) < 2:
        return None
    (family,) = struct.unpack_from("=H", raw)
    if family == socket.AF_INET and len(raw) >= 8:
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big")
    if family == socket.AF_INET6 and len(raw) >= 24:
        address = raw[8:24]
        mapped = address[:12] == bytes(10) + b"\xff\xff"
        text = socket.inet_ntop(socket.AF_INET if mapped else socket.AF_INET6, address[12:] if mapped else address)
        return text, int.from_bytes(raw[2:4], "big")
    return None


def _connected_pair() -> tuple[socket.socket, socket.socket]:
    """Two TCP sockets that are connected to each other: what a resolver that asked for one expects to find."""
    with socket.create_server((_LOOPBACK, 0)) as server:
        theirs = socket.create_connection(server.getsockname(), timeout=5.0)
        server.settimeout(5.0)
        while True:
            ours, peer = server.accept()
            if peer == theirs.getsockname():  # and not some other process of this machine
                theirs.settimeout(None)
                return theirs, ours
            ours.close()


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            return b""
        data += more
    return data


def _name_in(question: bytes) -> tuple[str, int]:
    """The name that is asked for, and where it ends."""
    labels: list[str] = []
    at = 12
    while at < len(question) and question[at] and question[at] < 64:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace").lower())
        at += 1 + question[at]
    return ".".join(labels), at + 1
