"""How fast the processor's time stamp counter counts: three machine instructions, timed against the system's clock.

An emulated guest reads this very counter, and has nothing good to time it by: left to itself it finds out by an
emulated timer, and where the host is busy it finds nothing and hangs. A script of its own, run apart from the host,
because it makes memory executable: `python clock_probe.py` prints the rate in kHz, on x86-64 alone.
"""

import ctypes
import mmap
import sys
import time

_READ_COUNTER = bytes.fromhex("0f31 48c1e220 4809d0 c3")
"""rdtsc; shl rdx, 32; or rax, rdx; ret"""

_WINDOW_S = 0.02
_WINDOWS = 3


def measure() -> int:
    """The rate in kHz: the middle one of three measurements."""
    code = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_READ_COUNTER)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    rates: list[int] = []
    for _ in range(_WINDOWS):
        began_ns, began = time.monotonic_ns(), read()
        time.sleep(_WINDOW_S)
        ended, ended_ns = read(), time.monotonic_ns()
        rates.append((ended - began) * 1_000_000 // (ended_ns - began_ns))
    return sorted(rates)[_WINDOWS // 2]


if __name__ == "__main__":
    print(measure())
    sys.exit(0)
