"""What processes use, as read from /proc, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cardcage.sandbox.process_tree import ProcessTree

MIB = 1 << 20
Start = Callable[[str], tuple[ProcessTree, subprocess.Popen[bytes]]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[subprocess.Popen[bytes]] = []

    def begin(code: str) -> tuple[ProcessTree, subprocess.Popen[bytes]]:
        """Run code; once it has printed a line, its tree."""
        process = subprocess.Popen(
            [sys.executable, "-c", f"import os, sys, time, mmap\n{code}\nprint(flush=True)\nsys.stdin.read()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        started.append(process)
        assert process.stdout is not None
        process.stdout.readline()
        return ProcessTree(process.pid), process

    yield begin
    for process in started:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            assert stream is not None
            stream.close()


def test_memory_is_counted(start: Start) -> None:
    small, _ = start("pass")
    large, _ = start(f"held = bytearray(b'x' * {32 * MIB})")
    assert (large.usage().memory_bytes or 0) - (small.usage().memory_bytes or 0) >= 31 * MIB
    assert large.exact_bytes() - small.exact_bytes() >= 31 * MIB


def test_memory_that_processes_share_counts_once_where_it_matters(start: Start) -> None:
    tree, _ = start(
        f"held = bytearray(b'x' * {32 * MIB})\nfor _ in range(4):\n if not os.fork(): time.sleep(600)\ntime.sleep(0.1)"
    )
    assert (tree.usage().memory_bytes or 0) > 120 * MIB, "the cheap sum"
    assert tree.exact_bytes() < 80 * MIB


def test_memory_files_that_nobody_has_mapped_are_found(start: Start) -> None:
    tree, _ = start(f"held = os.memfd_create('held')\nos.write(held, bytes({8 * MIB}))")
    assert tree.look_for_hidden() >= 8 * MIB
    assert (tree.usage().memory_bytes or 0) >= 8 * MIB


def test_files_without_a_name_are_found_by_their_device(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "gone"
    tree, _ = start(f"file = open({str(path)!r}, 'wb')\nos.unlink(file.name)\nfile.write(bytes({MIB}))\nfile.flush()")
    assert tree.deleted_bytes(os.stat(tmp_path).st_dev) >= MIB
    assert tree.deleted_bytes(-1) == 0


def test_processes_and_threads_are_counted(start: Start) -> None:
    tree, _ = start(
        "import threading\nfor _ in range(3): threading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
        "if not os.fork(): time.sleep(600)"
    )
    assert tree.usage().processes == 5
    assert len(tree.members()) == 2


def test_every_one_of_a_thousand_children_is_counted(start: Start) -> None:
    tree, _ = start("for _ in range(1000):\n if not os.fork(): time.sleep(600)")
    assert tree.usage().processes == 1001


def test_cpu_time_is_counted_of_children_too_also_when_they_have_ended(start: Start) -> None:
    tree, _ = start(
        "if not os.fork():\n end = time.process_time() + 0.3\n while time.process_time() < end: pass\n os._exit(0)\n"
        "os.wait()"
    )
    assert (tree.usage().cpu_s or 0) >= 0.28


def test_activity_changes_exactly_when_something_runs(start: Start) -> None:
    tree, process = start(
        "print(flush=True); sys.stdin.readline(); end = time.process_time() + 0.05\n"
        "while time.process_time() < end: pass"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    while tree.activity() != tree.activity():
        pass  # on its way into the read
    asleep = tree.activity()
    process.stdin.write(b"go\n")
    process.stdin.flush()
    process.stdout.readline()
    assert tree.activity() > asleep


def test_held_processes_do_not_run_and_go_on_when_they_are_let_go(start: Start) -> None:
    tree, process = start("if not os.fork():\n while True: os.write(1, b'.')")
    tree.hold()
    states = [_state(pid) for pid in tree.members()]
    assert set(states) <= {"T"}, states
    tree.let_go()
    assert process.stdout is not None
    assert process.stdout.read(100_000), "it goes on writing"


def _state(pid: int) -> str:
    """The state of a process once it has noticed the signal that it was sent."""
    state = ""
    for _ in range(1000):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            return state
        os.sched_yield()
    return state


def test_a_tree_whose_root_is_gone_uses_nothing() -> None:
    child = subprocess.Popen(["true"])
    child.wait()
    tree = ProcessTree(child.pid)
    assert tree.usage().memory_bytes == 0
    assert tree.exact_bytes() == 0
    tree.hold()
    tree.let_go()
