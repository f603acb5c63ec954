"""Takes all it can get of processes, memory, descriptors, disk and time. Each attempt is bounded: it stops by itself a
little above what was allowed, and gives back what it took."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import socket
import threading
import time


class ResourceHog:
    """Every method is one attempt; each answers with how much it got."""

    def fork(self, most: int) -> int:
        children: list[int] = []
        try:
            while len(children) < most:
                child = os.fork()
                if child == 0:
                    signal.pause()
                children.append(child)
        finally:
            for child in children:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
        return len(children)

    def fork_in_generations(self, most: int) -> int:
        """Each child makes the next: no parent holds a list of them."""
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            for _ in range(most):
                try:
                    if os.fork():
                        signal.pause()
                except OSError as error:
                    os.write(write_end, bytes([error.errno or 255]))
                    signal.pause()
            os.write(write_end, b"\0")
            signal.pause()
        code = os.read(read_end, 1)[0]
        self._end_children(child)
        os.close(read_end)
        os.close(write_end)
        if code:
            raise OSError(code, os.strerror(code))
        return most

    def _end_children(self, child: int) -> None:
        for name in filter(str.isdigit, os.listdir("/proc")):
            if int(name) not in (1, os.getpid()):
                try:
                    os.kill(int(name), signal.SIGKILL)
                except OSError:
                    continue
        os.waitpid(child, 0)

    def threads(self, most: int) -> int:
        ending = threading.Event()
        held: list[threading.Thread] = []
        try:
            while len(held) < most:
                thread = threading.Thread(target=ending.wait, daemon=True)
                thread.start()
                held.append(thread)
        finally:
            ending.set()
            for thread in held:
                thread.join()
        return len(held)

    def memory(self, mebibytes: int) -> int:
        return len(bytearray(mebibytes << 20))

    def shared_memory(self, mebibytes: int) -> int:
        """Shared pages, which some limits do not count."""
        with mmap.mmap(-1, mebibytes << 20) as pages:
            for at in range(0, len(pages), mmap.PAGESIZE):
                pages[at] = 1
            return len(pages)

    def memory_in_files(self, mebibytes: int) -> int:
        """Files that are in no file system, each too small for the limit of one file."""
        held: list[int] = []
        try:
            for number in range(mebibytes):
                if number % 4 == 0:
                    held.append(os.memfd_create("hoard"))
                os.write(held[-1], bytes(1 << 20))
        finally:
            for descriptor in held:
                os.close(descriptor)
        return mebibytes

    def stacks(self, mebibytes: int) -> str:
        """Recursion in C: the stack grows until something says no."""
        libc = ctypes.CDLL(None, use_errno=True)
        libc.mmap.restype = ctypes.c_void_p
        got = libc.mmap(None, ctypes.c_size_t(mebibytes << 20), 3, 0x20022 | 0x8000, -1, 0)
        if got == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return "taken"

    def lock_memory(self) -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        with mmap.mmap(-1, 4 << 20) as pages:
            address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
            if libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t(4 << 20)):
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return "locked"

    def descriptors(self, most: int) -> int:
        held: list[int] = []
        try:
            while len(held) < most:
                held.append(os.open("/dev/null", os.O_RDONLY))
        finally:
            for descriptor in held:
                os.close(descriptor)
        return len(held)

    def descriptors_in_flight(self, most: int) -> int:
        """Descriptors that are on their way through a socket count for nobody but their sender's uid."""
        held: list[tuple[socket.socket, socket.socket]] = []
        sent = 0
        try:
            while sent < most:
                pair = socket.socketpair()
                held.append(pair)
                for _ in range(10):
                    socket.send_fds(pair[0], [b"x"], [0] * 100)
                    sent += 100
        finally:
            for pair in held:
                pair[0].close()
                pair[1].close()
        return sent

    def fill(self, path: str, mebibytes: int) -> int:
        try:
            with open(path, "wb", buffering=0) as file:
                file.writelines(bytes(1 << 20) for _ in range(mebibytes))
        finally:
            os.unlink(path)
        return mebibytes

    def many_files(self, folder: str, most: int) -> int:
        made: list[str] = []
        try:
            while len(made) < most:
                path = f"{folder}/{len(made)}"
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
                made.append(path)
        finally:
            for path in made:
                os.unlink(path)
        return len(made)

    def spin(self, seconds: float) -> float:
        """All of one core, and no ear for anybody."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pass
        return time.process_time()

    def message_queue(self, number: int) -> str:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(number, b"hoard", os.O_CREAT | os.O_RDWR, 0o600, None) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return "a queue"
