"""From samples to figures: the ratios that the project promises, and the table that people read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

_NOTE = (
    "Times are p50 / p99, a peer's p50. Peers ran in turns with us. A call is compared with a raw socketpair between "
    "two Pythons; a start runs to the first answer, behind all walls, and python with `-I -c pass` to its end; memory "
    "is what the processes of an instance hold for themselves alone."
)


def percentile(samples: Sequence[float], share: float) -> float:
    """The sample below which `share` of all lie (nearest rank)."""
    ordered = sorted(samples)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def p50(samples: Sequence[float]) -> float:
    """The median sample."""
    return percentile(samples, 0.5)


def summary(samples: dict[str, Any]) -> dict[str, float | None]:
    """The figures under their stable names."""
    cold = p50(samples["cold_start_s"])
    wrapped = samples["bubblewrap_s"]
    return {
        "call_p50_vs_socketpair": _round(p50(samples["call_one_core_s"]) / p50(samples["socketpair_one_core_s"])),
        "inflight64_calls_per_s": _round(1 / p50(samples["inflight64_s_per_call"])),
        "cold_start_ms_p50": _round(cold * 1e3),
        "cold_start_ms_p99": _round(percentile(samples["cold_start_s"], 0.99) * 1e3),
        "cold_start_spawn_vs_us": _round(p50(samples["spawn_s"]) / cold),
        "cold_start_bubblewrap_vs_us": _round(p50(wrapped) / cold) if wrapped else None,
        "recovery_p50_ms": _round(p50(samples["recovery_s"]) * 1e3),
        "metering_us_per_instance": _round(p50(samples["metering_s"]) * 1e6),
        "private_mib_per_instance": _round(p50(samples["private_bytes"]) / 2**20),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One figure as people read it: the ratio first, then what it is made of."""

    what: str
    ratio: str = ""
    ours: str
    peer: str = ""
    budget: str = ""


def lines(samples: dict[str, Any]) -> list[Line]:
    """All figures, in the order in which they are shown."""
    found: list[Line] = []
    for where, words in (("one_core", "one core"), ("two_cores", "two cores")):
        if f"call_{where}_s" in samples:
            ours, floor = samples[f"call_{where}_s"], samples[f"socketpair_{where}_s"]
            line = Line(
                what=f"100-byte call, {words}",
                ratio=f"{p50(ours) / p50(floor):.2f}x",
                ours=_times(ours, "us"),
                peer=_median(floor, "us"),
                budget="<= 2x" if where == "one_core" else "",
            )
            found.append(line)
    found.append(Line(what="64 calls in flight", ours=f"{1 / p50(samples['inflight64_s_per_call']):,.0f}/s"))
    cold = samples["cold_start_s"]
    for name, words, budget in (("spawn_s", "python", ""), ("bubblewrap_s", "bwrap+python", ">= 10x")):
        if peer := samples[name]:
            ratio = f"{p50(peer) / p50(cold):.2f}x"
            what = f"start, {words} to ours"
            found.append(Line(what=what, ratio=ratio, ours=_times(cold, "ms"), peer=_median(peer, "ms"), budget=budget))
    found.append(Line(what="kill -9 to a new answer", ours=_times(samples["recovery_s"], "ms"), budget="<= 2 ms"))
    held = p50(samples["private_bytes"]) / 2**20
    found.append(Line(what="what an instance uses, one look", ours=_times(samples["metering_s"], "us")))
    found.append(Line(what="memory when idle", ours=f"{held:.2f} MiB", budget="<= 2 MiB"))
    return found


def show(samples: dict[str, Any]) -> None:
    """A table of less than 80 columns in a terminal; elsewhere a line for each figure, which is easier to search."""
    console = Console()
    if console.is_terminal:
        console.print(_table(samples))
    else:
        for line in lines(samples):
            print(plain(line))
    console.print(_NOTE, highlight=False)
    if not samples["bubblewrap_s"]:
        console.print("bubblewrap is not installed or does not run here, so it was not measured")


def plain(line: Line) -> str:
    """One figure without a table."""
    parts = [line.ours, f"peer {line.peer}" if line.peer else "", f"budget {line.budget}" if line.budget else ""]
    return f"{line.ratio:>6}  {line.what}: {'; '.join(filter(None, parts))}"


def _table(samples: dict[str, Any]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for name in ("ratio", "what", "ours", "peer", "budget"):
        table.add_column(name, justify="left" if name == "what" else "right", no_wrap=True)
    for line in lines(samples):
        table.add_row(line.ratio, line.what, line.ours, line.peer, line.budget)
    return table


def _times(samples: Sequence[float], unit: str) -> str:
    return f"{_number(p50(samples), unit)} / {_number(percentile(samples, 0.99), unit)} {unit}"


def _median(samples: Sequence[float], unit: str) -> str:
    return f"{_number(p50(samples), unit)} {unit}"


def _number(seconds: float, unit: str) -> str:
    value = seconds * {"us": 1e6, "ms": 1e3}[unit]
    return f"{value:.1f}" if value < 1000 else f"{value:.0f}"


def _round(value: float) -> float:
    return float(f"{value:.4g}")
