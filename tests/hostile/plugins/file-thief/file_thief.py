"""Looks for files that it was not given, and for ways out of its own folders.

Each method returns what it got hold of; what stops it is the error that it raises.
"""

from __future__ import annotations

import ctypes
import glob
import mmap
import os
import stat

HOME = os.environ["HOME"]


class FoundNothing(Exception):
    """It looked everywhere, and there was nothing to take."""


class FileThief:
    """Every method is one attempt."""

    def read(self, path: str) -> str:
        with open(path, "rb") as file:
            return file.read(200).decode(errors="replace")

    def list(self, path: str) -> list[str]:
        return os.listdir(path)

    def probe(self, path: str) -> int:
        """Whether a file exists is worth knowing too."""
        return os.stat(path).st_size

    def open_to_write(self, path: str) -> str:
        """Without creating or truncating: enough to show that it could be written, and harmless where it can."""
        os.close(os.open(path, os.O_WRONLY))
        return f"{path} can be written"

    def create(self, path: str) -> str:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        os.unlink(path)
        return f"{path} can be made"

    def replace(self, path: str) -> str:
        """Put another file in the place of one that cannot be written."""
        os.rename(path, f"{path}.old")
        os.rename(f"{path}.old", path)
        return f"{path} can be renamed"

    def make_writable(self, path: str) -> str:
        mode = os.stat(path).st_mode
        os.chmod(path, mode | stat.S_IWUSR | stat.S_IWOTH)
        os.chmod(path, mode)
        return f"{path} can be made writable"

    def map_to_write(self, path: str) -> str:
        """A shared map of a file that was opened for reading alone."""
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_WRITE):
            return f"{path} can be mapped for writing"

    def climb(self, path: str) -> str:
        """The same file by every way around the front door that /proc and dots offer."""
        ways = ["/proc/self/root", "/proc/1/root", "/proc/self/cwd", "/proc/1/cwd", "/proc/self/task/1/root"]
        ways += ["/data/" + "../" * 20, "/proc/self/cwd/" + "../" * 20, *glob.glob("/proc/*/root")]
        for way in ways:
            try:
                return self.read(f"{way}/{path}")
            except OSError:
                continue
        raise FoundNothing(f"{len(ways)} ways lead nowhere")

    def climb_by_descriptor(self, path: str) -> str:
        """Through folders that somebody left open."""
        for name in os.listdir("/proc/self/fd"):
            try:
                found = os.open(f"{'../' * 20}{path.lstrip('/')}", os.O_RDONLY, dir_fd=int(name))
            except OSError:
                continue
            with open(found, encoding="utf-8") as file:
                return file.read(200)
        raise FoundNothing("no open folder leads out")

    def open_by_handle(self, number: int, folder: str) -> str:
        """By inode number, past every path: what broke out of early containers."""
        mount = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        handle = ctypes.create_string_buffer(b"\x08\0\0\0\x01\0\0\0\x02\0\0\0\0\0\0\0")
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syscall(number, mount, handle, os.O_RDONLY) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        return "opened by its handle"

    def link(self, source: str, target: str) -> str:
        os.link(source, target)
        os.unlink(target)
        return f"{source} is linked to {target}"

    def leave_link(self, target: str) -> str:
        """A trap for the host, which may handle this folder with more rights than it has."""
        for name in ("config.yaml", "state.db", "out"):
            if not os.path.islink(f"{HOME}/{name}"):
                os.symlink(target, f"{HOME}/{name}")
        return "left"

    def make_setuid(self, path: str) -> str:
        with open(path, "w", encoding="ascii"):
            pass
        try:
            os.chmod(path, 0o4755)
            return oct(os.stat(path).st_mode)
        finally:
            os.unlink(path)

    def make_device(self, path: str, major: int, minor: int) -> str:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(major, minor))
        os.unlink(path)
        return f"{path} is a device"

    def find_sockets(self) -> list[str]:
        """The sockets of services that run whatever they are told to."""
        usual = (
            "/var/run/docker.sock",
            "/run/docker.sock",
            "/run/containerd/containerd.sock",
            "/run/podman/podman.sock",
        )
        found = [
            path for path in (*usual, "/run/dbus/system_bus_socket", "/run/systemd/private") if os.path.exists(path)
        ]
        for top in ("/run", "/var/run", "/tmp", "/home"):
            for folder, _, names in os.walk(top):
                found += [path for name in names if stat.S_ISSOCK(os.lstat(path := f"{folder}/{name}").st_mode)]
        if not found:
            raise FoundNothing("no socket file anywhere")
        return found

    def who_owns_what_it_writes(self) -> str:
        """A file that belongs to root, in a folder of the host."""
        with open(f"{HOME}/mine", "w", encoding="ascii") as file:
            file.write("x")
        return "written"
