"""The start of everything that is enabled, when a manager is opened."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set

from cardcage.foundation.errors import CardcageError, Refused
from cardcage.manager.roster import Roster


async def start_enabled(
    found: Set[str],
    roster: Roster,
    *,
    start: Callable[[str], Awaitable[None]],
    tell: Callable[[str, CardcageError], None],
) -> None:
    """Start every enabled plugin that was found, dependencies first; one that fails is told of, and not the end."""
    resolution = roster.resolution()
    for name in sorted(found & resolution.problems.keys()):
        reasons = "; it ".join(resolution.problems[name])
        tell(name, Refused(f'plugin "{name}" cannot start: it {reasons}', code="dependencies_unmet"))
    nodes = {node.name: node for node in roster.nodes()}
    roster.note_disabled(sorted(found))
    failed: set[str] = set()
    for name in resolution.order:
        if name not in found:
            continue
        try:
            if blocked := failed.intersection(need.name for need in nodes[name].needs):
                raise Refused(
                    f'plugin "{name}" needs {", ".join(sorted(blocked))}, which did not start',
                    code="dependencies_unmet",
                )
            await start(name)
        except CardcageError as error:
            failed.add(name)
            tell(name, error)
