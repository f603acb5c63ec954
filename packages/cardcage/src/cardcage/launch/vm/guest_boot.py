"""The first program of a guest: from the kernel's first file tree to the system image. Runs as a script in the guest.

It has the interpreter, ctypes and the kernel's modules, and no more: whatever else is imported comes from the image. It
loads the modules that the image and the ports need, makes the image the root, and goes on in `guest`.
"""

import ctypes
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

MODULES_DIR = "/modules"
SYSTEM_DIR = "/system"
DEVICE_PATIENCE_S = 10.0

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_MOVE = 1, 2, 4, 8, 8192
_FINIT_MODULE = {"x86_64": 313, "aarch64": 273}
_RESTART = 0x01234567
_COMPRESSED = 4
"""The kernel unpacks the module itself (MODULE_INIT_COMPRESSED_FILE)."""

_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """`mount(2)`, making the target where it is missing."""
    if not os.path.isdir(target):
        os.makedirs(target)
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), f"mount {source} at {target}")


def mount_kernel_trees() -> None:
    """What every program expects of a Linux system."""
    quiet = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
    mount("proc", "/proc", "proc", quiet)
    mount("sysfs", "/sys", "sysfs", quiet)
    mount("devtmpfs", "/dev", "devtmpfs", _MS_NOSUID | _MS_NOEXEC)


def load_modules() -> None:
    """Load the modules of the first file tree in the order of their names, which the host chose."""
    call = _FINIT_MODULE[os.uname().machine]
    for name in sorted(os.listdir(MODULES_DIR)):
        file = os.open(f"{MODULES_DIR}/{name}", os.O_RDONLY | os.O_CLOEXEC)
        flags = 0 if name.endswith(".ko") else _COMPRESSED
        if _libc.syscall(call, file, b"", flags) != 0 and ctypes.get_errno() != 17:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), name)
        os.close(file)


def disk(serial: str) -> str:
    """The device of the disk that the host calls `serial`."""
    return f"/dev/{_wait_for(serial, '/sys/block', 'serial')}"


def port(name: str) -> str:
    """The device of the port that the host calls `name`."""
    return f"/dev/{_wait_for(name, '/sys/class/virtio-ports', 'name')}"


def _wait_for(value: str, folder: str, attribute: str) -> str:
    """The entry of `folder` whose attribute is `value`; devices come up on their own time."""
    deadline = time.monotonic() + DEVICE_PATIENCE_S
    while time.monotonic() < deadline:
        for name, found in _attributes(folder, attribute):
            if found == value:
                return name
        time.sleep(0.002)
    raise FileNotFoundError(2, f"no device called {value} came up", folder)


def _attributes(folder: str, attribute: str) -> "Iterator[tuple[str, str]]":
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        try:
            with open(f"{folder}/{name}/{attribute}", "rb", buffering=0) as file:
                yield name, file.read(64).strip(b"\0\n ").decode("ascii", "replace")
        except OSError:
            continue


def enter_system() -> None:
    """Make the system image the root: what is mounted comes along, and the first file tree is out of sight."""
    mount(disk("system"), SYSTEM_DIR, "erofs", _MS_RDONLY | _MS_NODEV)
    for folder in ("/proc", "/sys", "/dev"):
        mount(folder, SYSTEM_DIR + folder, "", _MS_MOVE)
    os.chdir(SYSTEM_DIR)
    mount(".", "/", "", _MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def wipe_environment() -> None:
    """Empty the environment that the kernel gave, so that nothing that comes of this process shows one in /proc."""
    strings = ctypes.POINTER(ctypes.c_char_p).in_dll(_libc, "environ")
    index = 0
    while strings and strings[index]:
        address = ctypes.cast(ctypes.pointer(strings), ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0][index]
        ctypes.memset(address, 0, len(strings[index]))
        index += 1
    os.environ.clear()


def stop() -> "NoReturn":
    """Stop the machine, with everything on its disk."""
    _libc.umount2(b"/data", 0)
    _libc.sync()
    _libc.reboot(_RESTART)  # QEMU was told to end at a restart
    os._exit(1)


def _main() -> "NoReturn":
    try:
        mount_kernel_trees()
        wipe_environment()
        load_modules()
        enter_system()
        sys.path[:0] = ["/cardcage/host", "/cardcage/lib"]
        sys.path_importer_cache.clear()  # what it knows of the folders is of the first file tree
        from cardcage.launch.vm import guest

        guest.run()
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        stop()


if __name__ == "__main__":
    _main()
