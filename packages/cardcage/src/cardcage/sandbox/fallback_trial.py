"""Trying the wall without namespaces: a child puts it up, and this process decides its calls as a supervisor would."""

from __future__ import annotations

import errno
import json
import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cardcage.sandbox import capabilities, confine, notify, syscalls
from cardcage.sandbox.enter import CLONE_FLAGS, LayerRow, Surroundings, die_with_parent, show_to_own_uid

if TYPE_CHECKING:
    from cardcage.sandbox.plan import SandboxPlan

_TIMEOUT_S: Final = 5.0
_PACKET_BYTES_MAX: Final = 64 * 1024
_DOCUMENTATION_ADDRESS: Final = ("192.0.2.1", 9)
_ANSWER: Final = errno.ENETDOWN
"""What the supervisor answers a connection: nothing else here would give this very error."""


class _Supervisor:
    """Reads what a call asks for, as the real one does, and refuses all."""

    def decide(self, asked: notify.Notification, reader: notify.Reader) -> notify.Answer:
        if asked.name != "connect":
            return notify.Fail(errno.EAGAIN)
        address = reader.read(asked, asked.arguments[1], 16)
        expected = socket.inet_aton(_DOCUMENTATION_ADDRESS[0])
        return notify.Fail(_ANSWER if address[4:8] == expected else errno.EPERM)


def try_confinement(plan: SandboxPlan) -> list[LayerRow]:
    """The layers of `plan`, each corrected by what the walled child then really managed to do.

    To be called in a child, for it changes what the process is. Raises `SetupError` and `OSError`.
    """
    entered = confine.become_supervisor(plan)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        ours.close()
        _wall_in_and_try(plan, theirs, entered)
    theirs.close()
    try:
        packet, descriptors, _, _ = socket.recv_fds(ours, _PACKET_BYTES_MAX, 1)
        if not descriptors:
            raise OSError(0, packet.decode() or "the wall's trial ended without a word")
        return _supervise(notify.Listener(descriptors[0]), ours)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def _supervise(listener: notify.Listener, ours: socket.socket) -> list[LayerRow]:
    ours.send(b"go")
    watch = select.poll()
    watch.register(listener.fileno(), select.POLLIN)
    watch.register(ours, select.POLLIN)
    while events := watch.poll(_TIMEOUT_S * 1000):
        for descriptor, _ in events:
            if descriptor == ours.fileno():
                rows: list[Any] = json.loads(ours.recv(_PACKET_BYTES_MAX))
                return [(name, status, detail) for name, status, detail in rows]
            listener.serve_one(_Supervisor())
    raise OSError(errno.ETIMEDOUT, "the wall's trial did not answer")


def _wall_in_and_try(plan: SandboxPlan, supervisor: socket.socket, entered: frozenset[str]) -> NoReturn:
    try:
        die_with_parent()
        show_to_own_uid()
        layers: list[LayerRow] = []
        walls = confine.Confinement(plan, Surroundings(as_root=False), layers=layers, entered=entered)
        try:
            walls.put_up()
        except Exception as error:
            supervisor.send(str(error).encode())
            os._exit(1)
        socket.send_fds(supervisor, [b"up"], [walls.listener])
        os.close(walls.listener)
        supervisor.recv(2)
        supervisor.send(json.dumps([_confirm(row) for row in layers]).encode())
    finally:
        os._exit(0)


def _confirm(row: LayerRow) -> LayerRow:
    name, status, _ = row
    attempt, expected = _REFUSED.get(name, (None, 0))
    if status != "enforced" or attempt is None:
        return row
    try:
        attempt()
    except OSError as error:
        if expected in (0, error.errno):
            return row
        return name, "unavailable", f"refused, but in another way than expected: {error.strerror}"
    return name, "unavailable", "it went on, and what it forbids still works"


def _connect() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect(_DOCUMENTATION_ADDRESS)


_REFUSED: Final[dict[str, tuple[Callable[[], object], int]]] = {
    "own_uid": (lambda: os.setuid(0), 0),
    "capabilities": (lambda: capabilities.drop_bounding(), 0),
    "landlock_files": (lambda: os.listdir("/"), 0),
    "landlock_scopes": (lambda: os.kill(os.getppid(), 0), 0),
    "system_call_filter": (lambda: syscalls.call("unshare", CLONE_FLAGS["user"]), errno.EPERM),
    "supervised_calls": (_connect, _ANSWER),
}
