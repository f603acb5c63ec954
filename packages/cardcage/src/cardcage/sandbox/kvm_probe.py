"""Whether KVM runs anything: a virtual machine of one page, with one instruction in it, that must halt.

A script of its own, run apart from the host: `python kvm_probe.py` leaves with 0 where it worked. Constants and layouts
are those of `linux/kvm.h`.
"""

import ctypes
import fcntl
import mmap
import os
import platform
import struct
import sys

_API_VERSION, _CREATE_VM, _MMAP_SIZE, _CREATE_VCPU, _RUN = 0xAE00, 0xAE01, 0xAE04, 0xAE41, 0xAE80
_SET_USER_MEMORY_REGION = 0x4020AE46
_SET_REGS, _GET_SREGS, _SET_SREGS = 0x4090AE82, 0x8138AE83, 0x4138AE84
_REGS_BYTES, _SREGS_BYTES = 144, 312
_RIP_OFFSET = 16 * 8
_EXIT_REASON_OFFSET, _EXIT_HALT = 8, 5
_CODE_ADDRESS = 0x1000
_HALT = 0xF4


def probe() -> str:
    """What went wrong, or nothing. Raises `OSError` where a step is refused."""
    device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    if fcntl.ioctl(device, _API_VERSION, 0) != 12:
        return "it speaks another version"
    machine = fcntl.ioctl(device, _CREATE_VM, 0)
    processor = fcntl.ioctl(machine, _CREATE_VCPU, 0)
    if platform.machine() != "x86_64":
        return ""  # that it can be made is all that is tried elsewhere
    memory = mmap.mmap(-1, mmap.PAGESIZE)
    memory[0] = _HALT
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    region = struct.pack("IIQQQ", 0, 0, _CODE_ADDRESS, mmap.PAGESIZE, address)
    fcntl.ioctl(machine, _SET_USER_MEMORY_REGION, region)
    segments = bytearray(_SREGS_BYTES)
    fcntl.ioctl(processor, _GET_SREGS, segments)
    struct.pack_into("QIH", segments, 0, 0, 0xFFFF, 0)  # the code segment begins at 0
    fcntl.ioctl(processor, _SET_SREGS, bytes(segments))
    registers = bytearray(_REGS_BYTES)
    struct.pack_into("QQ", registers, _RIP_OFFSET, _CODE_ADDRESS, 2)
    fcntl.ioctl(processor, _SET_REGS, bytes(registers))
    shared = mmap.mmap(processor, fcntl.ioctl(device, _MMAP_SIZE, 0))
    fcntl.ioctl(processor, _RUN, 0)
    reason = struct.unpack_from("I", shared, _EXIT_REASON_OFFSET)[0]
    return "" if reason == _EXIT_HALT else f"an instruction ended for reason {reason}"


if __name__ == "__main__":
    try:
        told = probe()
    except OSError as error:
        told = str(error.strerror)
    sys.exit(told or 0)
