"""The supervisor of one instance where there are no namespaces: the process between the fork server and the plugin.

It has the instance's uid and no rights, stays outside Landlock and the filter, and runs no code of the plugin. The
filter asks it before every new process and every connection. A process it counts. A connection that the plan has no
place for it refuses, and tells the host of it, but not of every one in a flood. Any other it hands to the host, with
the address copied out of the plugin's memory; the host answers with a socket that is connected already, which takes the
place of the plugin's. It has one thread: a plugin that floods it holds up itself and nobody else.

When the plugin ends, it ends all that came of it, and then itself. When it is killed, the fork server does that; and
since nobody answers the filter any more, nothing new can be started meanwhile.
"""

import errno
import os
import select
import socket
import struct
import sys
import time

import msgspec

from cardcage.launch import child, sweep
from cardcage.launch.refusals import NOT_GRANTED, TOO_MANY, UNIX_SOCKET, Refusal, Teller
from cardcage.sandbox import confine, enter, notify
from cardcage.sandbox.syscalls import prctl
from cardcage_sdk import names

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from typing import NoReturn

    from cardcage.sandbox.enter import LayerRow, Surroundings
    from cardcage.sandbox.plan import SandboxPlan
else:
    import _signal as signal

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder().decode

CONNECT_DEADLINE_S = 15.0
"""For the host to hand over a connection; it does so at once, and dials afterwards."""

WAITING_MAX = 32
"""Connections of one instance that the host has been asked for at the same time. More fail, as without free ports."""

PACKET_BYTES_MAX = 64 * 1024

_CLONE_THREAD = 0x10000
_ADDRESS_BYTES_MAX = 128
_FORKS = ("fork", "vfork", "clone")


class _Waiting:
    """A connection that the host was asked for."""

    __slots__ = ("asked", "close_on_exec", "deadline_s", "nonblocking")

    def __init__(self, asked: notify.Notification, flags: int, deadline_s: float) -> None:
        self.asked = asked
        self.close_on_exec = bool(flags & os.O_CLOEXEC)
        self.nonblocking = bool(flags & os.O_NONBLOCK)
        self.deadline_s = deadline_s


class Keeper:
    """Decides the plugin's calls, and waits for its end."""

    def __init__(self, plugin: int, listener: notify.Listener, report: socket.socket, plan: "SandboxPlan") -> None:
        self._plugin = plugin
        self._listener = listener
        self._report = report
        self._tasks_max = plan.limits.processes or 64
        self._places = frozenset((place.address, place.port) for place in plan.network.all_listeners)
        self._refusals = Teller(self._tell_refusal, time.monotonic)
        self._waiting: dict[int, _Waiting] = {}

    def run(self, wake: int) -> int:
        """Serve until the plugin has ended; returns its wait status. `wake` is readable when a child has ended."""
        watch = select.poll()
        for source in (self._listener.fileno(), self._report.fileno(), wake):
            watch.register(source, select.POLLIN)
        while True:
            status = self._take_in()
            if status is not None:
                self._refusals.flush(all_=True)
                return status
            for descriptor, event in watch.poll(self._next_deadline_ms()):
                if descriptor == wake:
                    os.read(wake, 4096)
                elif descriptor == self._report.fileno():
                    self._hear_host()
                elif event & select.POLLIN:
                    self._listener.serve_one(self)
                else:
                    watch.unregister(descriptor)  # nobody is left whom the filter could ask for
            self._give_up_late()
            self._refusals.flush()

    def _take_in(self) -> "int | None":
        """Take in whatever ended; the plugin's wait status where it was among that."""
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return None
            if pid == self._plugin:
                return status

    def decide(self, asked: notify.Notification, reader: notify.Reader) -> "notify.Answer | None":
        """What becomes of a call; None for a connection, which the host decides."""
        if asked.name in _FORKS:
            return self._decide_fork()
        if asked.name == "connect":
            return self._decide_connection(asked, reader)
        return notify.Fail(errno.EPERM)

    def _decide_fork(self) -> notify.Answer:
        # The arguments are numbers and flags that the filter has looked at: nothing can change after this.
        tasks = sweep.count_tasks(sweep.descendants_of(os.getpid()))
        return notify.PROCEED if tasks < self._tasks_max else notify.Fail(errno.EAGAIN)

    def _decide_connection(self, asked: notify.Notification, reader: notify.Reader) -> "notify.Answer | None":
        number, address, size = (asked.arguments[0] & 0xFFFFFFFF, asked.arguments[1], asked.arguments[2] & 0xFFFFFFFF)
        if size > _ADDRESS_BYTES_MAX:
            return notify.Fail(errno.EINVAL)
        raw = reader.read(asked, address, size)
        where = parse_address(raw)
        if isinstance(where, int):
            if where == errno.EACCES:
                self._refusals.note(UNIX_SOCKET, socket_path(raw), 0)
            return notify.Fail(where)
        flags = _socket_flags(asked.pid, number)
        if flags is None:
            return notify.Fail(errno.ENOTSOCK)
        if where not in self._places:
            self._refusals.note(NOT_GRANTED, *where)
            return notify.Fail(errno.ENETUNREACH)
        if len(self._waiting) >= WAITING_MAX:
            self._refusals.note(TOO_MANY, *where)
            return notify.Fail(errno.EAGAIN)
        self._waiting[asked.id] = _Waiting(asked, flags, time.monotonic() + CONNECT_DEADLINE_S)
        self._report.send(_pack(("connect", asked.id, *where)))
        return None

    def _tell_refusal(self, refusal: Refusal) -> None:
        self._report.send(_pack(("refused", *refusal)))

    def _hear_host(self) -> None:
        packet, descriptors, _, _ = socket.recv_fds(self._report, PACKET_BYTES_MAX, 1)
        if not packet:
            os._exit(1)  # the host is gone; the fork server ends what is left
        number, code = _unpack(packet)
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            self._answer(waiting, code, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _answer(self, waiting: _Waiting, code: int, descriptors: "list[int]") -> None:
        if code or not descriptors:
            self._listener.answer(waiting.asked, notify.Fail(code or errno.ECONNREFUSED))
            return
        os.set_blocking(descriptors[0], not waiting.nonblocking)
        place = waiting.asked.arguments[0] & 0xFFFFFFFF
        try:
            self._listener.answer(waiting.asked, notify.Give(descriptors[0], place, waiting.close_on_exec))
        except OSError as error:  # a number beyond the plugin's own limit, for one
            self._listener.answer(waiting.asked, notify.Fail(error.errno or errno.EBADF))

    def _next_deadline_ms(self) -> "float | None":
        now_s = time.monotonic()
        waits_s = [max(0.0, waiting.deadline_s - now_s) for waiting in self._waiting.values()]
        if self._refusals.wait_s is not None:
            waits_s.append(self._refusals.wait_s)
        return min(waits_s) * 1000 + 1 if waits_s else None

    def _give_up_late(self) -> None:
        now_s = time.monotonic()
        for number, waiting in tuple(self._waiting.items()):
            if waiting.deadline_s <= now_s:
                del self._waiting[number]
                self._listener.answer(waiting.asked, notify.Fail(errno.ETIMEDOUT))


def parse_address(raw: bytes) -> "tuple[str, int] | int":
    """The address and port in a `sockaddr`, or the error for one that leads nowhere from here."""
    if len(raw) < 2:
        return errno.EINVAL
    (family,) = struct.unpack_from("=H", raw)
    if family == socket.AF_INET and len(raw) >= 8:
        (port,) = struct.unpack_from("!H", raw, 2)
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), port
    if family == socket.AF_INET6 and len(raw) >= 24:
        (port,) = struct.unpack_from("!H", raw, 2)
        return _unmapped(raw[8:24]), port
    if family == socket.AF_UNIX:
        return errno.EACCES  # sockets of the host's services, by path or by name: Landlock does not hear of paths
    return errno.EAFNOSUPPORT


def socket_path(raw: bytes) -> str:
    """The path in the `sockaddr` of a Unix socket; of an abstract name, the name after an `@`."""
    name = raw[2:]
    named = b"@" + name[1:] if name[:1] == b"\0" else name.partition(b"\0")[0]
    return named.decode("utf-8", "backslashreplace").encode("unicode_escape").decode("ascii")


def _unmapped(address: bytes) -> str:
    """An IPv4 address in its IPv6 spelling is the IPv4 address."""
    if address[:12] == bytes(10) + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, address[12:])
    return socket.inet_ntop(socket.AF_INET6, address)


def _socket_flags(pid: int, number: int) -> "int | None":
    """The flags of the caller's socket at `number`, or None where there is none."""
    try:
        if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):
            return None
        with open(f"/proc/{pid}/fdinfo/{number}", "rb") as file:
            return next(int(line.split()[1], 8) for line in file if line.startswith(b"flags:"))
    except (OSError, StopIteration):
        return None


def keep(
    plan: "SandboxPlan",
    around: "Surroundings",
    report: socket.socket,
    layers: "list[LayerRow]",
    run_plugin: "Callable[[], NoReturn]",
    is_orphaned: "Callable[[], bool]",
    refused_by_group: "OSError | None" = None,
) -> "NoReturn":
    """Become the supervisor of an instance, start the plugin behind its wall, and see it to its end."""
    if refused_by_group is not None:
        report.send(_pack(("failed", layers, "control group", refused_by_group.errno or 0, str(refused_by_group))))
        os._exit(1)
    entered = confine.become_supervisor(plan)
    enter.die_with_parent()  # the change of uid has cleared it
    if is_orphaned():
        os._exit(1)
    sweep.become_reaper(prctl)
    enter.hide_from_own_uid()
    wake, waker = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    plugin = os.fork()
    if plugin == 0:
        for one in (report, ours):
            one.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.close(wake)
        os.close(waker)
        _wall_in(plan, around, theirs, layers, entered)
        _find_things(plan)
        run_plugin()
    theirs.close()
    for descriptor in (3, 1, 2):
        os.close(descriptor)  # the plugin's alone: the host must see their end with the plugin's
    packet, descriptors, _, _ = socket.recv_fds(ours, PACKET_BYTES_MAX, 1)
    if not descriptors:
        report.send(packet or _pack(("failed", layers, "the applier itself", 0, "it ended without a word")))
        os._exit(1)
    listener = notify.Listener(descriptors[0])
    report.send(packet)
    ours.send(b"go")
    ours.close()
    status = Keeper(plugin, listener, report, plan).run(wake)
    sweep.end_children()
    listener.close()
    report.send(_pack(("ended", status)))
    os._exit(0)


def _find_things(plan: "SandboxPlan") -> None:
    """Have imports found at the places of the host, since there are no others, and names without a hosts file."""
    sys.path[:] = plan.python_path
    child.add_packages(plan.packages)
    names.install(plan.network.hosts)


def _wall_in(
    plan: "SandboxPlan",
    around: "Surroundings",
    supervisor: socket.socket,
    layers: "list[LayerRow]",
    entered: "frozenset[str]",
) -> None:
    """Put up the wall, hand over the listener, and wait until somebody listens at it."""
    enter.die_with_parent()
    enter.show_to_own_uid()  # the supervisor reads this process's memory, which has its uid and not more rights
    walls = confine.Confinement(plan, around, layers=layers, entered=entered)
    try:
        walls.put_up()
    except enter.SetupError as error:
        supervisor.send(_pack(("failed", layers, error.step, error.number, error.detail)))
        os._exit(1)
    except Exception as error:
        supervisor.send(_pack(("failed", layers, "the applier itself", 0, f"{type(error).__name__}: {error}")))
        os._exit(1)
    socket.send_fds(supervisor, [_pack(("ready", layers))], [walls.listener])
    os.close(walls.listener)
    if supervisor.recv(2) != b"go":
        os._exit(1)
    supervisor.close()
