"""`cardcage plugin top`: what plugins use beside what they may use, for as long as the command runs."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cardcage.cli.loop import run
from cardcage.cli.options import Isolation, Json, Policy, StateDir
from cardcage.cli.text import console, print_json, safe, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from cardcage.egress import EgressCount
    from cardcage.manager import InstanceUsage, PluginManager

    Egress = dict[str, Sequence[EgressCount]]


def top(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", help="Only these plugins.", show_default=False)
    ] = None,
    looks: Annotated[
        int | None,
        typer.Option("--looks", min=1, metavar="N", help="End after so many looks. Without a terminal: 1."),
    ] = None,
    every: Annotated[float, typer.Option("--every", min=0.1, metavar="SECONDS", help="Between two looks.")] = 1.0,
    isolation: Isolation = "process",
    policy: Policy = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Start the enabled plugins, or those named, and show what each uses of its limits until Ctrl-C."""
    if looks is None and (as_json or not sys.stdout.isatty()):
        looks = 1
    settings: dict[str, Any] = {"state_dir": state_dir, "isolation": isolation, "policy": policy}
    run(_top(names or [], looks, every, settings, as_json))


async def _top(names: list[str], looks: int | None, every_s: float, settings: dict[str, Any], as_json: bool) -> None:
    import asyncio

    from cardcage.cli.host import Target, installed, open_host

    targets = [Target.parse(name) for name in names]
    async with open_host(**settings, target=targets[0] if len(targets) == 1 else None) as host:
        for target in targets:
            installed(host.store, target)
        for name in names or _enabled(host.manager):
            await host.manager.start_plugin(name)
        before, at_s = host.manager.usage_all(), time.monotonic()
        done = 0
        while looks is None or done < looks:
            await asyncio.sleep(every_s)
            now, now_s = host.manager.usage_all(), time.monotonic()
            shares = {instance: _share(before.get(instance), used, now_s - at_s) for instance, used in now.items()}
            _show(now, shares, {instance: host.manager.egress(instance) for instance in now}, as_json)
            before, at_s, done = now, now_s, done + 1


def _enabled(manager: PluginManager) -> list[str]:
    return [name for name in manager.list_plugins() if manager.plugin_info(name).enabled]


def _share(before: InstanceUsage | None, now: InstanceUsage, seconds: float) -> float | None:
    """Cores used since the look before."""
    if before is None or before.cpu_s is None or now.cpu_s is None:
        return None
    return max(0.0, now.cpu_s - before.cpu_s) / seconds


def _show(used: dict[str, InstanceUsage], shares: dict[str, float | None], egress: Egress, as_json: bool) -> None:
    if as_json:
        print_json(
            [
                _document(instance, each, shares[instance])
                | {"egress": [count.to_json() for count in egress[instance]]}
                for instance, each in sorted(used.items())
            ]
        )
        return
    out = console()
    if out.is_terminal:
        out.clear()
    out.print(_table(used, shares, egress) if used else "No plugin is running.")


def _document(instance: str, used: InstanceUsage, share: float | None) -> dict[str, Any]:
    limits = used.limits
    return {
        "instance": instance,
        "memory_bytes": used.memory_bytes,
        "memory_limit_bytes": limits.memory_bytes,
        "cpu_s": used.cpu_s,
        "cpu_cores": None if share is None else round(share, 4),
        "cpu_limit_cores": limits.cpu_cores,
        "processes": used.processes,
        "processes_limit": limits.processes,
        "disk_bytes": used.disk_bytes,
        "disk_limit_bytes": limits.disk_bytes,
        "files": used.files,
        "files_limit": limits.inodes,
        "hits": asdict(used.hits),
    }


def _table(used: dict[str, InstanceUsage], shares: dict[str, float | None], egress: Egress) -> Table:
    heads = ("instance", "memory", "of", "cpu", "of", "processes", "of", "disk", "of", "files", "of")
    shown = table(*heads, "network", "ran into")
    for instance, each in sorted(used.items()):
        limits = each.limits
        shown.add_row(
            safe(instance),
            _size(each.memory_bytes),
            _size(limits.memory_bytes),
            _cores(shares[instance]),
            _cores(limits.cpu_cores),
            _count(each.processes),
            _count(limits.processes),
            _size(each.disk_bytes),
            _size(limits.disk_bytes),
            _count(each.files),
            _count(limits.inodes),
            _sent(egress[instance]),
            _hits(each),
        )
    return shown


def _hits(used: InstanceUsage) -> str:
    hits = used.hits
    words = (
        f"memory {hits.oom_kills}x" if hits.oom_kills else "",
        f"processes {hits.process_refusals}x" if hits.process_refusals else "",
        f"cpu {hits.throttled_periods}x" if hits.throttled_periods else "",
    )
    return ", ".join(word for word in words if word) or "-"


def _sent(counts: Sequence[EgressCount]) -> str:
    """Bytes up and down, and how many connections were refused."""
    if not counts:
        return "-"
    up, down = sum(each.bytes_up for each in counts), sum(each.bytes_down for each in counts)
    refused = sum(each.refused for each in counts)
    return f"{_size(up)} up, {_size(down)} down" + (f", {refused} refused" if refused else "")


def _size(count: int | None) -> str:
    from cardcage.foundation.sizes import size_text

    return "-" if count is None else size_text(count)


def _count(count: int | None) -> str:
    return "-" if count is None else str(count)


def _cores(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"
