"""Whether what plugins recommend can be true of this bill. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from cardcage_finops.models import CloudResource, OptimizationRecommendation

COMPLAINTS_MAX: Final = 20
"""Of one call; a plugin that is wrong about everything need not say so a thousand times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What may stand, and a sentence for each that may not."""

    kept: list[OptimizationRecommendation]
    complaints: list[str]


def checked_recommendations(
    found: Iterable[OptimizationRecommendation], resources: Mapping[str, CloudResource], *, source: str
) -> Checked:
    """Keep what is about a resource of the bill and saves more than nothing and no more than it costs."""
    kept: list[OptimizationRecommendation] = []
    complaints: list[str] = []
    for one in found:
        problem = _problem(one, resources.get(one.resource_id))
        if problem is None:
            kept.append(replace(one, source=source))
        elif len(complaints) < COMPLAINTS_MAX:
            complaints.append(f'a recommendation of "{source}" was left out: {problem}')
    return Checked(kept=kept, complaints=complaints)


def _problem(one: OptimizationRecommendation, resource: CloudResource | None) -> str | None:
    if resource is None:
        return f"the bill has no resource {one.resource_id!r}"
    if one.estimated_savings <= 0:
        return f"it would save {one.estimated_savings} on {one.resource_id!r}"
    if one.currency != resource.currency:
        return f"it is in {one.currency}, but {one.resource_id!r} is billed in {resource.currency}"
    if resource.monthly_cost is not None and one.estimated_savings > resource.monthly_cost:
        return (
            f"it would save {one.estimated_savings} on {one.resource_id!r}, which costs {resource.monthly_cost} a month"
        )
    return None
