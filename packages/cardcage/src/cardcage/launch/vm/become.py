"""The last step before QEMU: runs in a walled child of a fork server, takes what it is handed, and becomes QEMU.

It is called as a plugin's main function would be, behind the walls that the plan puts around QEMU. Over its socket come
the arguments and the descriptors that QEMU finds by number. Standard library alone.
"""

import fcntl
import json
import os
import socket

FIRST_DESCRIPTOR = 10
"""The number of the first descriptor handed over; the others follow it in order."""

DESCRIPTORS_MAX = 16
_ASIDE = FIRST_DESCRIPTOR + DESCRIPTORS_MAX
ORDER_BYTES_MAX = 64 * 1024


def hypervisor(sock: socket.socket) -> None:
    """Become QEMU. Returns only where nobody sent an order."""
    packet, descriptors, _, _ = socket.recv_fds(sock, ORDER_BYTES_MAX, DESCRIPTORS_MAX)
    if not packet:
        return
    arguments = json.loads(packet)
    # Out of the way first, so that no source is overwritten before it is copied.
    aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _ASIDE) for descriptor in descriptors]
    for place, descriptor in enumerate(aside, FIRST_DESCRIPTOR):
        os.dup2(descriptor, place, inheritable=True)
    sock.close()
    os.execve(arguments[0], arguments, {})  # noqa: S606 -- no shell is meant to come in between
