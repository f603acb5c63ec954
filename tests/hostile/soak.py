"""`make soak`: a million frames, and ten thousand starts and stops; then counts what was left behind."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from hostile_suite.endings import Endings
from hostile_suite.frames import Tally, feed_channels, feed_session
from hostile_suite.leaks import GROWTH_ALLOWED_KIB, Holdings, count, growth, resident_kib
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from cardcage import CardcageError
from cardcage_sdk.wire import Encoding

BUILD = Path(__file__).parent.parent.parent / "build"
FRAMES_GROWTH_ALLOWED_KIB = 32 * 1024
_BATCH = 10_000


def main() -> int:
    """0 where nothing was left behind and nothing has grown, 1 otherwise, 2 where nothing could be started."""
    parser = argparse.ArgumentParser(prog="make soak", description=main.__doc__)
    parser.add_argument("--starts", type=int, default=10_000)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, default=BUILD / "soak.json")
    options = parser.parse_args()
    logging.getLogger("cardcage").addHandler(logging.NullHandler())
    logging.getLogger("cardcage").propagate = False
    console = Console(width=None if sys.stdout.isatty() else 120)
    bars = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    result: dict[str, Any] = {}
    try:
        with Progress(*bars, console=console) as progress:
            if options.frames:
                result["frames"] = soak_frames(options.frames, options.seed, progress)
            if options.starts:
                result["starts"] = asyncio.run(soak_starts(options.starts, options.seed, progress))
    except CardcageError as error:
        console.print(f"soak: {error.message}", style="red", markup=False)
        return 2
    for part in result.values():
        console.print(_table(part))
    grown = {f"{name} {what}": figures for name, part in result.items() for what, figures in part["grown"].items()}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=1) + "\n")
    console.print("Left behind: " + (str(grown) if grown else "nothing"), style="bold red" if grown else "bold")
    return 1 if grown else 0


def soak_frames(frames: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Most of them through sessions alone, a twentieth through whole channels on real sockets."""
    task = progress.add_task("frames", total=frames)
    tally = Tally()
    feed_session(_BATCH, seed=seed, encoding=Encoding.BINARY, tally=tally)
    before, begun_s = resident_kib(), time.monotonic()
    while tally.frames < frames:
        encoding = Encoding.JSON if tally.frames // _BATCH % 4 == 3 else Encoding.BINARY
        if tally.frames // _BATCH % 20 == 0:
            asyncio.run(feed_channels(_BATCH, seed=seed + tally.frames, encoding=encoding, tally=tally))
        else:
            feed_session(_BATCH, seed=seed + tally.frames, encoding=encoding, tally=tally)
        progress.update(task, completed=tally.frames)
    after = resident_kib()
    grown = {"memory_kib": (before, after)} if after > before + FRAMES_GROWTH_ALLOWED_KIB else {}
    return {
        "what": f"{tally.frames} frames",
        "seconds": round(time.monotonic() - begun_s, 1),
        "counts": {
            "messages taken": tally.messages,
            "faults": sum(tally.faults.values()),
            "values refused": tally.refused_values,
            "connections": tally.connections,
        },
        "before": {"memory_kib": before},
        "after": {"memory_kib": after},
        "grown": grown,
    }


async def soak_starts(starts: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Every way to end, mixed; counted with all instances gone and the fork server still there."""
    task = progress.add_task("starts", total=starts)
    with tempfile.TemporaryDirectory(prefix="cardcage-soak-") as folder:
        endings = Endings(Path(folder), seed=seed)
        async with endings.manager() as manager:
            await endings.prepare(manager)
            await endings.run(manager, min(100, starts), lambda _: None)  # caches and pools are full after that
            endings.counts.clear()
            before, begun_s = count(Path(folder)), time.monotonic()
            await endings.run(manager, starts, lambda done: progress.advance(task, done))
            after = await settled(lambda: count(Path(folder)), before)
        seconds = time.monotonic() - begun_s
    return {
        "what": f"{starts} starts and stops",
        "seconds": round(seconds, 1),
        "counts": dict(sorted(endings.counts.items())),
        "before": before.to_json(),
        "after": after.to_json(),
        "grown": growth(before, after),
    }


async def settled(look: Any, before: Holdings) -> Holdings:
    """The counts, once what is on its way out has gone, and at the latest after some seconds."""
    for _ in range(50):
        if not growth(before, look()):
            break
        await asyncio.sleep(0.1)
    return look()


def _table(part: dict[str, Any]) -> Table:
    table = Table(title=f"{part['what']} in {part['seconds']} s", title_justify="left", header_style="bold")
    table.add_column("what")
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    table.add_column("may grow by", justify="right")
    for name, count_ in part["counts"].items():
        table.add_row(name, "", str(count_), "", style="dim")
    for name, then in part["before"].items():
        allowed = GROWTH_ALLOWED_KIB.get(name, 0) if "processes" in part["before"] else FRAMES_GROWTH_ALLOWED_KIB
        table.add_row(
            name, str(then), str(part["after"][name]), str(allowed), style="red" if name in part["grown"] else ""
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
