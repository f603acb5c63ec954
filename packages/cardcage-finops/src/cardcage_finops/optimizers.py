"""`BaseOptimizer`: an optimizer that is handed all instances at once, as CloudSage writes them.

A subclass says `analyze(self, instances)` and answers one entry an instance, None where there is nothing to do. It also
serves `optimizer@1`, whose `analyze` takes one resource: both ways in are open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from msgspec.structs import replace

from cardcage_finops.models import CloudResource, OptimizationRecommendation, ResourceWithMetrics
from cardcage_sdk import CloudMindPluginBase

Found = Iterable[OptimizationRecommendation | None]


class BaseOptimizer(CloudMindPluginBase):
    """Finds what could cost less, over a list of instances. Each instance carries its `metrics`."""

    _analyze_list: Callable[..., Found]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        written = cls.__dict__.get("analyze")
        if written is not None:
            cls._analyze_list = written
            cls.analyze = BaseOptimizer.analyze

    def analyze(
        self, resource: CloudResource | list[CloudResource], metrics: dict[str, Any] | None = None
    ) -> list[Any]:
        """One resource gives its recommendations; a list of them gives what the subclass answers, None included."""
        if isinstance(resource, list):
            return list(self._analyze_list(resource))
        return [*flatten(self._analyze_list([replace(resource, metrics=dict(metrics or resource.metrics))]))]

    def analyze_many(self, items: list[ResourceWithMetrics]) -> list[OptimizationRecommendation]:
        """All recommendations for these resources, from one call of the subclass's `analyze`."""
        return flatten(self._analyze_list([replace(item.resource, metrics=item.metrics) for item in items]))


def flatten(found: Found) -> list[OptimizationRecommendation]:
    """The entries that are a recommendation, without the Nones."""
    return [entry for entry in found if entry is not None]


__all__ = ["BaseOptimizer", "OptimizationRecommendation"]
