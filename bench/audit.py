"""What the audit log costs: a plugin's call of a service that is recorded, beside the same call where nothing is.

Run it as `python bench/audit.py`: both are taken in turns, in one process. Besides it tells what handing in an event,
writing a line, a checkpoint, and verifying a line take.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from cardcage import PluginManager
from cardcage.audit import Action, AuditEvent, Trail
from cardcage.audit.file_sink import FileSink
from cardcage.audit.segments import open_log
from cardcage.audit.verify import verify_log
from cardcage.audit.writer import open_auditor
from cardcage.broker import PluginInfo

ROUNDS = 8
CALLS = 100
EVENTS = 2000

MANIFEST = "name: caller\nversion: 1.0.0\nentrypoint: caller:Caller\npermissions: [Nothing]\n"
CODE = """
from time import perf_counter

from cardcage_sdk import Plugin


class Caller(Plugin):
    def times(self, count):
        call, took = self.context.api_client.call, []
        for _ in range(count):
            began = perf_counter()
            call("nothing.do")
            took.append(perf_counter() - began)
        return took
"""


def do_nothing(caller: PluginInfo) -> None:
    pass


async def calls(folder: Path) -> dict[str, list[float]]:
    """How long recorded and unrecorded calls take, in seconds."""
    package = folder / "plugins" / "caller"
    package.mkdir(parents=True)
    (package / "plugin.yaml").write_text(MANIFEST)
    (package / "caller.py").write_text(CODE)
    took: dict[str, list[float]] = {"recorded": [], "not_recorded": []}
    for _ in range(ROUNDS):
        for name, audit in (("recorded", True), ("not_recorded", False)):
            manager = PluginManager(
                plugin_paths=[package.parent],
                state_dir=folder / name,
                grants={"caller": ["capability:Nothing"]},
                audit=audit,
            )
            manager.register_service("nothing.do", do_nothing, capability="Nothing")
            async with manager:
                took[name] += await manager.call("caller", "times", CALLS)
    return took


def each(count: int, work: Callable[[int], None]) -> float:
    """Microseconds of one of `count`."""
    began = time.perf_counter()
    for number in range(count):
        work(number)
    return (time.perf_counter() - began) / count * 1e6


def event(number: int) -> AuditEvent:
    return AuditEvent(
        action=Action.CAPABILITY_CALLED,
        reason=f"calling the service Nothing is granted {number}",
        allowed=True,
        plugin="caller",
        fields={"service": "nothing.do"},
    )


def log(folder: Path) -> dict[str, float]:
    """What the parts of the log take, in microseconds."""
    writer = open_auditor(folder / "handed-in", wall_s=time.time)
    trail = Trail(auditor=writer, plugin="caller", version="1.0.0", instance="caller")
    found = {"handing_in_us": each(EVENTS, lambda number: trail.note(Action.CAPABILITY_CALLED, str(number)))}
    writer.close()
    sink = FileSink(folder / "written", wall_s=time.time)
    batch = [event(number) for number in range(EVENTS)]
    found["line_in_a_batch_us"] = each(1, lambda _: sink.append(batch)) / EVENTS
    found["line_alone_us"] = each(200, lambda number: sink.append([event(number)]))
    found["checkpoint_us"] = each(20, lambda _: sink.checkpoint())
    sink.close()
    with open_log(folder / "written") as written:
        began = time.perf_counter()
        report = verify_log(written.lines(), kept=written.kept)
        found["verifying_a_line_us"] = (time.perf_counter() - began) / report.lines * 1e6
    assert report.intact
    return found


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cardcage-bench-") as folder:
        took = asyncio.run(calls(Path(folder)))
        found = log(Path(folder))
    medians = {name: median(samples) for name, samples in took.items()}
    document = {
        "recorded_call_us": medians["recorded"] * 1e6,
        "ratio_to_a_call_that_is_not": medians["recorded"] / medians["not_recorded"],
        **found,
    }
    print(json.dumps({name: round(value, 2) for name, value in document.items()}, indent=1))


if __name__ == "__main__":
    main()
