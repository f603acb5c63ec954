"""Small versions of `make soak` and `make fuzz`: a hundred starts, some thousand frames, some runs of each target."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hostile_suite.frames import Tally, feed_channels, feed_session

from cardcage_sdk.wire import Encoding

HERE = Path(__file__).parent
TARGETS = ["session", "weight", "manifest", "policy"]


def run(script: str, *arguments: str, timeout_s: float = 110.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, HERE / script, *arguments], capture_output=True, text=True, timeout=timeout_s, check=False
    )


def test_a_hundred_starts_and_ends_of_every_kind_leave_nothing_behind(tmp_path: Path, machine_has_walls: None) -> None:
    written = tmp_path / "soak.json"
    done = run("soak.py", "--starts", "100", "--frames", "0", "--json", str(written))
    assert done.returncode == 0, done.stdout + done.stderr
    starts: dict[str, Any] = json.loads(written.read_text())["starts"]
    assert starts["grown"] == {}
    assert sum(starts["counts"].values()) == 100
    assert "Left behind: nothing" in done.stdout


@pytest.mark.parametrize("encoding", list(Encoding))
def test_frames_of_every_kind_do_not_make_a_session_crash_or_grow(encoding: Encoding) -> None:
    feed_session(500, seed=1, encoding=encoding, tally=Tally())
    tracemalloc.start()
    try:
        tally = Tally()
        before, _ = tracemalloc.get_traced_memory()
        feed_session(5_000, seed=2, encoding=encoding, tally=tally)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert tally.frames == 5_000
    assert tally.messages > 300, "most of what is made should not be noise"
    assert set(tally.faults) >= {"malformed", "unexpected_message", "call_id"}
    assert after - before < 2 << 20


@pytest.mark.parametrize("encoding", list(Encoding))
async def test_frames_of_every_kind_end_a_channel_and_every_call_on_it(encoding: Encoding) -> None:
    tally = Tally()
    await feed_channels(1_000, seed=3, encoding=encoding, tally=tally)
    assert tally.connections == 50


def test_the_same_seed_makes_the_same_frames() -> None:
    first, second = Tally(), Tally()
    for tally in (first, second):
        feed_session(300, seed=7, encoding=Encoding.BINARY, tally=tally)
    assert first == second


@pytest.mark.parametrize("target", TARGETS)
def test_a_fuzz_target_runs_from_its_seeds_and_finds_nothing_at_once(target: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is built for Linux on x86_64 and Python up to 3.13 only")
    done = run("fuzz.py", target, "0", "--runs", "400", "--corpus", str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Done 400 runs" in done.stderr


@pytest.mark.parametrize("target", TARGETS)
def test_an_input_can_be_run_again_without_a_fuzzer(target: str, tmp_path: Path) -> None:
    found = tmp_path / "crash-1"
    found.write_bytes(b"\0\0\0\0\1\xc1: [")
    done = run("fuzz.py", target, str(found))
    assert (done.returncode, "read without a crash" in done.stdout) == (0, True), done.stderr


def test_a_crash_of_a_target_is_told_by_its_status(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is built for Linux on x86_64 and Python up to 3.13 only")
    broken = tmp_path / "broken.py"
    code = (HERE / "fuzz.py").read_text()
    broken.write_text(
        code.replace("overweight(data[1:]", "assert b'x' not in data; overweight(data[1:]").replace(
            "Path(__file__).parents[2]", f"Path({str(HERE.parents[1])!r})"
        )
    )
    done = subprocess.run(
        [sys.executable, broken, "weight", "20", "--corpus", str(tmp_path)],
        env={"PYTHONPATH": str(HERE)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode != 0
    assert list(tmp_path.glob("weight-crash-*"))
