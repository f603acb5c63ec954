"""Several optimizers may speak on one resource, but only one thing can be done to it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal, localcontext

from cardcage_finops.models import OptimizationRecommendation
from cardcage_finops.pipeline.amounts import EXACT, ZERO


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """The recommendation that stands for a resource, and those that stand back for it."""

    chosen: OptimizationRecommendation
    alternatives: tuple[OptimizationRecommendation, ...] = ()


def arbitrate(recommendations: Iterable[OptimizationRecommendation]) -> list[Ruling]:
    """One ruling for each resource: the greatest savings x confidence stands, the rest are its alternatives.

    Ties go to the greater confidence, then to the plugin's name and the action, so that the order of answers makes no
    difference. The rulings come with the greatest savings first.
    """
    by_resource: dict[str, list[OptimizationRecommendation]] = {}
    for one in recommendations:
        by_resource.setdefault(one.resource_id, []).append(one)
    rulings: list[Ruling] = []
    for group in by_resource.values():
        first, *rest = sorted(group, key=_rank)
        rulings.append(Ruling(chosen=first, alternatives=tuple(rest)))
    return sorted(rulings, key=lambda ruling: (-ruling.chosen.estimated_savings, ruling.chosen.resource_id))


def total_savings(rulings: Iterable[Ruling], currency: str) -> Decimal:
    """What the chosen recommendations of one currency save in a month. Alternatives are never added."""
    with localcontext(EXACT):
        chosen = (ruling.chosen for ruling in rulings)
        return sum((one.estimated_savings for one in chosen if one.currency == currency), ZERO)


def _rank(one: OptimizationRecommendation) -> tuple[float, float, str, str]:
    weight = float(one.estimated_savings) * one.confidence
    return (-weight, -one.confidence, one.source, one.action)
