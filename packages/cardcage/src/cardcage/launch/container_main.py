"""The first process in a container: looks whether the walls hold, adds its own, and starts the plugin behind them.

An OCI runtime starts it as a script with an empty environment. It inherits four descriptors: the stream to the host,
a control socket, and pipes for what the plugin prints. Over the control socket it gets an order (what to run, the plan,
what to compare with) and says which layers hold; then, once the host has put it into its control group, the key for its
end of the stream. It forks the plugin's process when that has come and before it reads it, so the key is in no memory
but its own.

It stays as the container's init: it takes in what the plugin orphans, moves bytes between the enciphered stream and the
plugin's plain socket, and says how the plugin ended. When it ends the kernel ends everything in the container; and it
ends when the host does.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from cardcage.sandbox.enter import LayerRow
    from cardcage.sandbox.plan import SandboxPlan

ORDER_BYTES_MAX = 256 * 1024
STREAM_FD, CONTROL_FD, STDOUT_FD, STDERR_FD, FIRST_FREE_FD = 3, 4, 5, 6, 7
CODE_DIR = "/cardcage/host"
"""Where this package stands in the container, for this process alone: it is on no path of the plugin's."""


def _main() -> "NoReturn":
    control = socket.socket(fileno=CONTROL_FD)
    packet, groups, _, _ = socket.recv_fds(control, ORDER_BYTES_MAX, 16)
    refused = _enter_groups(groups)  # first of all, so that what it takes from here on is the plugin's own
    order = json.loads(packet)
    clean = _has_clean_environment({**order["plan"]["environment"], **order["environment"]})
    os.environ.clear()
    sys.path[:] = [*order["python_path"][:2], CODE_DIR, order["library_dir"]]
    import msgspec

    from cardcage.sandbox.enter import SetupError
    from cardcage.sandbox.plan import SandboxPlan

    plan = msgspec.convert(order["plan"], SandboxPlan)
    pack = msgspec.msgpack.Encoder().encode
    layers: list[LayerRow] = []
    try:
        if refused is not None:
            raise SetupError("control group", refused.errno or 0, refused.strerror or "")
        if groups:
            layers.append(("cgroup_limits", "enforced", ""))
        _take_descriptors()
        layers += _first_layers(clean=clean)
        main = _load_main(order["main"], order["imports"])
        listeners = _put_up(plan, order, layers)
    except SetupError as error:
        control.send(pack(("failed", layers, error.step, error.number, error.detail)))
        os._exit(1)
    except Exception as error:
        control.send(pack(("failed", layers, "the first process", 0, f"{type(error).__name__}: {error}")))
        os._exit(1)
    _tell_ready(control, pack(("ready", layers, [place for place, _ in listeners])), listeners)
    _run(plan, order, main, control, pack)


def _enter_groups(entries: "list[int]") -> "OSError | None":
    """Into the control groups that the host made for this instance; the error where one does not take it."""
    try:
        for entry in entries:
            os.write(entry, b"0")
    except OSError as error:
        return error
    finally:
        for entry in entries:
            os.close(entry)
    return None


def _has_clean_environment(planned: "dict[str, str]") -> bool:
    """Whether the environment that this process was started with, and shows in /proc, has nothing that is not planned.

    Runtimes add a HOME, which they read from the container's own list of users, and its host name.
    """
    with open("/proc/self/environ", "rb") as file:
        found = {entry.decode(errors="replace") for entry in file.read().split(b"\0") if entry}
    return found <= {f"{name}={value}" for name, value in planned.items()}


def _take_descriptors() -> None:
    from cardcage.sandbox.enter import close_from, die_with_parent

    die_with_parent()
    os.umask(0o022)
    nothing = os.open("/dev/null", os.O_RDWR)
    for source, place in ((nothing, 0), (STDOUT_FD, 1), (STDERR_FD, 2)):
        os.dup2(source, place, inheritable=True)
    close_from(STDOUT_FD)
    for descriptor in (STREAM_FD, CONTROL_FD):
        os.set_inheritable(descriptor, False)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        # What the interpreter made at its start was over the runtime's own output.
        stream = open(descriptor, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _first_layers(*, clean: bool) -> "list[LayerRow]":
    # Listing opens a descriptor of its own, the lowest that is free.
    held = {int(name) for name in os.listdir("/proc/self/fd")} - {STDOUT_FD}
    extra = sorted(held - set(range(STDOUT_FD)))
    return [
        ("descriptors", "unavailable" if extra else "enforced", f"also holds {extra}" if extra else ""),
        ("environment", "enforced" if clean else "unavailable", "" if clean else "the runtime put something there"),
    ]


def _load_main(main: str, imports: "list[str]") -> "Callable[[socket.socket], object]":
    module, _, function = main.partition(":")
    for name in imports:
        importlib.import_module(name)
    found: Callable[[socket.socket], object] = getattr(importlib.import_module(module), function)
    return found


def _put_up(
    plan: "SandboxPlan", order: "dict[str, Any]", layers: "list[LayerRow]"
) -> "list[tuple[int, socket.socket]]":
    from cardcage.sandbox.inside import InnerWalls

    ids = order["host_ids"]
    walls = InnerWalls(plan, by=order["by"], host=order["namespaces"], outside=(ids[0], ids[1]), layers=layers)
    walls.put_up()
    return walls.listeners


def _tell_ready(control: socket.socket, word: bytes, listeners: "list[tuple[int, socket.socket]]") -> None:
    """Say so, and hand over the listeners, and this process itself by a descriptor that cannot be mistaken."""
    pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(control, [word], [pidfd, *(listener.fileno() for _, listener in listeners)])
    os.close(pidfd)
    for _, listener in listeners:
        listener.close()


def _run(
    plan: "SandboxPlan",
    order: "dict[str, Any]",
    main: "Callable[[socket.socket], object]",
    control: socket.socket,
    pack: "Any",
) -> "NoReturn":
    from cardcage.launch.carrier import await_word, carry
    from cardcage.sandbox.enter import hide_from_own_uid

    await_word(control)
    ours, theirs = socket.socketpair()
    # Before the fork: the plugin is of the same uid, and must at no moment be able to speak in this one's name.
    hide_from_own_uid()
    pid = os.fork()
    if pid == 0:
        os.close(STREAM_FD)
        control.close()
        ours.close()
        _run_plugin(plan, order, main, theirs)
    theirs.close()
    os.close(1)
    os.close(2)  # the plugin's alone: the host must see their end with the plugin's
    try:
        status = carry(ours, STREAM_FD, control, pid)
    except Exception as error:
        control.send(pack(("failed", [], "the link", 0, f"{type(error).__name__}: {error}")))
        os._exit(1)
    control.send(pack(("ended", status)))
    os._exit(0)


def _run_plugin(
    plan: "SandboxPlan", order: "dict[str, Any]", main: "Callable[[socket.socket], object]", wire: socket.socket
) -> "NoReturn":
    from cardcage.launch.leaving import leave_after
    from cardcage.sandbox.enter import show_to_own_uid

    show_to_own_uid()
    signal.set_wakeup_fd(-1)
    os.dup2(wire.fileno(), STREAM_FD, inheritable=False)
    wire.close()
    sys.path[:] = order["python_path"]
    sys.argv[:] = ["plugin"]
    sys.orig_argv[:] = ["plugin"]
    sys.executable = ""
    for name in [name for name in sys.modules if name.partition(".")[0] == "cardcage"]:
        del sys.modules[name]
    gc.enable()
    leave_after(plan.environment, lambda: main(socket.socket(fileno=STREAM_FD)))


if __name__ == "__main__":
    _main()
