"""What the process before a plugin does where the wire is enciphered: it holds the key, and carries the bytes.

A container's first process does it, and an instance's init behind the fork server's walls. The plugin's process has
been forked by then with a plain socket, so that the key is never in its memory. Standard library; the part that needs
OpenSSL is imported when it is used.
"""

import json
import os
import select
import signal
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

KEYS_BYTES_MAX = 64 * 1024


def await_word(control: socket.socket) -> None:
    """Wait until the host has said something, and leave it unread: the fork comes first."""
    watch = select.poll()
    watch.register(control, select.POLLIN)
    watch.poll()


class Ending:
    """What has been learnt of the plugin's end."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.status: int | None = None

    def reap_all(self) -> bool:
        """Take in whatever has ended; whether the plugin is among it."""
        while self.status is None:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return False
            if pid == self.pid:
                self.status = status
        return True


def carry(plain: socket.socket, stream: int, control: socket.socket, pid: int) -> int:
    """Read the keys, and move bytes until the plugin has ended and its last words are out; its wait status.

    Leaves, and takes everything along, where the host is gone.
    """
    packet = control.recv(KEYS_BYTES_MAX)
    if not packet:
        os._exit(0)
    keys = json.loads(packet)
    ending = Ending(pid)
    children, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    os.write(waker, b"x")  # it may have ended before there was anybody to be woken
    watch = select.epoll()
    watch.register(children, select.EPOLLIN)
    watch.register(control, select.EPOLLIN)

    def woken() -> bool:
        for descriptor, _ in watch.poll(0):
            if descriptor == control.fileno():
                os._exit(0)  # the host is gone
            os.read(children, 4096)
        return ending.reap_all()

    _move(plain, stream, keys, watch.fileno(), woken)
    plain.close()
    os.close(stream)
    while ending.status is None:
        watch.poll()
        woken()
    return ending.status


def _move(plain: socket.socket, stream: int, keys: "dict[str, str]", wake: int, on_wake: "Callable[[], bool]") -> None:
    from cardcage_sdk.secure import SecurePump, instance_context, serve

    pump = SecurePump(plain, stream, instance_context(keys["ca_pem"], keys["own_pem"].encode()), server=False)
    serve(pump, plain, stream, wake=wake, on_wake=on_wake)
