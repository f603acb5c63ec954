"""The files of a log: `audit/log-000001.jsonl` and so on, each continuing the chain of the one before.

Readers see the log as it was at one moment: the files are opened, and their lengths taken, while nobody writes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cardcage.audit.chain import LINE_BYTES_MAX, Line, RawLine, parse
from cardcage.foundation.errors import Misuse

LOCK_NAME: Final = "lock"
KEPT_NAME: Final = "last-checkpoint.jsonl"
_SEGMENT: Final = re.compile(r"log-(\d{6,})\.jsonl")


def segment_name(number: int) -> str:
    return f"log-{number:06d}.jsonl"


def segment_numbers(folder: Path) -> list[int]:
    """The numbers of the files that are there, in order."""
    matches = (_SEGMENT.fullmatch(name) for name in os.listdir(folder))
    return sorted(int(match[1]) for match in matches if match)


def prepare_folder(folder: Path) -> None:
    """Make the folder where it is missing, for its owner alone. Raises `Misuse` where no log could be kept there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
        usable = os.access(folder, os.W_OK | os.X_OK)
    except OSError as error:
        raise Misuse(f"no audit log can be kept in {folder}: {error.strerror}", code="audit_unusable") from error
    if mode & 0o022 or not usable:
        found = f"others may write to it (mode {mode:04o})" if usable else "it cannot be written to"
        raise Misuse(
            f"no audit log can be kept in {folder}: {found}", code="audit_unusable", hint=f"chmod 700 {folder}"
        )


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Generator[None]:
    """Keep every other process and thread from writing to the log; with `shared`, together with other readers."""
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_RDONLY if shared else os.O_RDWR | os.O_CREAT)
    descriptor = os.open(folder / LOCK_NAME, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)  # which lets go of the lock


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The log at one moment: open files with the lengths that they had."""

    files: tuple[tuple[str, int, int], ...]
    """Name, descriptor and length of each."""
    kept: Line | None = None

    def lines(self) -> Iterator[RawLine]:
        """Every line, oldest first."""
        for name, descriptor, length in self.files:
            yield from read_lines(name, descriptor, length)

    def lines_of(self, file: tuple[str, int, int]) -> Iterator[RawLine]:
        """Every line of one of `files`."""
        return read_lines(*file)

    def close(self) -> None:
        for _, descriptor, _ in self.files:
            os.close(descriptor)


@contextmanager
def open_log(path: Path) -> Generator[Snapshot]:
    """A log to be read: a folder with its files, or one file. Raises `Misuse` where there is none."""
    if not path.exists():
        raise Misuse(f"there is no audit log at {path}", code="no_audit_log", hint="nothing was recorded there yet")
    if not (path.is_dir() or path.is_file()):
        raise Misuse(f"{path} is neither a folder nor a file", code="audit_unreadable")
    try:
        snapshot = _open_folder(path) if path.is_dir() else _open_files([path], kept=None)
    except OSError as error:
        raise Misuse(f"the audit log {path} cannot be read: {error.strerror}", code="audit_unreadable") from error
    try:
        yield snapshot
    finally:
        snapshot.close()


def read_kept(path: Path) -> Line | None:
    """The checkpoint that was kept apart in a file; None where the file is missing or holds none."""
    try:
        with path.open("rb") as file:
            return parse(file.read(LINE_BYTES_MAX + 1).rstrip(b"\n"))
    except FileNotFoundError:
        return None


def read_lines(name: str, descriptor: int, length: int) -> Iterator[RawLine]:
    """The lines in the first `length` bytes; one that is longer than any may be is handed on cut."""
    number, rest, offset = 0, b"", 0
    while offset < length:
        block = os.pread(descriptor, min(256 * 1024, length - offset), offset)
        if not block:
            break
        offset += len(block)
        *whole, rest = (rest + block).split(b"\n")
        for data in whole:
            number += 1
            yield RawLine(file=name, number=number, data=data[: LINE_BYTES_MAX + 1])
        # Of an endless line only its beginning is kept; it is no line of a log anyway.
        rest = rest[: LINE_BYTES_MAX + 1] if len(rest) > LINE_BYTES_MAX else rest
    if rest:
        yield RawLine(file=name, number=number + 1, data=rest[: LINE_BYTES_MAX + 1])


def _open_folder(folder: Path) -> Snapshot:
    with contextlib.ExitStack() as stack:
        if (folder / LOCK_NAME).exists():  # a copy of a log has no lock, and needs none
            stack.enter_context(locked(folder, shared=True))
        paths = [folder / segment_name(number) for number in segment_numbers(folder)]
        return _open_files(paths, kept=read_kept(folder / KEPT_NAME))


def _open_files(paths: list[Path], *, kept: Line | None) -> Snapshot:
    opened: list[tuple[str, int, int]] = []
    try:
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            opened.append((path.name, descriptor, os.fstat(descriptor).st_size))
    except BaseException:
        for _, descriptor, _ in opened:
            os.close(descriptor)
        raise
    return Snapshot(files=tuple(opened), kept=kept)
