"""The guest's init: sets the machine up as it is told, starts the fork server, and carries bytes until the plugin ends.

It is the guest's only process of root's that stays. The plugin runs behind the same walls as on the host, put up by the
same fork server, in namespaces and under control groups of the guest's own kernel. What is told to the host, over the
port `control`, is MessagePack after a length of four bytes. Standard library and msgspec alone.
"""

import fcntl
import os
import select
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from ssl import SSLContext
    from typing import Any, NoReturn

    from cardcage.launch.vm.streams import Streams

PORTS = ("control", "wire", "stdout", "stderr", "egress")
MESSAGE_BYTES_MAX = 1024 * 1024
PACKAGE_DIR, DATA_DIR = "/plugin", "/data"
GROUP_DIR = "/sys/fs/cgroup/plugin"
CPU_PERIOD_US = 100_000
PLUGIN_UID = 1000

TRUST_AT = "/dev/cardcage-trust.pem"
"""Where the guest keeps the certificates that its plugin trusts: of its own folders only `/dev` can be written to."""

_LISTENERS_MAX = 256
"""The listeners that may come with a report."""

_PATIENCE_S = 3.0
"""How long the host may take to read a dead plugin's last words."""

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOATIME = 1, 2, 4, 8, 1024
_RNDADDENTROPY = 0x40085203
_NUMBER = (1).to_bytes(8, "big")


def run() -> "NoReturn":
    """Be the guest's init until the plugin has ended. Never returns: the machine stops."""
    from cardcage.launch.vm.guest_boot import port, stop

    ports = {name: os.open(port(name), os.O_RDWR | os.O_CLOEXEC) for name in PORTS}
    control = Control(ports["control"])
    try:
        set_up()
        guest = Guest(control, ports)
        guest.start_fork_server(control.receive())
        guest.run(control.receive())
    except BaseException as error:
        control.tell("broken", f"{type(error).__name__}: {error}")
        raise
    finally:
        stop()


class Control:
    """Messages with the host, one at a time and in full."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def receive(self) -> "dict[str, Any]":
        """The next message; waits for it."""
        import msgspec

        length = int.from_bytes(self._exactly(4), "big")
        if length > MESSAGE_BYTES_MAX:
            raise ValueError(f"the host sent a message of {length} bytes")
        return msgspec.msgpack.decode(self._exactly(length))

    def _exactly(self, count: int) -> bytes:
        """Exactly so many bytes: what comes after them may be meant for after the fork."""
        data = b""
        while len(data) < count:
            data += os.read(self.descriptor, count - len(data))
        return data

    def tell(self, *message: object) -> None:
        """Send a message and wait until the host's side has taken it."""
        import msgspec

        packed = msgspec.msgpack.encode(message)
        os.set_blocking(self.descriptor, True)
        data = len(packed).to_bytes(4, "big") + packed
        while data:
            data = data[os.write(self.descriptor, data) :]


def set_up() -> None:
    """Disks and the control group: what the fork server and the plugin will find."""
    from cardcage.launch.vm.guest_boot import disk, mount

    quiet = _MS_NOSUID | _MS_NODEV
    mount(disk("package"), PACKAGE_DIR, "erofs", _MS_RDONLY | quiet)
    mount(disk("data"), DATA_DIR, "ext4", quiet | _MS_NOATIME, "commit=1")
    if os.path.isdir(f"{DATA_DIR}/lost+found"):
        os.rmdir(f"{DATA_DIR}/lost+found")
    if os.stat(DATA_DIR).st_uid != PLUGIN_UID:
        os.chmod(DATA_DIR, 0o700)
        os.chown(DATA_DIR, PLUGIN_UID, PLUGIN_UID)
    mount("cgroup2", "/sys/fs/cgroup", "cgroup2", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC)
    _write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids +cpu")
    os.mkdir(GROUP_DIR)


def add_entropy(seed: bytes) -> None:
    """Give the kernel the host's random bytes, and have it count them as such."""
    import struct

    with open("/dev/urandom", "wb", buffering=0) as device:
        fcntl.ioctl(device, _RNDADDENTROPY, struct.pack("ii", len(seed) * 8, len(seed)) + seed)


def limit_group(limits: "Mapping[str, int]") -> None:
    """Bound the plugin's group: by what the host reckoned for it, on top of what the fork server in it uses."""
    for resource, file in (("memory", "memory"), ("processes", "pids")):
        if resource in limits:
            with open(f"{GROUP_DIR}/{file}.current", encoding="ascii") as current:
                _write(f"{GROUP_DIR}/{file}.max", str(int(current.read()) + limits[resource]))
    if "cpu_us" in limits:
        _write(f"{GROUP_DIR}/cpu.max", f"{limits['cpu_us']} {CPU_PERIOD_US}")


def _write(path: str, text: str) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(text.encode())


def _events(name: str) -> "dict[str, int]":
    with open(f"{GROUP_DIR}/{name}", encoding="ascii") as file:
        return {word: int(count) for word, count in (line.split() for line in file)}


class Guest:
    """One plugin's process in this machine, from the fork server's start to the plugin's end."""

    def __init__(self, control: Control, ports: "Mapping[str, int]") -> None:
        self._control = control
        self._ports = ports
        self._status: int | None = None
        self._gone = False
        self._streams: Streams | None = None
        self._server, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def start_fork_server(self, order: "Mapping[str, Any]") -> None:
        """Start the fork server and wait until it can fork. Nothing that is secret has come from the host by then.

        What this process holds, the fork server holds, and each plugin: so it imports no more than it must before.
        """
        self._server.send(order["fork_server"])
        start_fork_server(self._theirs)
        if not self._server.recv(MESSAGE_BYTES_MAX):
            raise RuntimeError("the fork server ended before it could start anything")
        limit_group(order["limits"])
        _write("/proc/self/oom_score_adj", "-1000")

    def run(self, orders: "Mapping[str, Any]") -> None:
        """Start the plugin and carry its bytes to the end."""
        # Not before the fork: whatever this process has imported by then, each plugin has in its memory.
        from cardcage.launch.vm.streams import Streams
        from cardcage_sdk.secure import instance_context

        add_entropy(orders["entropy"])
        if orders["trust"]:
            _write(TRUST_AT, orders["trust"])
            os.chmod(TRUST_AT, 0o444)
        plugin, wire = socket.socketpair()
        out, err = os.pipe(), os.pipe()
        report, their_report = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handed = [plugin.fileno(), out[1], err[1], their_report.fileno()]
        socket.send_fds(self._server, [_NUMBER + orders["plan"]], handed)
        for descriptor in (out[1], err[1]):
            os.close(descriptor)
        plugin.close()
        their_report.close()
        self._report = report
        self._outputs = [Output(out[0], self._ports["stdout"]), Output(err[0], self._ports["stderr"])]
        context = instance_context(orders["ca"], orders["own"].encode())
        self._links = [Link(context, wire, self._ports["wire"])]
        if orders["egress"]:
            ours, theirs = socket.socketpair()
            self._links.append(Link(context, theirs, self._ports["egress"]))
            self._streams = Streams(ours)
        while not self._gone:
            self._carry(self._wait())
        self._last_words()
        oom, crowded = _events("memory.events")["oom_kill"] > 0, _events("pids.events")["max"] > 0
        os.sync()  # the host ends the machine as soon as it is told
        self._control.tell("ended", self._status, oom, crowded)

    def _wait(self) -> "dict[int, int]":
        """What has come, and where there is room for what is to go."""
        watch = select.poll()
        for source in (*self._links, *self._outputs, *([self._streams] if self._streams else [])):
            for descriptor, mask in source.wanted().items():
                watch.register(descriptor, mask)
        watch.register(self._server, select.POLLIN)
        if self._report.fileno() >= 0:
            watch.register(self._report, select.POLLIN)
        return dict(watch.poll())

    def _carry(self, ready: "Mapping[int, int]") -> None:
        for link in self._links:
            link.step(ready)
        for output in self._outputs:
            output.turn()
        if self._streams is not None:
            self._streams.step(ready)
        if self._report.fileno() in ready:
            self._hear_report()
        if self._server.fileno() in ready:
            self._hear_server()

    def _hear_report(self) -> None:
        """What the plugin's own init says: its walls, then its end. The host is told at once."""
        import msgspec

        packet, descriptors, _, _ = socket.recv_fds(self._report, MESSAGE_BYTES_MAX, _LISTENERS_MAX)
        if not packet:
            self._report.close()
            return
        message = msgspec.msgpack.decode(packet)
        if message[0] == "ended":
            self._status = message[1]
            return
        for place, descriptor in zip(message[2] if message[0] == "ready" else (), descriptors, strict=True):
            listener = socket.socket(fileno=descriptor)
            if self._streams is not None:
                self._streams.listen(place, listener)
        self._control.tell(*message)

    def _hear_server(self) -> None:
        import msgspec

        packet, descriptors, _, _ = socket.recv_fds(self._server, MESSAGE_BYTES_MAX, 1)
        for descriptor in descriptors:
            os.close(descriptor)
        if not packet:
            raise RuntimeError("the fork server ended")
        _, status, error = msgspec.msgpack.decode(packet)
        if error:
            raise RuntimeError(f"the fork failed: {error}")
        if status is not None:
            while self._report.fileno() >= 0:
                self._hear_report()
            self._status = status if self._status is None else self._status
            self._gone = True

    def _last_words(self) -> None:
        """See what the plugin said last into the host's hands."""
        import time

        wire = self._links[0]
        wire.pump.end_plain()
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            for output in self._outputs:
                output.turn()
            if not wire.pump.finished and not wire.pump.plain_is_passed_on:
                reads = wire.pump.wanted()[0] & select.POLLIN
                wire.pump.step(reads, select.POLLOUT)
            elif all(output.idle for output in self._outputs) and self._ports_are_clear():
                return
            time.sleep(0.001)

    def _ports_are_clear(self) -> bool:
        """Whether the machine has taken all that was given to its ports: one takes more only then."""
        watch = select.poll()
        names = ("wire", "stdout", "stderr")
        for name in names:
            watch.register(self._ports[name], select.POLLOUT)
        return len(watch.poll(0)) == len(names)


class Output:
    """One of the plugin's two streams on its way to the host."""

    def __init__(self, pipe: int, port: int) -> None:
        self._pipe = pipe
        self._port = port
        self._held = b""
        self._open = True
        os.set_blocking(pipe, False)
        os.set_blocking(port, False)

    def wanted(self) -> "dict[int, int]":
        """Descriptor to what to wait for."""
        if self._held:
            return {self._port: select.POLLOUT}
        return {self._pipe: select.POLLIN} if self._open else {}

    @property
    def idle(self) -> bool:
        """Whether all that came has been passed on, and no more will come."""
        return not self._held and not self._open

    def turn(self) -> None:
        """Move what can be moved now."""
        if self._open and not self._held:
            try:
                self._held = os.read(self._pipe, 32 * 1024)
                self._open = bool(self._held)
            except BlockingIOError:
                return
        if self._held:
            try:
                self._held = self._held[os.write(self._port, self._held) :]
            except BlockingIOError:
                return
            except OSError:
                self._held = b""  # nobody listens any more


class Link:
    """An enciphered link to the host: a socket here, a port of the machine there."""

    def __init__(self, context: "SSLContext", plain: socket.socket, port: int) -> None:
        from cardcage_sdk.secure import SecurePump

        self._plain, self._port = plain, port
        self.pump = SecurePump(plain, port, context, server=False)

    def wanted(self) -> "dict[int, int]":
        """Descriptor to what to wait for."""
        if self.pump.finished:
            return {}
        plain, stream = self.pump.wanted()
        return {descriptor: mask for descriptor, mask in ((self._plain.fileno(), plain), (self._port, stream)) if mask}

    def step(self, ready: "Mapping[int, int]") -> None:
        """Move what can be moved. Raises `LinkError`."""
        if self.pump.finished:
            return
        self.pump.step(ready.get(self._plain.fileno(), 0), ready.get(self._port, 0))
        if self.pump.finished:
            self._plain.close()


def start_fork_server(control: socket.socket) -> None:
    """Fork the fork server, in the plugin's control group, with nothing but its control socket."""
    if os.fork() == 0:
        try:
            from cardcage.launch import zygote_main
            from cardcage.sandbox.enter import close_from

            _write(f"{GROUP_DIR}/cgroup.procs", "0")
            os.dup2(control.fileno(), 3)
            close_from(4)
            zygote_main.serve(3)
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            os._exit(1)
    control.close()
