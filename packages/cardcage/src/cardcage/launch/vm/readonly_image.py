"""A read-only file system image (EROFS, uncompressed) written from any files at any paths, without root or a program.

The layout is the kernel's (`fs/erofs/erofs_fs.h`): blocks of 4 KiB; a super block at byte 1024; inodes of 64 bytes in a
table, numbered by their place in it; a folder's entries sorted by name, block by block. The guest reads from it only
what it uses, and all guests share the host's cache of it, which a file tree in memory would not give.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, Final

BLOCK_BYTES: Final = 4096
_SUPER_OFFSET: Final = 1024
_MAGIC: Final = 0xE0F5E1E2
_INODE_BYTES: Final = 64
_SLOT_BYTES: Final = 32
_EXTENDED_PLAIN: Final = 1
"""An inode in its long form whose content lies in whole blocks."""
_FILE_TYPES: Final = {stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFLNK: 7}


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """One file, folder or symbolic link of the image. A folder has `children`, the others `size` and a way to read."""

    mode: int
    uid: int = 0
    gid: int = 0
    modified_s: int = 0
    size: int = 0
    read: Callable[[], bytes] | None = None
    children: dict[str, Node] = field(default_factory=dict[str, "Node"])
    number: int = 0
    parent: Node | None = None
    block: int = 0

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(self.mode)


class ReadOnlyImage:
    """Collects files, then writes the image. Paths are absolute; folders that lead to one are made."""

    def __init__(self) -> None:
        self.root = Node(mode=stat.S_IFDIR | 0o755)

    def add_folder(self, path: str, *, mode: int = 0o755, uid: int = 0) -> Node:
        """The folder at `path`, made where it is missing. Raises `NotADirectoryError` where a file is in the way."""
        here = self.root
        for name in path.strip("/").split("/"):
            if name:
                here = here.children.setdefault(name, Node(mode=stat.S_IFDIR | mode, uid=uid, gid=uid))
                if not here.is_folder:
                    raise NotADirectoryError(20, "a file stands where a folder is needed", path)
        return here

    def add(self, path: str, node: Node) -> None:
        """Put a file or link at `path`, in place of what was there."""
        folder, _, name = path.rpartition("/")
        self.add_folder(folder).children[name] = node

    def add_bytes(self, path: str, content: bytes, *, mode: int = 0o644, modified_s: int = 0) -> None:
        """Put a file of that content at `path`."""
        self.add(path, Node(mode=stat.S_IFREG | mode, modified_s=modified_s, size=len(content), read=lambda: content))

    def add_link(self, path: str, to: str) -> None:
        """Put a symbolic link at `path`."""
        content = to.encode()
        self.add(path, Node(mode=stat.S_IFLNK | 0o777, size=len(content), read=lambda: content))

    def write(self, file: IO[bytes]) -> None:
        """Write the image. Raises `OSError` where a file is not as long as it was said to be."""
        nodes = list(self._number())
        block = _blocks(BLOCK_BYTES + len(nodes) * _INODE_BYTES)
        folders = {id(node): _entries(node) for node in nodes if node.is_folder}
        for node in nodes:
            if node.is_folder:
                node.size = len(folders[id(node)])
            node.block = block
            block += _blocks(node.size)
        file.write(_super_block(count=len(nodes), blocks=block, root=_slot(self.root)))
        table = b"".join(map(_inode, nodes))
        file.write(table + bytes(-len(table) % BLOCK_BYTES))
        for node in nodes:
            content = folders[id(node)] if node.is_folder else _content(node)
            file.write(content)
            file.write(bytes(-len(content) % BLOCK_BYTES))

    def _number(self) -> Iterator[Node]:
        """Every node, folders before what is in them, each with its place in the table of inodes."""
        pending, number = [self.root], 0
        self.root.parent = self.root
        while pending:
            node = pending.pop(0)
            node.number = number
            number += 1
            yield node
            for _, child in sorted(node.children.items(), key=lambda pair: pair[0].encode()):
                child.parent = node
                pending.append(child)


def _blocks(size: int) -> int:
    return -(-size // BLOCK_BYTES)


def _slot(node: Node) -> int:
    """The number by which entries name an inode: its place in units of 32 bytes from the table's start."""
    return node.number * (_INODE_BYTES // _SLOT_BYTES)


def _content(node: Node) -> bytes:
    content = node.read() if node.read is not None else b""
    if len(content) != node.size:
        raise OSError(5, f"a file of {node.size} bytes has {len(content)}: it was changed while it was being packed")
    return content


def _super_block(*, count: int, blocks: int, root: int) -> bytes:
    fields = struct.pack(
        "<IIIBBHQQIIII16s16sI",
        _MAGIC,
        0,  # no checksum: the feature bit that announces one is not set
        0,
        BLOCK_BYTES.bit_length() - 1,
        0,
        root,
        count,
        0,
        0,
        blocks,
        1,  # the table of inodes begins at the second block
        0,
        bytes(16),
        b"cardcage".ljust(16, b"\0"),
        0,
    )
    return (bytes(_SUPER_OFFSET) + fields).ljust(BLOCK_BYTES, b"\0")


def _inode(node: Node) -> bytes:
    links = 2 + sum(child.is_folder for child in node.children.values()) if node.is_folder else 1
    return struct.pack(
        "<HHHHQIIIIQII16x",
        _EXTENDED_PLAIN,
        0,
        node.mode,
        0,
        node.size,
        node.block,
        node.number + 1,
        node.uid,
        node.gid,
        node.modified_s,
        0,
        links,
    )


def _entries(folder: Node) -> bytes:
    """A folder's content: in each block first the entries, then their names; a block is filled before the next."""
    assert folder.parent is not None
    rows = [(name.encode(), child) for name, child in folder.children.items()]
    rows += [(b".", folder), (b"..", folder.parent)]
    rows.sort(key=lambda row: row[0])
    blocks: list[bytes] = []
    pending: list[tuple[bytes, Node]] = []
    room = BLOCK_BYTES
    for name, child in rows:
        if 12 + len(name) > room:
            blocks.append(_entry_block(pending).ljust(BLOCK_BYTES, b"\0"))
            pending, room = [], BLOCK_BYTES
        pending.append((name, child))
        room -= 12 + len(name)
    blocks.append(_entry_block(pending))
    return b"".join(blocks)


def _entry_block(rows: list[tuple[bytes, Node]]) -> bytes:
    place = 12 * len(rows)
    entries: list[bytes] = []
    for name, child in rows:
        kind = _FILE_TYPES[stat.S_IFMT(child.mode)]
        entries.append(struct.pack("<QHBx", _slot(child), place, kind))
        place += len(name)
    return b"".join(entries) + b"".join(name for name, _ in rows)


def node_of(path: str, found: os.stat_result, *, follow: bool = False) -> Node:
    """The file at `path` of the host as a node of root's that everybody may read, and execute where it may be."""
    executable = 0o111 if found.st_mode & 0o111 else 0
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)

    def read() -> bytes:
        with open(os.open(path, flags), "rb") as file:
            return file.read(found.st_size + 1)

    return Node(mode=stat.S_IFREG | 0o444 | executable, modified_s=int(found.st_mtime), size=found.st_size, read=read)
