"""What the pack offers to plugins while an analysis is under way, as the host answers it. Plugins use `clients`.

One interface stands behind each capability of the pack. All are about the analysis that the asking instance takes part
in; an instance that belongs to none is answered about the one under way.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from cardcage.contracts import service
from cardcage_finops.models import (
    CloudResource,
    CostPeriod,
    DailyCost,
    MetricSummary,
    OptimizationRecommendation,
    RaisedAlert,
    Totals,
)


@service("costs", capability="ReadCostData")
class CostData(Protocol):
    """The costs of the bill, once it has been read."""

    async def period(self) -> CostPeriod:
        """The days and currencies of the bill."""
        ...

    async def totals(self) -> dict[str, Totals]:
        """The four costs of the whole bill, by currency."""
        ...

    async def daily(self, service: str = "", account: str = "") -> list[DailyCost]:
        """Cost by day: the whole, one series a currency; or the series of one service, one account, or both."""
        ...

    async def resources(self, after: str = "", limit: int = 500) -> list[CloudResource]:
        """What costs money in the main currency, by id, from after `after`, at most `limit` at once."""
        ...


@service("instance_metrics", capability="ReadInstanceMetrics")
class InstanceMetrics(Protocol):
    """The metrics of resources, once they have been collected."""

    async def summaries(self, resource_ids: list[str]) -> list[MetricSummary]:
        """The summaries of these resources; those that have no metrics are left out."""
        ...


@service("recommendations", capability="WriteRecommendations")
class Recommendations(Protocol):
    """What could cost less, said by plugins that are no optimizers."""

    async def add(self, recommendations: list[OptimizationRecommendation]) -> int:
        """Add recommendations; returns how many may stand. Each is signed with the plugin's own name."""
        ...


@service("alerts", capability="AlertManagement")
class Alerts(Protocol):
    """Alerts, which are reported with the analysis."""

    async def trigger(self, name: str, details: dict[str, Any] | None = None) -> bool:
        """Raise an alert; False where there is no room for more."""
        ...

    async def raised(self) -> list[RaisedAlert]:
        """The alerts that this plugin has raised so far."""
        ...


SERVICES: Final[tuple[type, ...]] = (CostData, InstanceMetrics, Recommendations, Alerts)
"""Each behind one of `CAPABILITIES`."""
