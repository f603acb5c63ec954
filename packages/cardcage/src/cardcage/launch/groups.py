"""A runner's dealings with control groups: one for each start, a row of the report, and what it tells at the end."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Final

import msgspec

from cardcage.foundation.errors import PluginFault
from cardcage.launch.exits import Evidence
from cardcage.launch.runner import LaunchSpec
from cardcage.sandbox.control_groups import KEPT_MAX, ControlGroup
from cardcage.sandbox.group_search import GroupsFound
from cardcage.sandbox.plan import SandboxPlan
from cardcage.sandbox.report import Layer, LayerName, LayerStatus

_SPARE_PROCESSES: Final = 8
"""Processes that RLIMIT_NPROC allows above the group's bound: it would be hit first, and counts nothing."""

RECENT_S: Final = 5.0
"""A process that ends because it was refused another does so by then, its last prints and its clean-up included. One
that goes on for longer has coped, and ends for another reason."""


def make_group(groups: GroupsFound | None, spec: LaunchSpec, *, own_processes: int = 0) -> ControlGroup | None:
    """The group for one start, or None where this machine has none. Raises `PluginFault(code="setup_failed")`."""
    if groups is None or groups.driver is None:
        return None
    try:
        return groups.driver.make(str(spec.instance), spec.plan.limits, own_processes=own_processes)
    except OSError as error:
        raise PluginFault(
            f'plugin "{spec.plugin}" {spec.version} could not be given its limits: {error.strerror} '
            f"({error.filename or 'a control group'})",
            code="setup_failed",
            plugin=spec.plugin,
            version=spec.version,
            instance=spec.instance,
        ) from error


def layer_of(groups: GroupsFound | None = None) -> Layer:
    """What the report says of the limits that groups keep."""
    if groups is None or groups.driver is None:
        detail = "no control group can be made" + (f": {groups.why_not}" if groups is not None else "")
        return Layer(name=LayerName.CGROUP_LIMITS, status=LayerStatus.UNAVAILABLE, detail=detail)
    kept = ", ".join(name for name in KEPT_MAX if name in groups.driver.keeps)
    detail = f"control groups {groups.driver.version}: {kept}"
    if groups.driver.keeps >= set(KEPT_MAX):
        return Layer(name=LayerName.CGROUP_LIMITS, status=LayerStatus.ENFORCED, detail=detail)
    detail += f"; not {groups.why_not}"
    return Layer(name=LayerName.CGROUP_LIMITS, status=LayerStatus.BEST_EFFORT, detail=detail)


def plan_in_group(plan: SandboxPlan, group: ControlGroup | None) -> SandboxPlan:
    """The plan without those limits of a single process that would be hit before the group's, and tell less."""
    if group is None:
        return plan
    rlimits = dict(plan.rlimits)
    if "memory" in group.keeps:
        rlimits.pop("DATA", None)
    if "pids" in group.keeps and "NPROC" in rlimits:
        rlimits["NPROC"] += _SPARE_PROCESSES
    return msgspec.structs.replace(plan, rlimits=rlimits)


def evidence_of(group: ControlGroup | None, known: Evidence, now_s: float | None = None) -> Evidence:
    """What is known of an end that came just now, with what its group ran into."""
    if group is None:
        return known
    hits, refused_at_s = group.hits(), group.refused_at_s
    ended_at_s = time.monotonic() if now_s is None else now_s
    recently = refused_at_s is not None and ended_at_s - refused_at_s <= RECENT_S
    return replace(known, out_of_memory=hits.oom_kills > 0, process_limit_hit=recently)
