"""The digest of a package: what changes it, what does not, and what is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardcage.foundation.errors import InvalidDocument
from cardcage.trust import PackageLimits, digest_package
from cardcage.trust.digest import link_fault, read_package


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "polite"
    (folder / "lib").mkdir(parents=True)
    (folder / "plugin.yaml").write_text("name: polite\n")
    (folder / "polite.py").write_text("x = 1\n")
    (folder / "lib" / "run").write_bytes(b"\x00\xff")
    (folder / "lib" / "run").chmod(0o755)
    return folder


def faults_of(folder: Path, limits: PackageLimits | None = None) -> dict[str, str]:
    with pytest.raises(InvalidDocument) as raised:
        digest_package(folder, limits=limits or PackageLimits())
    assert raised.value.code == "package_invalid"
    return {fault.path: fault.message for fault in raised.value.faults}


def test_the_digest_is_the_canonical_form_written_out(package: Path) -> None:
    (package / "lib" / "again").symlink_to("run")

    def entry(kind: bytes, path: bytes, contents: bytes) -> bytes:
        return kind + len(path).to_bytes(8, "big") + path + len(contents).to_bytes(8, "big") + contents

    expected = hashlib.sha256(
        b"cardcage-package-1\n"
        + entry(b"L", b"lib/again", b"run")
        + entry(b"X", b"lib/run", b"\x00\xff")
        + entry(b"F", b"plugin.yaml", b"name: polite\n")
        + entry(b"F", b"polite.py", b"x = 1\n")
    )
    found = digest_package(package)
    assert found.sha256 == expected.hexdigest()
    assert (found.files, found.total_bytes) == (4, 3 + 2 + 13 + 6)


def test_paths_are_ordered_by_their_bytes_even_where_folders_sort_otherwise(package: Path) -> None:
    for name in ("lib.py", "lib-x", "lib0", "Lib"):
        (package / name).write_text("")
    assert read_package(package).paths == (
        *("Lib", "lib-x", "lib.py", "lib/run"),
        *("lib0", "plugin.yaml", "polite.py"),
    )


def test_a_copy_elsewhere_with_other_times_and_modes_has_the_same_digest(package: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(package, copy)
    (copy / "polite.py").chmod(0o600)
    (copy / "empty").mkdir()
    os.utime(copy / "polite.py", (0, 0))
    assert digest_package(copy) == digest_package(package)


CHANGES: dict[str, Callable[[Path], object]] = {
    "contents": lambda folder: (folder / "polite.py").write_text("x = 2\n"),
    "a new file": lambda folder: (folder / "new.py").write_text(""),
    "a file gone": lambda folder: (folder / "polite.py").unlink(),
    "another name": lambda folder: (folder / "polite.py").rename(folder / "polite2.py"),
    "another folder": lambda folder: (folder / "polite.py").rename(folder / "lib" / "polite.py"),
    "made executable": lambda folder: (folder / "polite.py").chmod(0o755),
    "byte code that can be imported": lambda folder: (folder / "polite.pyc").write_bytes(b"evil"),
    "a link": lambda folder: (folder / "link").symlink_to("polite.py"),
    "a byte moved between files": lambda folder: [
        (folder / "plugin.yaml").write_text("name: polite"),
        (folder / "polite.py").write_text("\nx = 1\n"),
    ],
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_changes_the_digest(package: Path, change: Callable[[Path], object]) -> None:
    before = digest_package(package).sha256
    change(package)
    assert digest_package(package).sha256 != before


@pytest.mark.parametrize(
    "name", ["__pycache__/x.pyc", ".git/HEAD", "lib/__pycache__/y.pyc", "polite.py~", ".#polite.py"]
)
def test_what_appears_by_itself_does_not_count(package: Path, name: str) -> None:
    before = digest_package(package)
    (package / name).parent.mkdir(exist_ok=True)
    (package / name).write_text("whatever")
    assert digest_package(package) == before


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "lib/../../outside", "lib/again/../..", "../../.."])
def test_a_link_that_leaves_the_package_is_refused(package: Path, target: str) -> None:
    (package / "link").symlink_to(target)
    assert target in faults_of(package)["link"]


def test_a_link_may_climb_as_far_as_the_package_reaches(package: Path) -> None:
    (package / "lib" / "up").symlink_to("../polite.py")
    digest_package(package)
    (package / "lib" / "out").symlink_to("../../polite/polite.py")
    assert list(faults_of(package)) == ["lib/out"]


def test_a_link_into_what_does_not_count_is_refused(package: Path) -> None:
    (package / "polite2.py").symlink_to("__pycache__/hidden.py")
    assert "expected a link to what the digest covers" in faults_of(package)["polite2.py"]


def test_two_links_that_together_lead_outside_are_refused(package: Path) -> None:
    (package / "lib" / "up").symlink_to("..")  # stays inside by itself
    digest_package(package)
    (package / "trick").symlink_to("lib/up/../outside")
    assert list(faults_of(package)) == ["trick"]


def test_pipes_and_sockets_are_refused_without_waiting_for_them(package: Path) -> None:
    os.mkfifo(package / "pipe")
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as listening:
        try:
            os.chdir(package)  # the whole path may be too long for a socket's name
            listening.bind("sock")
        finally:
            os.chdir(here)
        found = faults_of(package)
    assert "found a named pipe" in found["pipe"]
    assert "found a socket" in found["sock"]


def test_a_device_is_refused(package: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("must run as root to make a device")
    try:
        os.mknod(package / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("must run as root where mknod is allowed")
    assert "found a character device" in faults_of(package)["null"]


def test_a_file_that_cannot_be_read_is_refused(package: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("must not run as root, who can read everything")
    (package / "polite.py").chmod(0)
    (package / "lib").chmod(0)
    assert "permission denied" in faults_of(package)["polite.py"]
    assert "permission denied" in faults_of(package)["lib"]
    (package / "lib").chmod(0o700)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        (b"caf\xe9.py", r"caf\xe9.py"),
        (b"\x1b[31mred.py", r"\x1b[31mred.py"),
        (b"two\nlines.py", r"two\nlines.py"),
        ("txt.\u202eyp.exe".encode(), r"txt.\xe2\x80\xaeyp.exe"),
    ],
    ids=["not UTF-8", "an escape sequence", "a line feed", "a change of direction"],
)
def test_a_name_that_cannot_be_shown_as_it_is_is_refused(package: Path, name: bytes, shown: str) -> None:
    (package / os.fsdecode(name)).write_text("")
    assert faults_of(package) == {shown: "expected a name of printable characters in UTF-8"}


def test_all_faults_are_told_at_once(package: Path) -> None:
    os.mkfifo(package / "pipe")
    (package / "link").symlink_to("/etc/passwd")
    (package / "lib" / "up").symlink_to("../..")
    assert sorted(faults_of(package)) == ["lib/up", "link", "pipe"]


def test_a_package_with_too_many_files_or_bytes_is_refused_before_they_are_read(package: Path) -> None:
    assert "may have 2 files" in faults_of(package, PackageLimits(files=2))[""]
    with (package / "polite.py").open("r+b") as file:
        file.truncate(1 << 40)  # sparse: reading it would take for ever
    assert "may have 512 MiB" in faults_of(package)["polite.py"]


def test_a_very_deep_package_is_refused(package: Path) -> None:
    package.joinpath(*["d"] * 40).mkdir(parents=True)
    [(path, message)] = faults_of(package).items()
    assert path == "d/" * 33
    assert "may be 32 deep" in message


def test_a_thousand_faults_are_cut_short(package: Path) -> None:
    for number in range(1000):
        (package / f"link{number}").symlink_to("/etc/passwd")
    assert len(faults_of(package)) == 50


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "expected a folder" in faults_of(tmp_path / "file")[""]
    assert "expected a folder" in faults_of(tmp_path / "nothing")[""]


def test_swapping_a_folder_for_a_link_during_the_walk_never_leads_outside(tmp_path: Path) -> None:
    package, outside = tmp_path / "package", tmp_path / "outside"
    for folder, text in ((package / "inner", "inside"), (outside, "secret")):
        folder.mkdir(parents=True)
        (folder / "file").write_text(text)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (package / "inner").rename(tmp_path / "aside")
            (package / "inner").symlink_to(outside)
            (package / "inner").unlink()
            (tmp_path / "aside").rename(package / "inner")

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(2000):
            found = read_package(package, keep=["inner/file"], keep_bytes_max=100)
            assert found.kept.get("inner/file", b"inside") == b"inside"
    finally:
        stop.set()
        swapper.join()


trees = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "a.b", "a-b", "ä"]), min_size=1, max_size=3).map("/".join),
    st.binary(max_size=20),
    max_size=6,
)


@settings(max_examples=60, deadline=None)
@given(trees, trees)
def test_two_packages_have_one_digest_exactly_where_they_hold_the_same(
    tmp_path_factory: pytest.TempPathFactory, one: dict[str, bytes], other: dict[str, bytes]
) -> None:
    def write(tree: dict[str, bytes]) -> tuple[str, dict[str, bytes]]:
        folder = tmp_path_factory.mktemp("tree")
        written: dict[str, bytes] = {}
        for path, contents in tree.items():
            try:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(contents)
            except OSError:
                continue  # a file stands where this one wants a folder, or the reverse
            written[path] = contents
        return digest_package(folder).sha256, written

    (first, first_tree), (second, second_tree) = write(one), write(other)
    assert (first == second) == (first_tree == second_tree)


@given(st.lists(st.sampled_from(["..", ".", "a", "b", ""]), max_size=6).map("/".join), st.integers(0, 4))
def test_a_link_is_allowed_only_where_no_real_folder_could_make_it_leave(target: str, depth: int) -> None:
    if link_fault(target, depth) is None:
        here = ["d"] * depth
        for part in target.split("/"):
            if part == "..":
                assert here, target
                here.pop()
            elif part not in ("", "."):
                here.append(part)
