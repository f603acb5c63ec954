"""What a child of the fork server does between its fork and the plugin's first line: its walls, and then its init.

It is loaded before the fork, so that no child has to read it, and is as light as the fork server itself: what it holds
in memory, each plugin does.
"""

import fcntl
import gc
import os
import select
import socket

from cardcage.launch import carrier
from cardcage.launch.leaving import leave_after
from cardcage.sandbox import enter

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any, NoReturn

    from cardcage.sandbox.enter import LayerRow, Surroundings
    from cardcage.sandbox.plan import SandboxPlan
else:
    import _signal as signal  # without the enumerations around it, whose pages each child would have to copy

# Where a child finds what it was handed, once it has put its descriptors in order.
_WIRE_FD, _REPORT_FD, _PROC_FD, _ALIVE_FD, _FIRST_FREE_FD = 3, 4, 5, 6, 7


def is_closed(descriptor: int) -> bool:
    """Whether the other end of a pipe that nobody writes to is gone."""
    watch = select.poll()
    watch.register(descriptor, select.POLLIN)
    return bool(watch.poll(0))


def become_init(
    plan: "SandboxPlan",
    descriptors: "list[int]",
    around: "Surroundings",
    alive: int,
    main: "Callable[[socket.socket], object]",
    pack: "Any",
) -> "NoReturn":
    """The child of a fork: walls, then the plugin's process, then waiting for its end. Never returns."""
    try:
        refused = _enter_groups(descriptors[4:])  # first of all, so that what is copied from here on is its own
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        # A group of its own, or kill(0, ...) would reach the fork server. Not a session: the fork server's has no
        # terminal, and a new one costs a millisecond where the kernel schedules by session.
        os.setpgid(0, 0)
        os.umask(0o022)
        enter.die_with_parent()
        report = _take_descriptors(descriptors, around, alive)
        layers = _first_layers(around)
        if refused is not None:
            report.send(pack(("failed", layers, "control group", refused.errno or 0, refused.strerror or "")))
            os._exit(1)
        if descriptors[4:]:
            layers.append(("cgroup_limits", "enforced", ""))
        walls = enter.Walls(plan, around, layers=layers)
        try:
            walls.put_up()
        except enter.SetupError as error:
            report.send(pack(("failed", layers, error.step, error.number, error.detail)))
            os._exit(1)
        except Exception as error:
            report.send(pack(("failed", layers, "the applier itself", 0, f"{type(error).__name__}: {error}")))
            os._exit(1)
        # The change of uid has cleared it. Whoever ended before this line has closed the pipe.
        enter.die_with_parent()
        if is_closed(_ALIVE_FD):
            os._exit(1)
        ready = pack(("ready", layers, [place for place, _ in walls.listeners], walls.recorder >= 0))
        _hand_over(report, ready, walls.listeners, walls.recorder)
        os.close(_PROC_FD)
        os.close(_ALIVE_FD)
        # Before the fork: the plugin is of the same uid, and must at no moment be able to speak in this one's name.
        enter.hide_from_own_uid()
        if plan.encrypt:
            _run_enciphered(plan, main, report, pack)
        pid = os.fork()
        if pid == 0:
            report.close()
            enter.show_to_own_uid()
            _run_plugin(plan, main)
        for descriptor in (_WIRE_FD, 1, 2):
            os.close(descriptor)  # the plugin's alone: the host must see their end with the plugin's
        report.send(pack(("ended", _wait_for(pid))))
    except BaseException as error:
        os.write(2, f"cardcage: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _run_enciphered(
    plan: "SandboxPlan",
    main: "Callable[[socket.socket], object]",
    report: socket.socket,
    pack: "Any",
) -> "NoReturn":
    """The same with an enciphered wire: the plugin gets a plain socket, and this process carries its bytes."""
    carrier.await_word(report)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        report.close()
        ours.close()
        os.dup2(theirs.fileno(), _WIRE_FD, inheritable=False)
        theirs.close()
        enter.show_to_own_uid()
        _run_plugin(plan, main)
    theirs.close()
    os.close(1)
    os.close(2)
    report.send(pack(("ended", carrier.carry(ours, _WIRE_FD, report, pid))))
    os._exit(0)


def become_keeper(
    plan: "SandboxPlan",
    descriptors: "list[int]",
    around: "Surroundings",
    alive: int,
    main: "Callable[[socket.socket], object]",
    keeper: "ModuleType",
) -> "NoReturn":
    """The child of a fork where there are no namespaces. Never returns."""
    try:
        refused = _enter_groups(descriptors[4:])
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.umask(0o022)
        enter.die_with_parent()
        report = _take_descriptors(descriptors, around, alive)
        layers = _first_layers(around)
        if descriptors[4:]:
            layers.append(("cgroup_limits", "enforced", ""))

        def is_orphaned() -> bool:
            orphaned = is_closed(_ALIVE_FD)
            os.close(_PROC_FD)
            os.close(_ALIVE_FD)
            return orphaned

        keeper.keep(plan, around, report, layers, lambda: _run_plugin(plan, main), is_orphaned, refused)
    except BaseException as error:
        os.write(2, f"cardcage: {type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(1)


def _enter_groups(entries: "list[int]") -> "OSError | None":
    """Into the control groups that the host made for this instance; the error where one does not take it."""
    try:
        for entry in entries:
            os.write(entry, b"0")
    except OSError as error:
        return error
    return None


def _hand_over(
    report: socket.socket, packet: bytes, listeners: "list[tuple[int, socket.socket]]", recorder: int
) -> None:
    """Tell the host that the walls are up, and give it the listeners: nobody inside holds one from here on."""
    descriptors = [listener.fileno() for _, listener in listeners]
    if recorder >= 0:
        descriptors.append(recorder)
    if not descriptors:
        report.send(packet)
        return
    socket.send_fds(report, [packet], descriptors)
    for _, listener in listeners:
        listener.close()
    if recorder >= 0:
        os.close(recorder)


def _wait_for(plugin: int) -> int:
    """Take in whatever ends until the plugin does. With this process the kernel then ends all that is left."""
    while True:
        pid, status = os.wait()
        if pid == plugin:
            return status


def _take_descriptors(descriptors: "list[int]", around: "Surroundings", alive: int) -> socket.socket:
    """Put the descriptors at their places and close every other one."""
    wire, stdout, stderr, report = descriptors[:4]
    nothing = os.open("/dev/null", os.O_RDWR)
    wanted = (nothing, stdout, stderr, wire, report, around.proc, alive)
    # Out of the way first, so that no source is overwritten before it is copied.
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64) for descriptor in wanted]
    for place, descriptor in enumerate(aside):
        os.dup2(descriptor, place, inheritable=place < _WIRE_FD)
    enter.close_from(_FIRST_FREE_FD)
    around.proc = _PROC_FD
    return socket.socket(fileno=_REPORT_FD)


def _first_layers(around: "Surroundings") -> "list[LayerRow]":
    folder = os.open("self/fd", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=around.proc)
    try:
        held = {int(name) for name in os.listdir(folder)}
    finally:
        os.close(folder)
    # Listing opens a copy of its own; both are gone again.
    extra = sorted(held - set(range(_FIRST_FREE_FD)) - {folder, folder + 1})
    clean = around.environment_is_empty
    return [
        ("descriptors", "unavailable" if extra else "enforced", f"also holds {extra}" if extra else ""),
        ("environment", "enforced" if clean else "unavailable", "" if clean else "the fork server's was not empty"),
    ]


def _run_plugin(
    plan: "SandboxPlan",
    main: "Callable[[socket.socket], object]",
) -> "NoReturn":
    """Call the plugin's main function and leave as an ordinary interpreter would."""
    gc.enable()
    leave_after(plan.environment, lambda: main(socket.socket(fileno=_WIRE_FD)))
