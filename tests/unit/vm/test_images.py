"""What guests boot from, looked at without booting: the archive, the read-only image, the libraries that are found."""

from __future__ import annotations

import io
import os
import stat
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage.launch.vm.archive import write_archive
from cardcage.launch.vm.disks import package_image
from cardcage.launch.vm.linkage import Libraries, read_linkage
from cardcage.launch.vm.readonly_image import BLOCK_BYTES, ReadOnlyImage
from cardcage.launch.vm.system_image import SystemContents, compiled
from cardcage.sandbox.python_layout import core_libraries, find_python_layout

Entry = tuple[str, bytes]
"""`folder`, `file` or `link`, and the content."""


def read_image(image: bytes) -> dict[str, Entry]:
    """Every path of an EROFS image, read by its published layout and not by the code that wrote it."""
    (magic,) = struct.unpack_from("<I", image, 1024)
    assert magic == 0xE0F5E1E2
    (root,) = struct.unpack_from("<H", image, 1024 + 14)
    (table,) = struct.unpack_from("<I", image, 1024 + 40)
    found: dict[str, Entry] = {}

    def content(slot: int) -> tuple[int, bytes]:
        at = table * BLOCK_BYTES + slot * 32
        layout, _, mode, _, size, block = struct.unpack_from("<HHHHQI", image, at)
        assert layout == 1, "a long inode, its content in blocks"
        return mode, image[block * BLOCK_BYTES : block * BLOCK_BYTES + size]

    def walk(path: str, slot: int) -> None:
        mode, data = content(slot)
        kind = {stat.S_IFDIR: "folder", stat.S_IFREG: "file", stat.S_IFLNK: "link"}[stat.S_IFMT(mode)]
        found[path or "/"] = (kind, b"" if kind == "folder" else data)
        for start in range(0, len(data) if kind == "folder" else 0, BLOCK_BYTES):
            names = entries(data[start : start + BLOCK_BYTES])
            assert [name for name, _ in names] == sorted(name for name, _ in names)
            for name, child in names:
                if name not in (b".", b".."):
                    walk(f"{path}/{name.decode()}", child)

    def entries(block: bytes) -> list[tuple[bytes, int]]:
        (first,) = struct.unpack_from("<H", block, 8)
        rows = [struct.unpack_from("<QHBx", block, 12 * place) for place in range(first // 12)]
        ends = [offset for _, offset, _ in rows[1:]] + [len(block)]
        return [(block[o:end].rstrip(b"\0"), slot) for (slot, o, _), end in zip(rows, ends, strict=True)]

    walk("", root)
    return found


def written(image: ReadOnlyImage) -> bytes:
    file = io.BytesIO()
    image.write(file)
    return file.getvalue()


names = st.text("abcXYZ.-_0é", min_size=1, max_size=60).filter(lambda name: name not in (".", ".."))


@given(st.dictionaries(names, st.binary(max_size=9000), max_size=80))
def test_what_is_put_into_an_image_can_be_read_from_it(files: dict[str, bytes]) -> None:
    image = ReadOnlyImage()
    for name, data in files.items():
        image.add_bytes(f"/deep/er/{name}", data)
    image.add_folder("/deep/er")
    image.add_link("/lib", "usr/lib")
    found = read_image(written(image))
    assert found["/lib"] == ("link", b"usr/lib")
    assert found["/deep/er"] == ("folder", b"")
    assert {path: entry[1] for path, entry in found.items() if entry[0] == "file"} == {
        f"/deep/er/{name}": data for name, data in files.items()
    }


def test_a_folder_of_many_files_takes_many_blocks() -> None:
    image = ReadOnlyImage()
    for number in range(2000):
        image.add_bytes(f"/many/{number:05}", b"")
    assert sum(path.startswith("/many/") for path in read_image(written(image))) == 2000


def test_the_same_files_make_the_same_image() -> None:
    def make() -> bytes:
        image = ReadOnlyImage()
        image.add_bytes("/b", b"2")
        image.add_bytes("/a/x", b"1")
        return written(image)

    assert make() == make()


def test_a_file_that_changes_while_it_is_packed_is_an_error(tmp_path: Path) -> None:
    from cardcage.launch.vm.readonly_image import node_of

    path = tmp_path / "growing"
    path.write_bytes(b"before")
    image = ReadOnlyImage()
    image.add("/growing", node_of(str(path), path.stat()))
    path.write_bytes(b"after that it is longer")
    with pytest.raises(OSError, match="changed while"):
        written(image)


def test_a_package_is_packed_with_its_links_as_links_and_nothing_behind_them(tmp_path: Path) -> None:
    package, temp = tmp_path / "package", tmp_path / "temp"
    (package / "inner").mkdir(parents=True)
    temp.mkdir()
    (tmp_path / "secret").write_text("hunter2")
    (package / "inner" / "code.py").write_text("x = 1")
    (package / "out").symlink_to(tmp_path / "secret")
    (package / "folder").symlink_to(tmp_path)
    descriptor = package_image(package, temp)
    with open(descriptor, "rb") as file:
        image = file.read()
    assert b"hunter2" not in image
    found = read_image(image)
    assert found["/inner/code.py"] == ("file", b"x = 1")
    assert found["/out"][0] == "link"
    assert list(temp.iterdir()) == [], "the image has no name"


def test_an_archive_has_every_folder_before_what_is_in_it_and_the_kernels_trailer() -> None:
    data = write_archive({"/a/b/run": b"#!", "/a/note": b"hi"}, links={"/lib": "usr/lib"}, executable=["/a/b/run"])
    assert read_archive(data) == [
        ("a", 0o40755, b""),
        ("a/b", 0o40755, b""),
        ("a/b/run", 0o100755, b"#!"),
        ("a/note", 0o100644, b"hi"),
        ("lib", 0o120777, b"usr/lib"),
    ]


def read_archive(data: bytes) -> list[tuple[str, int, bytes]]:
    entries: list[tuple[str, int, bytes]] = []
    at = 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * place : at + 14 + 8 * place], 16) for place in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        start = at + -(-(110 + name_size) // 4) * 4
        if name == "TRAILER!!!":
            return entries
        entries.append((name, mode, data[start : start + size]))
        at = start + -(-size // 4) * 4


def test_the_libraries_of_the_interpreter_are_found_without_running_anything() -> None:
    libraries = Libraries()
    libraries.add([Path(find_python_layout().executable)])
    assert "libc.so.6" in libraries.found
    assert all(path.is_file() for path in libraries.found.values())
    assert len(libraries.interpreters) == 1


@given(st.binary(max_size=300), st.booleans())
def test_whatever_a_package_ships_as_a_library_is_read_without_harm(data: bytes, headed: bool) -> None:
    with tempfile.NamedTemporaryFile(suffix=".so") as file:
        file.write(b"\x7fELF\x02\x01" * headed + data)
        file.flush()
        read_linkage(Path(file.name))


def test_the_system_image_holds_what_plugins_import_and_not_what_is_installed_beside_it() -> None:
    contents = SystemContents.gather(find_python_layout(), core_libraries())
    inside = {path for path, _, _ in contents.files}
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"/cardcage/python/lib/python{version}/json/__init__.py" in inside
    assert "/cardcage/lib/cardcage_sdk/serve.py" in inside
    assert "/cardcage/host/cardcage/launch/vm/guest.py" in inside
    assert not any("site-packages" in path or path.startswith("/cardcage/lib/pytest") for path in inside)
    assert not any("/manager/" in path or "/trust/" in path for path in inside if path.startswith("/cardcage/host"))
    assert contents.digest() == SystemContents.gather(find_python_layout(), core_libraries()).digest()


def test_compiled_code_runs_and_is_not_held_against_its_source(tmp_path: Path) -> None:
    source = tmp_path / "answer.py"
    source.write_text("print(42)")
    code = compiled("/cardcage/lib/answer.py", source, source.stat())
    (tmp_path / "answer.pyc").write_bytes(code)
    source.unlink()
    done = subprocess.run([sys.executable, "-I", tmp_path / "answer.pyc"], capture_output=True, check=True, timeout=60)
    assert done.stdout == b"42\n"
    assert int.from_bytes(code[4:8], "little") == 1
    assert os.fspath(tmp_path).encode() not in code, "no path of the host is told"
