"""The fork server: a small process of one thread that has imported what plugins need and holds no secret.

It is started as a script with an empty environment, so that nothing of the host is in its memory, and is itself the
first process of a pid namespace: when it ends, the kernel ends every instance.

For each request it forks a child into a fresh pid namespace, and into a network namespace that it made beforehand for
that child alone. The child puts the walls around itself, forks the plugin's process behind them, and stays as its init:
it takes in what the plugin orphans, and says how the plugin ended.

The plugin is not the init itself because the first process of a namespace is deaf to its own signals: one that aborts
or kills itself would go on. The init does not stay outside the walls, where it would have to be confined apart: that
was measured, and cost half as much memory again.

The first packet on the control socket says what is to be run, as JSON; it is no argument, since every child can read
those. A request is a number (eight bytes) and a plan in MessagePack, with descriptors: wire, stdout, stderr, report and
those by which it enters its control groups; the reply, MessagePack too, carries the init's pidfd. Plans are decoded in
the child alone and wiped here, so that no instance finds in its memory what another was given. A standby would be the
same child, stopped between its walls and its plugin.

Where namespaces are forbidden (`fallback`) the fork server takes in orphans instead of being the first process of a
namespace, and a process before it does the same, so that either may die. The children then are `keeper.keep`'s. What a
child does is in `walled_child`.
"""

import gc
import json
import os
import select
import socket
import sys
from importlib.machinery import FileFinder

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping
    from types import ModuleType
    from typing import NoReturn

else:
    import _signal as signal  # without the enumerations around it, whose pages each child would have to copy

PACKET_BYTES_MAX = 256 * 1024

_CLONE_NEWPID = 0x20000000
_CLONE_NEWUSER = 0x10000000

_DESCRIPTOR_SPACE = socket.CMSG_SPACE(4 * 16)

NUMBER_BYTES = 8


def serve(control: int) -> None:
    """Be the fork server that the first packet on `control` asks for. Returns only where that packet was none."""
    order = json.loads(os.read(control, PACKET_BYTES_MAX))
    os.environ.clear()  # the interpreter puts LC_CTYPE there where it finds no locale
    from cardcage.launch.child import add_packages

    finder = add_packages(order["packages"])
    if order["fallback"]:
        guard = _stay_under_guard(control)
        server = _ForkServer(control, order["main"], as_root=order["as_root"], guard=guard)
        sys.meta_path.remove(finder)
        _add_site_builtins()
        _make_output_streams()
        _hide_own_modules()
        server.run()
    try:
        _enter_own_pid_namespace(control, as_root=order["as_root"])
    except OSError as error:
        import msgspec

        refusal = (0, error.errno, f"{error.filename}: {error.strerror}")
        socket.socket(fileno=control).send(msgspec.msgpack.encode(refusal))
        os._exit(1)
    server = _ForkServer(control, order["main"], as_root=order["as_root"])
    sys.meta_path.remove(finder)
    _add_site_builtins()
    _make_output_streams()
    _move_python(order["homes"], order["python_path"], order["python_dir"])
    _hide_own_modules()
    server.run()


def _enter_own_pid_namespace(control: int, *, as_root: bool) -> None:
    """Go on as the first process of a new pid namespace; the process that was started waits and does nothing else."""
    from cardcage.launch.walled_child import is_closed
    from cardcage.sandbox.enter import die_with_parent
    from cardcage.sandbox.syscalls import call

    uid, gid = os.getuid(), os.getgid()
    call("unshare", _CLONE_NEWPID | (0 if as_root else _CLONE_NEWUSER))
    if not as_root:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    parent_alive, alive = os.pipe()
    pid = os.fork()
    if pid:
        os.close(control)  # or the host's end of it would never see the fork server's end
        os.close(parent_alive)
        _, status = os.waitpid(pid, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.close(alive)
    die_with_parent()
    if is_closed(parent_alive):
        os._exit(1)


def _stay_under_guard(control: int) -> int:
    """Go on in a child, and end in this process whatever the child leaves behind, however it ends.

    Returns a descriptor in the child that is at its end when this process has ended: then the child ends all.
    """
    from cardcage.launch import sweep
    from cardcage.sandbox.syscalls import prctl

    sweep.become_reaper(prctl)
    parent_alive, alive = os.pipe()
    pid = os.fork()
    if pid:
        os.close(control)
        os.close(parent_alive)
        _, status = os.waitpid(pid, 0)
        sweep.end_children()
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.close(alive)
    sweep.become_reaper(prctl)
    return parent_alive


def _move_python(homes: "Mapping[str, str]", python_path: "list[str]", python_dir: str) -> None:
    """Tell the import system where everything is found behind the walls. Nothing is imported here after this."""
    for module in list(sys.modules.values()):
        _move_module(module, homes)
    sys.path[:] = python_path
    finders = {_moved(path, homes): finder for path, finder in sys.path_importer_cache.items()}
    sys.path_importer_cache.clear()
    for path in python_path:
        # What a finder knows of its folder stays right behind the walls, where the same folder stands: each plugin
        # would list the standard library anew for its first import.
        finder = finders.get(path)
        if isinstance(finder, FileFinder):
            finder.path = path
            sys.path_importer_cache[path] = finder
    sys.prefix = sys.exec_prefix = sys.base_prefix = sys.base_exec_prefix = python_dir
    sys.executable = ""
    sys.argv[:] = ["plugin"]
    sys.orig_argv[:] = ["plugin"]


def _move_module(module: "ModuleType", homes: "Mapping[str, str]") -> None:
    spec = getattr(module, "__spec__", None)
    for holder, names in ((module, ("__file__", "__cached__")), (spec, ("origin", "cached"))):
        for name in names:
            path = getattr(holder, name, None)
            if isinstance(path, str) and path.startswith("/"):
                setattr(holder, name, _moved(path, homes))
    path = getattr(module, "__path__", None)
    if isinstance(path, list):
        path[:] = [_moved(str(one), homes) for one in path]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]


def _hide_own_modules() -> None:
    """Let no plugin import the host's side. What is still needed of it is held by the fork server.

    Here and not in the child: to take a module apart, all of its pages are written to.
    """
    for name in [name for name in sys.modules if name.partition(".")[0] == "cardcage"]:
        del sys.modules[name]


def _moved(path: str, homes: "Mapping[str, str]") -> str:
    for home, inside in homes.items():
        if path == home or path.startswith(f"{home}/"):
            return inside + path[len(home) :]
    return path


def _add_site_builtins() -> None:
    """`exit` and `quit`, which programs take for granted and which come with the `site` module that is left out."""
    import _sitebuiltins  # pyright: ignore[reportMissingModuleSource]
    import builtins

    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D (i.e. EOF)"))


class _ForkServer:
    """Forks instances on request and tells when they have ended."""

    def __init__(self, control: int, main: str, *, as_root: bool, guard: int = -1) -> None:
        import importlib

        import msgspec

        from cardcage.launch import walled_child
        from cardcage.sandbox import enter, seccomp, syscalls
        from cardcage.sandbox.plan import SandboxPlan

        module, _, function = main.partition(":")
        self._main = getattr(importlib.import_module(module), function)
        self._enter = enter
        self._child = walled_child
        self._call = syscalls.call
        self._around = enter.Surroundings(as_root=as_root)
        self._around.environment_is_empty = _environment_is_empty()
        self._decode_plan = msgspec.msgpack.Decoder(SandboxPlan).decode
        self._packet = memoryview(bytearray(PACKET_BYTES_MAX))
        self._pack = msgspec.msgpack.Encoder().encode
        self._namespaces_are_new = False
        self._control = socket.socket(fileno=control)
        self._keeper = None
        self._guard = guard
        if guard >= 0:
            from cardcage.launch import keeper, sweep

            self._keeper = keeper
            self._sweep = sweep
        self._own_pid_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._alive, self._keep_open = os.pipe()
        self._children: dict[int, int] = {}
        self._around.entered = enter.INHERITED_NAMESPACES if guard < 0 else frozenset()
        for execute in (False, True):
            seccomp.assemble(execute=execute)

    def run(self) -> "NoReturn":
        """Serve until the host closes the control socket, which is how a host that dies says so."""
        wake, waker = os.pipe()
        os.set_blocking(waker, False)
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        gc.collect()
        gc.freeze()
        gc.disable()
        watch = select.poll()
        watch.register(self._control, select.POLLIN)
        watch.register(wake, select.POLLIN)
        if self._guard >= 0:
            watch.register(self._guard, select.POLLIN)
        self._send(0, None)
        while True:
            ready = [descriptor for descriptor, _ in watch.poll()]
            if self._guard in ready:
                self._leave()
            if wake in ready:
                os.read(wake, 4096)
                self._reap()
            if self._control.fileno() in ready:
                self._serve_one()

    def _send(self, number: int, status: "int | None", error: str = "", descriptors: "tuple[int, ...]" = ()) -> None:
        try:
            socket.send_fds(self._control, [self._pack((number, status, error))], list(descriptors))
        except OSError:
            self._leave()

    def _leave(self) -> "NoReturn":
        """Nobody listens: the host is gone. With this process the kernel ends its namespace, or this process all."""
        if self._keeper is not None:
            self._sweep.end_children()
        os._exit(0)

    def _reap(self) -> None:
        ended: list[tuple[int, int]] = []
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            ended.append((pid, status))
        if self._keeper is not None:
            # What a dead supervisor left behind has come here; it is gone before the end is told.
            self._sweep.end_children(self._children, lambda pid, status: ended.append((pid, status)))
        for pid, status in ended:
            number = self._children.pop(pid, None)
            if number is not None:
                self._send(number, status)

    def _serve_one(self) -> None:
        size, ancillary, _, _ = self._control.recvmsg_into([self._packet], _DESCRIPTOR_SPACE)
        if not size:
            self._leave()
        descriptors = [
            int.from_bytes(data[start : start + 4], sys.byteorder)
            for _, _, data in ancillary
            for start in range(0, len(data), 4)
        ]
        number = int.from_bytes(self._packet[:NUMBER_BYTES], "big")
        try:
            pid = self._fork(self._packet[NUMBER_BYTES:size], descriptors)
        except OSError as error:
            self._send(number, None, f"{error.strerror} ({error.filename or 'fork'})")
            return
        finally:
            self._packet[:size] = bytes(size)
            for descriptor in descriptors:
                os.close(descriptor)
        self._children[pid] = number
        pidfd = os.pidfd_open(pid)
        self._send(number, None, "", (pidfd,))
        os.close(pidfd)
        try:
            self._renew_namespaces()  # while the child goes on: the next one will not have to wait for it
        except OSError:
            pass  # tried again for the next one, and told to whoever asks for it

    def _renew_namespaces(self) -> None:
        """Be in namespaces that no child has, for the next one to be forked into: they take a millisecond to make."""
        if not self._namespaces_are_new and self._keeper is None:
            self._enter.enter_for_next_child()
            self._namespaces_are_new = True

    def _fork(self, plan: memoryview, descriptors: "list[int]") -> int:
        if self._keeper is not None:
            pid = os.fork()
            if pid == 0:
                os.close(self._keep_open)
                decoded = self._decode_plan(plan)
                self._child.become_keeper(decoded, descriptors, self._around, self._alive, self._main, self._keeper)
            return pid
        call = self._call
        self._renew_namespaces()
        # Children may be given a new namespace only from one's own; so step back after the fork.
        call("unshare", _CLONE_NEWPID)
        try:
            self._namespaces_are_new = False
            pid = os.fork()
            if pid == 0:
                os.close(self._keep_open)
                decoded = self._decode_plan(plan)
                self._child.become_init(decoded, descriptors, self._around, self._alive, self._main, self._pack)
        finally:
            call("setns", self._own_pid_namespace, _CLONE_NEWPID)
        return pid


def _environment_is_empty() -> bool:
    """Whether the environment that this process was started with, and that its children show in /proc, is empty."""
    with open("/proc/self/environ", "rb") as file:
        return not file.read().strip(b"\0")


def _make_output_streams() -> None:
    """Streams that write line by line over whatever stands at descriptors 1 and 2: what a plugin prints is its log.

    Made once, for all children, over a pipe: a stream that is made over a file believes that it can seek.
    """
    read_end, write_end = os.pipe()
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        kept = os.dup(descriptor)
        os.dup2(write_end, descriptor)
        stream = open(descriptor, "w", 1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
        os.dup2(kept, descriptor)
        os.close(kept)
    os.close(read_end)
    os.close(write_end)


def _find_cardcage(home: str) -> None:
    """Make this very package importable; its finder is a part of it, and so cannot be used yet."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("cardcage", f"{home}/__init__.py", submodule_search_locations=[home])
    assert spec is not None
    assert spec.loader is not None
    sys.modules["cardcage"] = module = module_from_spec(spec)
    spec.loader.exec_module(module)


if __name__ == "__main__":
    _find_cardcage(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    serve(int(sys.argv[1]))
