"""What hostile code tries, one function each. Runs inside the walls and, as a control, without them.

Every attempt runs in a process of its own, so that one that succeeds or dies spoils nothing for the next. The answer is
what it returned, the name of the error that stopped it, or the signal that ended it.
"""

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import stat
import struct
import sys
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_X86_64 = os.uname().machine == "x86_64"

Probe = Callable[..., Any]
PROBES: dict[str, Probe] = {}


def probe(function: Probe) -> Probe:
    PROBES[function.__name__] = function
    return function


def main(sock: socket.socket) -> None:
    """Answer orders, one JSON object a line: `{"probe": name, "arguments": [...]}`."""
    global _parent_of_plugin
    _parent_of_plugin = os.getppid()
    with sock.makefile("rw", encoding="utf-8") as wire:
        for line in wire:
            order = json.loads(line)
            ending = ENDINGS.get(order["probe"])
            answer = attempt(order["probe"], order["arguments"]) if ending is None else {"value": "on its way"}
            wire.write(json.dumps(answer) + "\n")
            wire.flush()
            if ending is not None:
                ending()


def attempt(name: str, arguments: list[Any]) -> dict[str, Any]:
    """Run one probe in a child and tell what came of it."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        try:
            answer: dict[str, Any] = {"value": PROBES[name](*arguments)}
        except OSError as error:
            answer = {"error": errno.errorcode.get(error.errno or 0, type(error).__name__)}
        except BaseException as error:
            answer = {"error": type(error).__name__}
        os.write(write_end, json.dumps(answer).encode())
        os._exit(0)
    os.close(write_end)
    told = b""
    while part := os.read(read_end, 65536):
        told += part
    os.close(read_end)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return {"signal": signal.Signals(os.WTERMSIG(status)).name}
    return json.loads(told)


# files ----------------------------------------------------------------------------------------------------------------


@probe
def read_file(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read(4096)


@probe
def list_folder(path: str) -> list[str]:
    return sorted(os.listdir(path))


@probe
def write_file(path: str, text: str = "x") -> str:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return "written"


@probe
def open_to_write(path: str) -> str:
    """Open without creating or truncating: enough to show that it could be written, and harmless where it could."""
    os.close(os.open(path, os.O_WRONLY))
    return "opened"


@probe
def link_into_data(source: str, target: str) -> str:
    os.link(source, target)
    os.unlink(target)
    return "linked"


@probe
def make_link(target: str, link: str) -> str:
    os.symlink(target, link)
    return "made"


@probe
def move(source: str, target: str) -> str:
    os.rename(source, target)
    return "moved"


@probe
def fill(path: str, size: int) -> str:
    block = bytes(1 << 20)
    try:
        with open(path, "wb") as file:
            file.writelines(block for _ in range(size >> 20))
    finally:
        os.unlink(path)
    return "filled"


@probe
def make_setuid_file(path: str) -> str:
    with open(path, "w", encoding="utf-8"):
        pass
    try:
        os.chmod(path, 0o4755)
        return oct(os.stat(path).st_mode & 0o7777)
    finally:
        os.unlink(path)


@probe
def make_device(path: str) -> str:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 1))
    os.unlink(path)
    return "made"


@probe
def look_at(path: str) -> int:
    return os.stat(path).st_size


@probe
def change_mode(path: str) -> str:
    os.chmod(path, os.stat(path).st_mode & 0o777)
    return "changed"


@probe
def change_times(path: str) -> str:
    found = os.stat(path)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    return "changed"


@probe
def cut_short(path: str) -> str:
    os.truncate(path, os.stat(path).st_size)
    return "cut"


@probe
def read_through_link(target: str, link: str) -> str:
    os.symlink(target, link)
    try:
        return read_file(link)
    finally:
        os.unlink(link)


@probe
def watch(path: str) -> str:
    """inotify, which tells what happens to files without opening them."""
    watcher = _libc.inotify_init1(0)
    if watcher == -1 or _libc.inotify_add_watch(watcher, path.encode(), 0x100) == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return "watching"


# who and what it can see ----------------------------------------------------------------------------------------------


@probe
def own_environment() -> str:
    return json.dumps(dict(os.environ))


@probe
def processes() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


@probe
def signal_process(pid: int) -> str:
    os.kill(pid, 0)
    return "reached"


@probe
def signal_parent() -> str:
    """Whoever stands above the plugin: the parent of this attempt's parent."""
    os.kill(_parent_of_plugin, 0)
    return "reached"


_parent_of_plugin = 0


@probe
def limit_process(pid: int) -> str:
    limits = resource.prlimit(pid, resource.RLIMIT_CORE)
    resource.prlimit(pid, resource.RLIMIT_CORE, limits)
    return "limited"


@probe
def renice(pid: int) -> str:
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid))
    return "changed"


@probe
def pin(pid: int) -> str:
    os.sched_setaffinity(pid, os.sched_getaffinity(pid))
    return "changed"


@probe
def daemonise() -> int:
    """A process that has left its parent and its session, and waits for the end of the machine."""
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.setsid()
        try:
            _libc.prctl(1, 0, 0, 0, 0)
            if os.fork() == 0:
                os.write(write_end, str(os.getpid()).encode())
                os.closerange(3, 256)  # the pipe of this attempt among them; what is printed goes on being held
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.pause()
        finally:
            os._exit(0)
    return int(os.read(read_end, 32))


@probe
def hop() -> str:
    """A process that is never there when it is looked for: it goes on in a child and ends, for at most a minute."""
    import time

    until_s = time.monotonic() + 60
    if os.fork() == 0:
        os.setsid()
        os.closerange(3, 256)
        while time.monotonic() < until_s:
            try:
                if os.fork():
                    os._exit(0)
            except OSError:
                continue
        os._exit(0)
    return "hopping"


@probe
def own_descriptors() -> list[int]:
    """Those that stay open in the probe's parent, which is the plugin: the pipe of this attempt comes on top."""
    held: list[int] = []
    for number in range(3, 512):
        try:
            os.fstat(number)
        except OSError:
            continue
        held.append(number)
    return held


@probe
def identity() -> dict[str, Any]:
    return {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "host": os.uname().nodename}


@probe
def become_root() -> str:
    os.setuid(0)
    return "root"


@probe
def capabilities() -> str:
    with open("/proc/self/status", encoding="ascii") as file:
        return " ".join(line.split()[1] for line in file if line.startswith("Cap"))


# network --------------------------------------------------------------------------------------------------------------


@probe
def connect_tcp(family: int, host: str, port: int) -> str:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(3)
        sock.connect((host, port))
    return "connected"


@probe
def send_udp(family: int, host: str, port: int) -> str:
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"leak", (host, port))
    return "sent"


@probe
def fast_open(host: str, port: int) -> str:
    with socket.socket() as sock:
        sock.sendto(b"leak", 0x20000000, (host, port))
    return "sent"


@probe
def fast_open_option(host: str, port: int) -> str:
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, 30, 1)
        sock.settimeout(3)
        sock.connect((host, port))
    return "connected"


@probe
def connect_unix(address: str) -> str:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
    return "connected"


@probe
def listen_tcp(port: int = 0) -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", port))
        sock.listen()
    return "listening"


@probe
def listen_unbound() -> str:
    """Listening without a bind takes any port."""
    with socket.socket() as sock:
        sock.listen()
    return "listening"


@probe
def send_from_pair(path: str, kind: int = socket.SOCK_DGRAM) -> str:
    """One end of a pair of datagram sockets may send to any other."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    with ours, theirs:
        ours.sendto(b"leak", path)
    return "sent"


@probe
def open_socket(family: int, kind: int, protocol: int = 0) -> str:
    socket.socket(family, kind, protocol).close()
    return "opened"


@probe
def resolve(name: str) -> str:
    return str(socket.getaddrinfo(name, 80))


@probe
def namespaces() -> dict[str, str]:
    return {name: os.readlink(f"/proc/self/ns/{name}") for name in sorted(os.listdir("/proc/self/ns"))}


# system calls ---------------------------------------------------------------------------------------------------------


@probe
def system_call(number: int, *arguments: int) -> int:
    """The raw call; its error is the answer."""
    _libc.syscall.restype = ctypes.c_long
    result = _libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return int(result)


@probe
def system_calls(numbers: list[int]) -> dict[int, str]:
    """What comes of each call with arguments that no call can do anything with: no address, no descriptor, no flags."""
    _libc.syscall.restype = ctypes.c_long
    nothing = [ctypes.c_long(-1)] * 6
    answers: dict[int, str] = {}
    for number in numbers:
        result = _libc.syscall(ctypes.c_long(number), *nothing)
        answers[number] = errno.errorcode[ctypes.get_errno()] if result == -1 else "done"
    return answers


@probe
def attach_socket_filter() -> str:
    """A program of one instruction, which keeps every packet, as any user may attach to its own socket."""
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0xFFFFFFFF))
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, 26, struct.pack("HxxxxxxQ", 1, ctypes.addressof(program)))
    return "attached"


@probe
def ask_a_device() -> int:
    """RNDGETENTCNT, which anybody may ask of the random device."""
    import fcntl

    with open("/dev/urandom", "rb") as device:
        return struct.unpack("i", fcntl.ioctl(device, 0x80045200, bytes(4)))[0]


@probe
def ordinary_requests() -> str:
    """What ordinary programs ask of descriptors: none of it may be refused."""
    import fcntl
    import termios

    with socket.socket() as sock, open("/dev/null", "rb") as null:
        sock.setblocking(False)
        sock.set_inheritable(True)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        fcntl.ioctl(sock, termios.FIONREAD, bytes(4))
        fcntl.fcntl(sock, fcntl.F_GETFL)
        return str(null.isatty())


@probe
def call_i386() -> int:
    """getpid by the 32-bit gate; machine code, because no library offers it."""
    return _run_code(bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3]))  # mov eax, 20; int 0x80; ret


@probe
def call_x32() -> int:
    return system_call(0x40000000 | 39)


def _run_code(code: bytes) -> int:
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())


@probe
def run_program(path: str) -> str:
    child = os.posix_spawn(path, [path], {})
    os.waitpid(child, 0)
    return "ran"


@probe
def read_parents_memory(pid: int) -> str:
    with open(f"/proc/{pid}/mem", "rb") as file:
        file.seek(0x400000)
        file.read(1)
    return "read"


@probe
def trace(pid: int) -> str:
    _libc.ptrace.restype = ctypes.c_long
    if _libc.ptrace(16, pid, 0, 0) == -1:  # PTRACE_ATTACH
        raise OSError(ctypes.get_errno(), "refused")
    _libc.ptrace(17, pid, 0, 0)
    return "traced"


@probe
def read_memory_of(pid: int) -> str:
    """process_vm_readv of one byte at an address that need not exist: what counts is who says no."""
    buffer = ctypes.create_string_buffer(1)
    local = struct.pack("QQ", ctypes.addressof(buffer), 1)
    remote = struct.pack("QQ", 0x1000, 1)
    if _libc.process_vm_readv(pid, local, 1, remote, 1, 0) == -1:
        raise OSError(ctypes.get_errno(), "refused")
    return "read"


def _spin() -> None:
    while True:
        pass


ENDINGS: dict[str, Callable[[], object]] = {"call_x32_here": call_x32, "spin_here": _spin}
"""What ends the plugin itself, done after the answer and not in a child."""


# limits ---------------------------------------------------------------------------------------------------------------


@probe
def fork_bomb() -> str:
    children: list[int] = []
    try:
        while len(children) < 1000:
            child = os.fork()
            if child == 0:
                signal.pause()
            children.append(child)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    return "forked"


@probe
def flood_with_connections(host: str, port: int, threads: int, for_s: float) -> int:
    """How many connections were tried, by many threads, one after the other as fast as they can."""
    import threading
    import time

    tried = [0] * threads
    until_s = time.monotonic() + for_s

    def flood(number: int) -> None:
        while time.monotonic() < until_s:
            with socket.socket() as sock:
                sock.connect_ex((host, port))
            tried[number] += 1

    running = [threading.Thread(target=flood, args=(number,)) for number in range(threads)]
    for one in running:
        one.start()
    for one in running:
        one.join()
    return sum(tried)


@probe
def grow(size: int) -> int:
    return len(bytearray(size))


@probe
def module_files() -> list[str]:
    """Where the standard library and the wire's own packages come from."""
    return [str(sys.modules[name].__file__) for name in ("os", "json", "msgspec") if name in sys.modules]
