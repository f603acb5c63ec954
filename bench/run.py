"""`make bench`: what a call, a start, a recovery and an idle instance cost, against plain processes in the same run.

Figures of different runs, let alone of different machines, say little: what is compared is measured in turns, and what
counts is the ratio. Everything goes to build/bench.json, samples included. QUICK=1 takes fewer of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import figures
from rounds import Sizes, measure

OUTPUT = Path(__file__).resolve().parent.parent / "build" / "bench.json"


def main() -> int:
    quick = os.environ.get("QUICK", "") not in ("", "0")
    sizes = Sizes.quick() if quick else Sizes.full()
    logging.getLogger("cardcage.plugin").setLevel(logging.CRITICAL)  # the crashes are meant
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="cardcage-bench-") as state_dir:
        samples = asyncio.run(measure(sizes, Path(state_dir), say=_say))
    document: dict[str, Any] = {
        **figures.summary(samples),
        "machine": {
            "system": f"{platform.system()} {platform.release()}",
            "cpus": len(os.sched_getaffinity(0)),
            "python": platform.python_version(),
        },
        "quick": quick,
        "seconds": round(time.perf_counter() - began_s, 1),
        "samples": samples,
    }
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    figures.show(samples)
    print(f"\n{document['seconds']} s; all samples in {OUTPUT.relative_to(OUTPUT.parent.parent)}")
    return 0


def _say(what: str) -> None:
    print(f"measuring {what} ...", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
