"""Building a plugin's file tree on a tmpfs of its own and moving into it. Standard library and ctypes alone.

The tree is built over the host's `/proc`: in this mount namespace nobody else sees it, `/proc` exists everywhere, and
it is the one folder that no plan takes anything from.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING, Final

from cardcage.sandbox.syscalls import call

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cardcage.sandbox.plan import Mount, SandboxPlan

ROOT: Final = "/proc"

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_BIND, _MS_REC, _MS_PRIVATE = 4096, 16384, 1 << 18
_MNT_DETACH: Final = 2
_AT_FDCWD: Final = -100
_AT_EMPTY_PATH, _AT_RECURSIVE = 0x1000, 0x8000
_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_MOVE_MOUNT_F_EMPTY_PATH: Final = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_NOEXEC, _ATTR_IDMAP = 1, 2, 4, 8, 0x100000

_ROOT_BYTES: Final = 1024 * 1024
_ROOT_INODES: Final = 4096
"""The root holds mount points and a few lines of /etc; both bounds only stop a mistake."""

_UNREADABLE_SCAN_MAX: Final = 2000
"""Files looked at before a granted folder is taken to be readable by all."""

_DANGEROUS_PROC: Final = ("kcore", "keys", "key-users", "kmsg", "sysrq-trigger", "timer_list", "sched_debug")
_PROC_FOLDERS: Final = ("sys", "bus", "fs", "irq", "acpi", "scsi", "driver", "tty")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """`mount(2)`; the error names the target."""
    try:
        call("mount", _bytes(source), target.encode(), _bytes(kind), flags, _bytes(options))
    except OSError as error:
        raise OSError(error.errno, error.strerror, f"mount {source or kind} at {target}") from None


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def set_attributes(target: str, attributes: int, *, recursive: bool = False) -> None:
    """Add mount attributes; the recursive form reaches what was mounted below `target` on the host too."""
    at_flags = _AT_RECURSIVE if recursive else 0
    data = struct.pack("QQQQ", attributes, 0, 0, 0)
    call("mount_setattr", _AT_FDCWD, target.encode(), at_flags, data, len(data))


def detach_from_host() -> None:
    """Let nothing that is mounted here from now on reach the host, nor the other way round."""
    mount(None, "/", None, _MS_REC | _MS_PRIVATE)


class TreeBuilder:
    """Puts the mounts of a plan below `ROOT`. What it had to leave out, and what it did instead, is in `notes`."""

    def __init__(self, plan: SandboxPlan, *, uid: int | None) -> None:
        self._plan = plan
        self._uid = uid
        self._mappings: dict[tuple[int, int], int] = {}
        self._folders = {ROOT}
        self.notes: list[str] = []
        self.proc_detail = ""

    def build(self) -> None:
        """Make the whole tree."""
        options = f"size={_ROOT_BYTES},nr_inodes={_ROOT_INODES},mode=755"
        mount("cardcage", ROOT, "tmpfs", _MS_NOSUID | _MS_NODEV, options)
        for one in self._plan.mounts:
            try:
                self._put(one)
            except OSError as error:
                if not (one.optional and isinstance(error, FileNotFoundError)):
                    raise OSError(error.errno, error.strerror, f"{one.kind} {one.source or one.target}") from error
        for mapping in self._mappings.values():
            os.close(mapping)

    def _put(self, one: Mount) -> None:
        target = ROOT + one.target
        match one.kind:
            case "bind":
                self._bind(one, target)
            case "tmpfs":
                self._tmpfs(one, target)
            case "proc":
                self._proc(target)
            case "device":
                self._make_file(target)
                mount(one.source, target, None, _MS_BIND)
                set_attributes(target, _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NOEXEC)
            case "mask":
                if os.path.isdir(target):
                    mount("cardcage", target, "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "size=4k,mode=555")
            case "symlink":
                self._make_folder(_parent(target))
                os.symlink(one.source, target)
            case "directory":
                self._make_folder(target)
            case "file":
                self._make_file(target, one.content)

    def _make_folder(self, target: str) -> None:
        """Make it and what leads to it, where they are missing. `os.makedirs` asks after each of them every time."""
        if target in self._folders:
            return
        self._make_folder(_parent(target))
        try:
            os.mkdir(target)
        except FileExistsError:
            if not os.path.isdir(target):
                raise
        self._folders.add(target)

    def _make_file(self, target: str, content: str = "") -> None:
        self._make_folder(_parent(target))
        # Not `open`: its buffers and its codec are half a dozen calls more.
        file = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            if content:
                os.write(file, content.encode())
        finally:
            os.close(file)

    def _make_mount_point(self, target: str, *, is_folder: bool) -> None:
        if is_folder:
            self._make_folder(target)
        elif not os.path.exists(target):
            self._make_file(target)

    def _bind(self, one: Mount, target: str) -> None:
        found = os.stat(one.source)
        is_folder = stat.S_ISDIR(found.st_mode)
        if one.whole_folder is not None and one.whole_folder is not is_folder:
            raise OSError(20 if one.whole_folder else 21, grant_mismatch(one.source, is_folder=is_folder))
        self._make_mount_point(target, is_folder=is_folder)
        attributes = _ATTR_NOSUID | _ATTR_NODEV
        attributes |= 0 if one.writable else _ATTR_RDONLY
        attributes |= 0 if one.executable else _ATTR_NOEXEC
        if one.granted and self._uid is not None and is_closed_to_others(one, found):
            self._bind_mapped(one.source, target, found, attributes)
        else:
            mount(one.source, target, None, _MS_BIND | _MS_REC)
            set_attributes(target, attributes, recursive=True)

    def _bind_mapped(self, source: str, target: str, found: os.stat_result, attributes: int) -> None:
        """Show files of another owner as if they were the instance's, without touching the files."""
        mapping = self._mapping(found.st_uid, found.st_gid)
        flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC
        tree = call("open_tree", _AT_FDCWD, source.encode(), flags)
        try:
            data = struct.pack("QQQQ", attributes | _ATTR_IDMAP, 0, 0, mapping)
            call("mount_setattr", tree, b"", _AT_EMPTY_PATH, data, len(data))
            call("move_mount", tree, b"", _AT_FDCWD, target.encode(), _MOVE_MOUNT_F_EMPTY_PATH)
        except OSError as error:
            raise OSError(
                error.errno,
                f"{error.strerror}: the file system cannot show it to uid {self._uid} (no id-mapped mounts), "
                "and its mode keeps that uid out",
            ) from None
        finally:
            os.close(tree)
        self.notes.append(f"{source} is shown id-mapped")

    def _mapping(self, owner: int, group: int) -> int:
        if (owner, group) not in self._mappings:
            assert self._uid is not None
            self._mappings[owner, group] = open_id_mapping((owner, self._uid), (group, self._uid))
        return self._mappings[owner, group]

    def _tmpfs(self, one: Mount, target: str) -> None:
        self._make_folder(target)
        # The owner is given at the mount: root's own tmpfs would keep the instance's uid out.
        owner = "" if self._uid is None else f",uid={self._uid},gid={self._uid}"
        options = f"size={one.size_bytes},nr_inodes={one.inodes},mode=700{owner}"
        flags = _MS_NOSUID | _MS_NODEV | (0 if one.executable else _MS_NOEXEC)
        mount("cardcage", target, "tmpfs", flags, options)

    def _proc(self, target: str) -> None:
        """A fresh /proc of the own pid namespace, without the kernel's files where it can be had that way."""
        self._make_folder(target)
        flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC
        try:
            mount("proc", target, "proc", flags, "hidepid=invisible,subset=pid")
            self.proc_detail = "processes of its own only, no kernel files"
            return
        except OSError:
            pass  # before Linux 5.8, or a container that covers parts of /proc: the next attempt tells
        mount("proc", target, "proc", flags)
        _mask_proc(target)
        self.proc_detail = "kernel files covered one by one"

    def enter(self) -> None:
        """Make the tree the root, let go of the host's, and make the root itself read-only."""
        os.chdir(ROOT)
        call("pivot_root", b".", b".")
        call("umount2", b".", _MNT_DETACH)
        os.chdir("/")
        if self.proc_detail:
            set_attributes("/proc", _ATTR_RDONLY)  # only now: id mappings were written through it
        set_attributes("/", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV)


def grant_mismatch(path: str, *, is_folder: bool) -> str:
    """What is said of a grant whose spelling does not fit what stands there."""
    if is_folder:
        return f"{path} was granted as a file and is a folder: {path}/ grants all beneath it"
    return f"{path}/ was granted as a folder and is a file"


def _parent(target: str) -> str:
    return target.rpartition("/")[0]


def _mask_proc(target: str) -> None:
    for name in _DANGEROUS_PROC:
        if os.path.exists(f"{target}/{name}"):
            mount(f"{ROOT}/dev/null", f"{target}/{name}", None, _MS_BIND)
    for name in _PROC_FOLDERS:
        if os.path.isdir(f"{target}/{name}"):
            mount("cardcage", f"{target}/{name}", "tmpfs", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "size=4k,mode=555")


def is_closed_to_others(one: Mount, found: os.stat_result) -> bool:
    """Whether a uid that owns nothing of it would be kept out of `one`, or of something in it, by mode."""
    if one.writable:
        return True  # to write, the instance must stand in for the owner
    if not _open_to_others(found):
        return True
    if not stat.S_ISDIR(found.st_mode):
        return False
    return any(not _open_to_others(entry) for entry in _walk(one.source))


def _open_to_others(found: os.stat_result) -> bool:
    needed = stat.S_IROTH | (stat.S_IXOTH if stat.S_ISDIR(found.st_mode) else 0)
    return found.st_mode & needed == needed


def _walk(folder: str) -> Iterable[os.stat_result]:
    seen = 0
    pending = [folder]
    while pending and seen < _UNREADABLE_SCAN_MAX:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    continue
                seen += 1
                yield entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def try_id_mapped_mount(folder: str, uid: int) -> str:
    """Show `folder` to `uid` through an id mapping, in a mount namespace of this process's own. Needs root."""
    call("unshare", 0x00020000)
    detach_from_host()
    found = os.stat(folder)
    mapping = open_id_mapping((found.st_uid, uid), (found.st_gid, uid), proc="/proc")
    tree = call("open_tree", _AT_FDCWD, folder.encode(), _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC)
    data = struct.pack("QQQQ", _ATTR_IDMAP, 0, 0, mapping)
    call("mount_setattr", tree, b"", _AT_EMPTY_PATH, data, len(data))
    owner = os.fstat(tree).st_uid
    return "" if owner == uid else f"the owner shows as {owner}"


def open_id_mapping(user: tuple[int, int], group: tuple[int, int], *, proc: str = f"{ROOT}/proc") -> int:
    """A user namespace in which id `user[0]` of a file counts as `user[1]`, as a descriptor; groups likewise.

    Needs root. A child makes the namespace and waits, because only another process may write such a map.
    """
    ready, tell_ready = os.pipe()
    hold, release = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(release)
            call("unshare", 0x10000000)
            os.write(tell_ready, b"1")
            os.read(hold, 1)
        finally:
            os._exit(0)
    os.close(tell_ready)
    os.close(hold)
    try:
        if os.read(ready, 1) != b"1":
            raise OSError(1, "a user namespace for an id-mapped mount could not be made")
        here = f"{proc}/{child}"
        for name, (inside, outside) in (("uid_map", user), ("gid_map", group)):
            # Bytes: behind the fork server's moved library there is no codec to be imported.
            with open(f"{here}/{name}", "wb", buffering=0) as file:
                file.write(f"{inside} {outside} 1".encode())
        return os.open(f"{here}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready)
        os.close(release)
        os.waitpid(child, 0)
