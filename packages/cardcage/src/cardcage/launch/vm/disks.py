"""The disks of one machine as open files: the package as a read-only image, the data as a file system of its own size.

The host never mounts either. What a guest writes is read by guests alone, so that a file system that a plugin has
broken on purpose meets no kernel but the plugin's own.
"""

from __future__ import annotations

import os
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from cardcage.foundation.errors import Refused
from cardcage.foundation.limits import PACKAGE_BYTES_MAX, PACKAGE_FILES_MAX
from cardcage.launch.runner import LaunchSpec
from cardcage.launch.vm.machine import MachineSize
from cardcage.launch.vm.readonly_image import ReadOnlyImage, node_of

DATA_FILE: Final = "disk.img"
"""The data of an instance in its data folder, where it runs in a machine."""

DISK_BYTES_MIN: Final = 8 * 1024 * 1024
"""A file system with a journal fits in no less."""

_INODES_MIN: Final = 128
_INODES_RESERVED: Final = 11
"""The first are the file system's own."""
_BYTES_PER_INODE: Final = 4096

_MAKE_TIMEOUT_S: Final = 30.0
_FEATURES: Final = "none,has_journal,extent,filetype,sparse_super,large_file,huge_file,dir_index,dir_nlink,extra_isize"
_FILE_SYSTEM: Final = (
    *("-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0"),
    *("-O", _FEATURES, "-J", "size=4", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"),
)
"""Said in full, so that the file system is the same whatever the machine's configuration of mkfs is."""


def package_image(package_dir: Path, temp_dir: Path) -> int:
    """The package as an image: a file without a name, gone with its last descriptor, which is the caller's.

    Raises `OSError` where the package cannot be read.
    """
    image = ReadOnlyImage()
    files = size = 0
    for folder, _, names in os.walk(package_dir, followlinks=False, onerror=_raise):
        here = Path(folder)
        inside = "/" + str(here.relative_to(package_dir)).lstrip(".")
        image.add_folder(inside)
        for name in names:
            found = (here / name).lstat()
            if stat.S_ISREG(found.st_mode):
                image.add(f"{inside.rstrip('/')}/{name}", node_of(str(here / name), found))
                files, size = files + 1, size + found.st_size
            elif stat.S_ISLNK(found.st_mode):
                image.add_link(f"{inside.rstrip('/')}/{name}", os.readlink(here / name))
            if files > PACKAGE_FILES_MAX or size > PACKAGE_BYTES_MAX:
                raise OSError(27, "the package is larger than packages may be", str(package_dir))
    with tempfile.TemporaryFile(dir=temp_dir) as file:
        image.write(file)
        file.flush()
        return os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_CLOEXEC)


def _raise(error: OSError) -> None:
    raise error


def data_disk(spec: LaunchSpec, size: MachineSize, make_file_system: Path) -> int:
    """The instance's disk, made with what lies in its data folder where there is none yet; the caller's to close.

    Raises `Refused` where the disk is larger than its limit is now, and `OSError`.
    """
    path = spec.data_dir / DATA_FILE
    try:
        return _open_disk(path, size.disk_bytes, plugin=spec.plugin)
    except FileNotFoundError:
        _make_disk(spec.data_dir, spec.temp_dir, size, make_file_system)
    return _open_disk(path, size.disk_bytes, plugin=spec.plugin)


def _open_disk(path: Path, size_bytes: int, *, plugin: str) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if stat.S_ISREG(found.st_mode) and found.st_size <= max(size_bytes, DISK_BYTES_MIN):
        return descriptor
    os.close(descriptor)
    raise Refused(
        f'plugin "{plugin}" has a disk of {found.st_size} bytes, but its limit is {size_bytes}',
        code="disk_too_large",
        hint=f"raise the limit, or save what is in it and remove {path}",
        plugin=plugin,
    )


def _inodes(size: MachineSize) -> int:
    """How many files and folders fit: as many as the limit says, where the disk has room for their table."""
    return max(_INODES_MIN, min(size.inodes + _INODES_RESERVED, size.disk_bytes // _BYTES_PER_INODE))


def _make_disk(data_dir: Path, temp_dir: Path, size: MachineSize, make_file_system: Path) -> None:
    """A sparse file with a file system, complete before it gets its name.

    The program that makes it reads the plugin's files, and does so as the owner of the data folder.
    """
    owner = data_dir.stat()
    command = [str(make_file_system), *_FILE_SYSTEM, "-N", str(_inodes(size))]
    if os.listdir(data_dir):
        command += ["-d", "."]
    is_root = os.geteuid() == 0
    descriptor, name = tempfile.mkstemp(dir=temp_dir, prefix="disk-")
    try:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.truncate(descriptor, max(size.disk_bytes, DISK_BYTES_MIN))
        done = subprocess.run(  # noqa: S603 -- a program of the system, found in its own folders
            [*command, f"/proc/self/fd/{descriptor}"],
            cwd=data_dir,
            env={"MKE2FS_CONFIG": os.devnull, "LC_ALL": "C"},
            pass_fds=(descriptor,),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_MAKE_TIMEOUT_S,
            check=False,
            user=owner.st_uid if is_root else None,
            group=owner.st_gid if is_root else None,
            extra_groups=[] if is_root else None,
        )
        if done.returncode != 0:
            raise OSError(5, done.stderr.decode(errors="replace").strip()[-300:] or "mkfs.ext4 failed", str(data_dir))
        os.rename(name, data_dir / DATA_FILE)
    except BaseException:
        os.unlink(name)
        raise
    finally:
        os.close(descriptor)
