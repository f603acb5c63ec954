"""Asks the kernel for what a plugin has no use for, by number, past every library."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import threading

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

GETPID_I386 = bytes([0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3])  # mov eax, 20; int 0x80; ret


class FoundNothing(Exception):
    """It looked everywhere, and there was nothing to use."""


class KernelProber:
    """Every method is one attempt. One that ends the process is no answer at all."""

    def call(self, number: int, *arguments: int) -> int:
        result = int(_libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments)))
        if result == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def call_in_thread(self, number: int, *arguments: int) -> int:
        """From another thread: a filter that was put on one alone would let it through."""
        found: list[int | OSError] = []

        def run() -> None:
            try:
                found.append(self.call(number, *arguments))
            except OSError as error:
                found.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if isinstance(found[0], OSError):
            raise found[0]
        return found[0]

    def call_in_child(self, number: int, *arguments: int) -> int:
        """From a child: what does not survive a fork is no wall."""
        child = os.fork()
        if child == 0:
            code = 0
            try:
                self.call(number, *arguments)
            except OSError as error:
                code = error.errno or 255
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        if code := os.waitstatus_to_exitcode(status):
            raise OSError(code, os.strerror(code))
        return 0

    def call_with_high_bits(self, number: int, argument: int) -> int:
        """An argument whose upper half is not empty: a filter that compares it as a whole is deceived."""
        return self.call(number, argument | (1 << 32), 0, 0, 0, 0)

    def call_32_bit(self) -> int:
        """getpid by the 32-bit gate, where numbers mean other calls. Machine code: no library offers it."""
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(GETPID_I386)
        address = ctypes.addressof(ctypes.c_char.from_buffer(page))
        return int(ctypes.CFUNCTYPE(ctypes.c_int)(address)())

    def type_into_terminal(self, request: int) -> str:
        fcntl.ioctl(0, request, b"x")
        return "typed"

    def remove_filter(self) -> str:
        """Another filter that allows everything: filters add up, so this must change nothing."""
        if _libc.prctl(22, 2, 0, 0, 0) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return "the filter can be replaced"

    def find_key_rings(self) -> str:
        with open("/proc/keys", encoding="ascii") as file:
            if content := file.read():
                return content[:200]
        raise FoundNothing("no key is shown")

    def read_kernel_log(self) -> str:
        with open("/dev/kmsg", "rb", buffering=0) as file:
            return file.read(100).decode(errors="replace")

    def find_kernel_addresses(self) -> str:
        """Where the kernel stands in memory: the first thing that an exploit needs."""
        with open("/proc/kallsyms", encoding="ascii") as file:
            for line in file:
                if int(line.split()[0], 16):
                    return line.strip()
        raise FoundNothing("no address is told")

    def hostname(self, own: str) -> str:
        name = os.uname().nodename
        if name == own:
            raise FoundNothing("only the name it was given")
        return name
