"""From samples to figures: the ratios that the project promises, and the table that people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

_NOTE = (
    "Calls are compared with a raw socketpair between two Pythons; cold starts run to the first answer, behind all "
    "walls; memory is what all processes of an instance hold for themselves alone."
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
        "private_mib_per_instance": _round(p50(samples["private_bytes"]) / 2**20),
    }


def show(samples: dict[str, Any]) -> None:
    """The table: the ratio first, then what it is made of."""
    made = Table(title="Cardcage, against plain processes in the same run", title_justify="left")
    for name in ("what", "ratio", "p50", "p99", "peer p50", "peer p99", "budget"):
        made.add_column(name, justify="left" if name in ("what", "budget") else "right")
    for where, words in (("one_core", "one core"), ("two_cores", "two cores")):
        if f"call_{where}_s" in samples:
            ours, floor = samples[f"call_{where}_s"], samples[f"socketpair_{where}_s"]
            budget = "<= 2.0x" if where == "one_core" else ""
            row = [f"{p50(ours) / p50(floor):.2f}x", *_times(ours, "us"), *_times(floor, "us"), budget]
            made.add_row(f"100-byte call, {words}", *row)
    rate = 1 / p50(samples["inflight64_s_per_call"])
    made.add_row("64 calls in flight", "", f"{rate:,.0f}/s", "", "", "", "")
    cold = samples["cold_start_s"]
    for name, words in (("spawn_s", "python -I -c pass"), ("bubblewrap_s", "bubblewrap + python")):
        if peer := samples[name]:
            row = [f"{p50(peer) / p50(cold):.2f}x as fast", *_times(cold, "ms"), *_times(peer, "ms")]
            made.add_row(f"cold start, to {words}", *row, ">= 10x faster" if "bubble" in name else "")
    made.add_row("kill -9 to a new answer", "", *_times(samples["recovery_s"], "ms"), "", "", "<= 2 ms")
    held = p50(samples["private_bytes"]) / 2**20
    made.add_row("memory of an idle instance", "", f"{held:.2f} MiB", "", "", "", "<= 2 MiB")
    console = Console()
    console.print(made)
    console.print(_NOTE)
    if not samples["bubblewrap_s"]:
        console.print("bubblewrap is not installed or does not run here, so it was not measured")


def _times(samples: Sequence[float], unit: str) -> tuple[str, str]:
    scale = {"us": 1e6, "ms": 1e3}[unit]
    return f"{p50(samples) * scale:.1f} {unit}", f"{percentile(samples, 0.99) * scale:.1f} {unit}"


def _round(value: float) -> float:
    return float(f"{value:.4g}")
