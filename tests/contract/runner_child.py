"""What the processes of the runner contract run: says hello, then does what it is told, one word a line."""

import os
import signal
import socket
import sys
import time


def main(sock: socket.socket) -> None:
    sock.sendall(b"hello\n")
    with sock.makefile("r", encoding="utf-8") as lines:
        for line in lines:
            word, _, rest = line.strip().partition(" ")
            answer = _DO[word](rest)
            sock.sendall(f"{answer}\n".encode())


def _echo(text: str) -> str:
    return text


def _leave(status: str) -> str:
    sys.exit(int(status))


def _fail(text: str) -> str:
    raise RuntimeError(text)


def _say(text: str) -> str:
    print(text)
    print(text.upper(), file=sys.stderr)
    return "said"


def _signal(name: str) -> str:
    os.kill(os.getpid(), signal.Signals[name])
    time.sleep(60)
    return "survived"


def _fault(_: str) -> str:
    import ctypes

    ctypes.string_at(0)
    return "survived"


def _descriptors(_: str) -> str:
    held: list[int] = []
    for number in range(1024):
        try:
            os.fstat(number)
        except OSError:
            continue
        held.append(number)
    return " ".join(map(str, held))


def _environment(_: str) -> str:
    return repr(dict(os.environ))


def _daemonise(_: str) -> str:
    """Leave a process behind that holds the wire open: the host sees its end only when that one is gone too."""
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    return "left one behind"


def _imports(name: str) -> str:
    try:
        __import__(name)
    except ImportError as error:
        return f"{type(error).__name__}"
    return "imported"


_DO = {
    "echo": _echo,
    "leave": _leave,
    "fail": _fail,
    "say": _say,
    "signal": _signal,
    "fault": _fault,
    "descriptors": _descriptors,
    "environment": _environment,
    "daemonise": _daemonise,
    "imports": _imports,
}
