"""What the processes of the virtual machines' tests run: says hello, then does what it is told, one word a line."""

import os
import pathlib
import socket
import sys
import time


def main(sock: socket.socket) -> None:
    sock.sendall(b"hello\n")
    with sock.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            sock.sendall(f"{_DO[word](rest)}\n".encode())


def _leave(status: str) -> str:
    sys.exit(int(status))


def _say(text: str) -> str:
    print(text)
    print(text.upper(), file=sys.stderr)
    return "said"


def _descriptors(_: str) -> str:
    return str(len([number for number in range(1024) if _is_open(number)]))


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _imports(name: str) -> str:
    try:
        __import__(name)
    except ImportError as error:
        return type(error).__name__
    return "imported"


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8").strip() or "nothing"
    except OSError as error:
        return type(error).__name__


def _write(words: str) -> str:
    path, _, text = words.partition(" ")
    try:
        pathlib.Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"
    return "written"


def _fill(path: str) -> str:
    """Write until the disk is full; how many MiB that took."""
    written = 0
    with open(path, "wb", buffering=0) as file:
        try:
            while written < 1000:
                file.write(os.urandom(1024 * 1024))
                os.fsync(file.fileno())
                written += 1
        except OSError as error:
            return f"{error.errno} {written}"
    return f"0 {written}"


def _take(mebibytes: str) -> str:
    taken = [b"x" * 1024 * 1024 for _ in range(int(mebibytes))]
    return str(len(taken))


def _exchange(words: str) -> str:
    """Connect, send, say that no more will come, and tell how much came back."""
    host, port, mebibytes = words.split()
    try:
        with socket.create_connection((host, int(port)), timeout=60) as sock:
            sock.sendall(b"x" * int(mebibytes) * 1024 * 1024)
            sock.shutdown(socket.SHUT_WR)
            received = 0
            while part := sock.recv(65536):
                received += len(part)
            return str(received)
    except OSError as error:
        return type(error).__name__


def _fork(count: str) -> str:
    """Make processes that stay, until there may be no more; how many there are."""
    made = 0
    try:
        while made < int(count):
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            made += 1
    except BlockingIOError:
        pass
    return str(made)


def _who(_: str) -> str:
    return f"{os.getuid()} {os.uname().release} {os.cpu_count()}"


def _environment(_: str) -> str:
    return " ".join(sorted(os.environ))


def _echo(text: str) -> str:
    return text


_DO = {
    "descriptors": _descriptors,
    "echo": _echo,
    "environment": _environment,
    "exchange": _exchange,
    "fill": _fill,
    "fork": _fork,
    "imports": _imports,
    "leave": _leave,
    "read": _read,
    "say": _say,
    "take": _take,
    "who": _who,
    "write": _write,
}
