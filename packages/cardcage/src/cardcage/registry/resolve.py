"""Decides what can start, and in which order.

Dependencies come first; among plugins that do not wait for each other the lower priority number comes first, as with
hooks; equal ones go by name. A plugin that cannot start takes along those that need it, and each says why.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cardcage.foundation.errors import Fault, InvalidDocument
from cardcage.manifest.versions import version_matches
from cardcage.registry.model import InstalledPlugin

CIRCLE_NAMES_MAX: Final = 20
"""Names of a circle that are written out. A person follows fewer; the text stands at each of its members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One dependency: the plugin's name and the range of versions that will do (`""` or `*` is any)."""

    name: str
    range: str = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """What resolving has to know of a plugin."""

    name: str
    version: str = "0.0.0"
    needs: tuple[Need, ...] = ()
    priority: int = 50
    enabled: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """`order` holds what can start, each after what it needs; `problems` says of every other one why it cannot.

    `cycles` are the circles found, each as its members in order, from the smallest name on.
    """

    order: tuple[str, ...]
    problems: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    cycles: tuple[tuple[str, ...], ...] = ()

    def require(self, *names: str) -> None:
        """Raise `InvalidDocument` (code `dependencies_unmet`) with every problem of these plugins, or of all."""
        chosen = names or tuple(self.problems)
        faults = [Fault(path=name, message=problem) for name in chosen for problem in self.problems.get(name, ())]
        if faults:
            raise InvalidDocument("the plugins' dependencies", faults, code="dependencies_unmet")


def node_of(plugin: InstalledPlugin) -> Node:
    """What resolving has to know of an installed plugin."""
    return Node(
        name=plugin.name,
        version=plugin.version,
        needs=tuple(Need(name=each.name, range=each.range) for each in plugin.manifest.dependencies),
        priority=plugin.priority,
        enabled=plugin.enabled,
    )


def resolve(nodes: Iterable[Node]) -> Resolution:
    """The start order of what can start, and every problem of what cannot. A disabled plugin does not count."""
    all_nodes = {node.name: node for node in nodes}
    wanted = {name: node for name, node in all_nodes.items() if node.enabled}
    cycles = find_cycles({name: _needed_names(node, wanted) for name, node in wanted.items()})
    problems = {name: _own_problems(node, all_nodes) for name, node in sorted(wanted.items())}
    for cycle in cycles:
        text = f"waits for itself: {_drawn(cycle)}"
        for name, following in zip(cycle, (*cycle[1:], cycle[0]), strict=True):
            problems[name].setdefault(following, text)
    _spread(wanted, problems)
    able = {name: node for name, node in wanted.items() if not problems[name]}
    return Resolution(
        order=_start_order(able),
        problems={name: tuple(found.values()) for name, found in problems.items() if found},
        cycles=cycles,
    )


def dependents(name: str, nodes: Iterable[Node]) -> tuple[str, ...]:
    """What a stop of `name` drags along, in the order in which to stop it: each before what it needs, `name` last.

    Disabled plugins count here: one that was disabled while it ran runs until it is stopped.
    """
    known = {node.name: node for node in nodes}
    needed_by = _reversed_needs(known)
    reached = {name}
    waiting = [name]
    while waiting:
        for dependent in needed_by.get(waiting.pop(), ()):
            if dependent not in reached:
                reached.add(dependent)
                waiting.append(dependent)
    first_to_last = _start_order({each: known[each] for each in reached if each in known})
    circled = sorted(reached - {*first_to_last, name})
    return (*circled, *(each for each in reversed(first_to_last) if each != name), name)


def find_cycles(graph: Mapping[str, Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """One circle for every group of plugins that wait for each other: its members in order, the smallest name first."""
    return tuple(_shortest_circle(graph, group) for group in _groups(graph))


def _drawn(cycle: Sequence[str]) -> str:
    """`a -> b -> c -> a`; of a very long circle its beginning and its end."""
    left_out = len(cycle) - CIRCLE_NAMES_MAX
    names = cycle if left_out <= 0 else (*cycle[: CIRCLE_NAMES_MAX - 1], f"({left_out} more)", cycle[-1])
    return " -> ".join([*names, cycle[0]])


def _own_problems(node: Node, all_nodes: Mapping[str, Node]) -> dict[str, str]:
    """What is wrong with a plugin's dependencies, by the name of each."""
    unmet = ((need.name, _unmet(need, all_nodes.get(need.name))) for need in node.needs)
    return {name: problem for name, problem in unmet if problem}


def _unmet(need: Need, found: Node | None) -> str | None:
    wanted = need.name if need.range in ("", "*") else f"{need.name} {need.range}"
    if found is None:
        return f"needs {wanted}, which is not installed"
    # Any version is any version, a pre-release too; a range means what it says of them.
    if need.range not in ("", "*") and not version_matches(need.range, found.version):
        return f"needs {wanted}, but {found.version} is installed"
    if not found.enabled:
        return f"needs {wanted}, which is disabled"
    return None


def _needed_names(node: Node, among: Mapping[str, Node]) -> tuple[str, ...]:
    return tuple(sorted({need.name for need in node.needs if need.name in among}))


def _spread(nodes: Mapping[str, Node], problems: Mapping[str, dict[str, str]]) -> None:
    """Whoever needs one that cannot start cannot start either, and says so where it has not said why already."""
    needed_by = _reversed_needs(nodes)
    waiting = [name for name, found in problems.items() if found]
    for broken in waiting:  # grows while it is walked
        for dependent in needed_by.get(broken, ()):
            found = problems[dependent]
            if not found:
                waiting.append(dependent)
            found.setdefault(broken, f"needs {broken}, which cannot start")


def _reversed_needs(nodes: Mapping[str, Node]) -> dict[str, list[str]]:
    needed_by: dict[str, list[str]] = {}
    for name, node in sorted(nodes.items()):
        for needed in _needed_names(node, nodes):
            needed_by.setdefault(needed, []).append(name)
    return needed_by


def _start_order(nodes: Mapping[str, Node]) -> tuple[str, ...]:
    missing = {name: len(_needed_names(node, nodes)) for name, node in nodes.items()}
    needed_by = _reversed_needs(nodes)
    ready = [(node.priority, name) for name, node in nodes.items() if not missing[name]]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        _, name = heapq.heappop(ready)
        order.append(name)
        for dependent in needed_by.get(name, ()):
            missing[dependent] -= 1
            if not missing[dependent]:
                heapq.heappush(ready, (nodes[dependent].priority, dependent))
    return tuple(order)


def _groups(graph: Mapping[str, Sequence[str]]) -> list[frozenset[str]]:
    """The strongly connected groups that hold a circle, by smallest name.

    Tarjan, "Depth-first search and linear graph algorithms" (1972), with a stack of its own: ten thousand plugins in
    one chain would pass the interpreter's.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    on_stack: set[str] = set()
    groups: list[frozenset[str]] = []
    for root in sorted(graph):
        if root in index:
            continue
        work = [(root, iter(graph[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, rest = work[-1]
            following = next(rest, None)
            if following is None:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[name])
                if low[name] == index[name]:
                    group = _pop_group(stack, on_stack, name)
                    if len(group) > 1 or name in graph[name]:
                        groups.append(group)
            elif following not in index:
                index[following] = low[following] = len(index)
                stack.append(following)
                on_stack.add(following)
                work.append((following, iter(graph[following])))
            elif following in on_stack:
                low[name] = min(low[name], index[following])
    return sorted(groups, key=min)


def _pop_group(stack: list[str], on_stack: set[str], last: str) -> frozenset[str]:
    group: set[str] = set()
    while last not in group:
        name = stack.pop()
        on_stack.discard(name)
        group.add(name)
    return frozenset(group)


def _shortest_circle(graph: Mapping[str, Sequence[str]], group: frozenset[str]) -> tuple[str, ...]:
    start = min(group)
    came_from: dict[str, str] = {}
    waiting = [start]
    for name in waiting:  # grows while it is walked: breadth first
        for following in sorted(graph[name]):
            if following == start:
                return _path_to(name, came_from)
            if following in group and following not in came_from:
                came_from[following] = name
                waiting.append(following)
    raise AssertionError(f"{start} stands in a circle that does not come back to it")


def _path_to(name: str, came_from: Mapping[str, str]) -> tuple[str, ...]:
    path = [name]
    while path[-1] in came_from:
        path.append(came_from[path[-1]])
    return tuple(reversed(path))
