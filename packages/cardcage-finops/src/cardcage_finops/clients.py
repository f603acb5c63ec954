"""The pack's services as plugins call them, typed: `Costs(self.context).totals()`.

Each method waits for the host; the one with an `a` before its name is awaited, for `async def` code. Raises
`cardcage_sdk.context.HostError`: `refused` without the capability that stands beside each class, `unavailable` while
no analysis has come so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from msgspec import convert, to_builtins

from cardcage_finops.models import (
    CloudResource,
    CostPeriod,
    DailyCost,
    MetricSummary,
    OptimizationRecommendation,
    RaisedAlert,
    Totals,
)
from cardcage_sdk import PluginContext, current_context

T = TypeVar("T")


class _Client:
    """A service, reached through the plugin's context; without one through the context of this process's plugin."""

    def __init__(self, context: PluginContext | None = None) -> None:
        self._api = (context or current_context()).api_client

    def _call(self, kind: type[T], name: str, *args: Any) -> T:
        return convert(self._api.call(name, *args), kind)

    async def _acall(self, kind: type[T], name: str, *args: Any) -> T:
        return convert(await self._api.acall(name, *args), kind)


class Costs(_Client):
    """The costs of the bill. Needs `ReadCostData`."""

    def period(self) -> CostPeriod:
        """The days and currencies of the bill."""
        return self._call(CostPeriod, "costs.period")

    def totals(self) -> dict[str, Totals]:
        """The four costs of the whole bill, by currency."""
        return self._call(dict[str, Totals], "costs.totals")

    def daily(self, service: str = "", account: str = "") -> list[DailyCost]:
        """Cost by day: the whole, one series a currency; or the series of one service, one account, or both."""
        return self._call(list[DailyCost], "costs.daily", service, account)

    def resources(self, after: str = "", limit: int = 500) -> list[CloudResource]:
        """What costs money in the main currency, by id, from after `after`."""
        return self._call(list[CloudResource], "costs.resources", after, limit)

    async def aperiod(self) -> CostPeriod:
        """`period`, awaited."""
        return await self._acall(CostPeriod, "costs.period")

    async def atotals(self) -> dict[str, Totals]:
        """`totals`, awaited."""
        return await self._acall(dict[str, Totals], "costs.totals")

    async def adaily(self, service: str = "", account: str = "") -> list[DailyCost]:
        """`daily`, awaited."""
        return await self._acall(list[DailyCost], "costs.daily", service, account)

    async def aresources(self, after: str = "", limit: int = 500) -> list[CloudResource]:
        """`resources`, awaited."""
        return await self._acall(list[CloudResource], "costs.resources", after, limit)


class Metrics(_Client):
    """The metrics of resources. Needs `ReadInstanceMetrics`."""

    def summaries(self, resource_ids: Sequence[str]) -> list[MetricSummary]:
        """The summaries of these resources; those that have no metrics are left out."""
        return self._call(list[MetricSummary], "instance_metrics.summaries", list(resource_ids))

    async def asummaries(self, resource_ids: Sequence[str]) -> list[MetricSummary]:
        """`summaries`, awaited."""
        return await self._acall(list[MetricSummary], "instance_metrics.summaries", list(resource_ids))


class Recommendations(_Client):
    """Where recommendations are handed in. Needs `WriteRecommendations`."""

    def add(self, recommendations: Sequence[OptimizationRecommendation]) -> int:
        """Add recommendations; returns how many may stand."""
        return self._call(int, "recommendations.add", to_builtins(list(recommendations)))

    async def aadd(self, recommendations: Sequence[OptimizationRecommendation]) -> int:
        """`add`, awaited."""
        return await self._acall(int, "recommendations.add", to_builtins(list(recommendations)))


class Alerts(_Client):
    """Alerts, which are reported with the analysis. Needs `AlertManagement`."""

    def trigger(self, name: str, **details: Any) -> bool:
        """Raise an alert; False where there is no room for more."""
        return self._call(bool, "alerts.trigger", name, details)

    def raised(self) -> list[RaisedAlert]:
        """The alerts that this plugin has raised so far."""
        return self._call(list[RaisedAlert], "alerts.raised")

    async def atrigger(self, name: str, **details: Any) -> bool:
        """`trigger`, awaited."""
        return await self._acall(bool, "alerts.trigger", name, details)

    async def araised(self) -> list[RaisedAlert]:
        """`raised`, awaited."""
        return await self._acall(list[RaisedAlert], "alerts.raised")
