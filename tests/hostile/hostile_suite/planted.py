"""Things of the host that a plugin must not reach: files, listeners, a process with a secret, open descriptors."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """Where everything stands. `secret` is in the host's environment and in that of process `pid`."""

    secret: str
    backwards: str
    key: str
    home: str
    tcp4: int
    tcp6: int
    udp: int
    abstract: str
    abstract_datagram: str
    unix: str
    pid: int
    marker: str
    """A file that must not come to be."""


@contextlib.contextmanager
def plant(folder: Path) -> Generator[Planted]:
    """Everything, for as long as the arena is open."""
    with contextlib.ExitStack() as stack:
        secret = f"planted-{secrets.token_hex(8)}"
        home = folder / "home"
        (home / ".ssh").mkdir(parents=True)
        key = home / ".ssh" / "id_ed25519"
        key.write_text(f"PRIVATE KEY {secret}")
        name = f"cardcage-hostile-{os.getpid()}-{secrets.token_hex(4)}"
        tcp4 = _listening(stack, socket.create_server(("127.0.0.1", 0)))
        tcp6 = _listening(stack, socket.create_server(("::1", 0), family=socket.AF_INET6))
        udp = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        udp.bind(("127.0.0.1", 0))
        _answer_datagrams(stack, udp)
        for kind, address in (
            (socket.SOCK_STREAM, f"\0{name}"),
            (socket.SOCK_DGRAM, f"\0{name}-datagram"),
            (socket.SOCK_STREAM, str(home / "docker.sock")),
        ):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX, kind))
            sock.bind(address)
            if kind == socket.SOCK_STREAM:
                sock.listen()
        os.chmod(home / "docker.sock", 0o777)
        sleeper = stack.enter_context(_sleeper(secret))
        _plant_in_environment(stack, secret)
        _leave_descriptors(stack, key)
        yield Planted(
            secret=secret,
            backwards=secret[::-1],
            key=str(key),
            home=str(home),
            tcp4=tcp4,
            tcp6=tcp6,
            udp=udp.getsockname()[1],
            abstract=f"@{name}",
            abstract_datagram=f"@{name}-datagram",
            unix=str(home / "docker.sock"),
            pid=sleeper.pid,
            marker=str(folder / "marker"),
        )


def _listening(stack: contextlib.ExitStack, server: socket.socket) -> int:
    stack.enter_context(server)
    return int(server.getsockname()[1])


def _answer_datagrams(stack: contextlib.ExitStack, sock: socket.socket) -> None:
    def answer() -> None:
        while True:
            data, sender = sock.recvfrom(100)
            if data == b"enough":
                return
            with contextlib.suppress(OSError):
                sock.sendto(b"here", sender)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()

    def end() -> None:
        sock.sendto(b"enough", sock.getsockname())
        thread.join(10)

    stack.callback(end)


@contextlib.contextmanager
def _sleeper(secret: str) -> Generator[subprocess.Popen[bytes]]:
    """A process of the host's user that has the secret in its environment and in its command line."""
    with subprocess.Popen(
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)", secret],
        env={"PLANTED_SECRET": secret},
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"up\n"
            yield process
        finally:
            process.kill()


def _plant_in_environment(stack: contextlib.ExitStack, secret: str) -> None:
    planted = {"PLANTED_SECRET": secret, "SSH_AUTH_SOCK": "/nowhere/agent"}
    before = {name: os.environ.get(name) for name in planted}
    os.environ.update(planted)

    def restore() -> None:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})

    stack.callback(restore)


def _leave_descriptors(stack: contextlib.ExitStack, path: Path) -> None:
    """Descriptors of a secret file that a careless host left inheritable."""
    for _ in range(8):
        descriptor = os.open(path, os.O_RDONLY)
        os.set_inheritable(descriptor, True)
        stack.callback(os.close, descriptor)
