"""The host's side of the pack's services: what plugins may read of an analysis under way, and what they add to it."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec

from cardcage.broker import PluginInfo
from cardcage.foundation.errors import Misuse, Refused, Unavailable
from cardcage.foundation.limits import MIB
from cardcage.manager import PluginManager
from cardcage_finops.models import (
    AnalysisContext,
    CloudResource,
    CostPeriod,
    DailyCost,
    MetricSummary,
    OptimizationRecommendation,
    RaisedAlert,
    Totals,
)
from cardcage_finops.pipeline.checks import checked_recommendations
from cardcage_finops.pipeline.result import Alert
from cardcage_finops.services import Alerts, CostData, InstanceMetrics, Recommendations

ALERTS_MAX: Final = 100
"""Of one analysis. A hundred is already more than a person reads."""

RECOMMENDATIONS_MAX: Final = 10_000
"""Of one analysis, besides those of optimizers."""

ADDED_BYTES_MAX: Final = 16 * MIB
"""Of those, as JSON: a recommendation takes some hundred bytes, and its details are the plugin's own."""

COMPLAINTS_MAX: Final = 100

PAGE_MAX: Final = 1000
"""Resources or ids in one call: about two MiB, an eighth of what a frame may hold."""

_NOT_READ: Final = "the bill has not been read yet"

DETAILS_MAX: Final = 20
TEXT_CHARS_MAX: Final = 500

_desks: WeakKeyDictionary[PluginManager, AnalysisDesk] = WeakKeyDictionary()


@dataclass(slots=True, eq=False)
class OpenAnalysis:
    """One analysis as far as it has come. What is None has not been found yet."""

    context: AnalysisContext | None = None
    resources: dict[str, CloudResource] | None = None
    """By id, in the order of ids."""
    resource_ids: list[str] = field(default_factory=list[str])
    metrics: dict[str, dict[str, float]] | None = None
    alerts: list[Alert] = field(default_factory=list[Alert])
    added: list[OptimizationRecommendation] = field(default_factory=list[OptimizationRecommendation])
    """Recommendations that were handed in and not yet taken."""
    complaints: list[str] = field(default_factory=list[str])
    added_count: int = 0
    added_bytes: int = 0

    def know_resources(self, resources: Sequence[CloudResource]) -> None:
        """The resources of the bill are known from here on."""
        self.resources = {one.id: one for one in sorted(resources, key=lambda one: one.id)}
        self.resource_ids = list(self.resources)

    def take_added(self) -> list[OptimizationRecommendation]:
        """What was handed in since the last time."""
        taken, self.added = self.added, []
        return taken


@dataclass(slots=True)
class AnalysisDesk:
    """Answers the plugins of one manager. Each instance is answered about the analysis that it takes part in."""

    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held by the analysis that is under way. A hook chain runs over all active plugins of a manager, so two at once
    would be shown to each other's plugins."""
    _open: dict[str, OpenAnalysis] = field(default_factory=dict[str, OpenAnalysis])

    @classmethod
    def of(cls, manager: PluginManager) -> AnalysisDesk:
        """The manager's desk; made, and its services offered, when it is first asked for."""
        desk = _desks.get(manager)
        if desk is None:
            desk = _desks[manager] = cls()
            manager.offer_service(CostData, _Costs(desk))
            manager.offer_service(InstanceMetrics, _Metrics(desk))
            manager.offer_service(Recommendations, _Recommendations(desk))
            manager.offer_service(Alerts, _Alerts(desk))
        return desk

    @contextmanager
    def open(self, label: str) -> Generator[OpenAnalysis, None, None]:
        """An analysis whose instances carry `label` is under way."""
        analysis = self._open[label] = OpenAnalysis()
        try:
            yield analysis
        finally:
            del self._open[label]

    def analysis_of(self, caller: PluginInfo) -> OpenAnalysis:
        """The analysis that an instance takes part in, or else the one under way. Raises `Unavailable` without one."""
        own = (analysis for label, analysis in self._open.items() if f"/{label}." in caller.instance)
        found = next(own, None) or next(iter(self._open.values()), None)
        if found is None:
            raise Unavailable("no analysis is under way", code="no_analysis")
        return found


@dataclass(frozen=True, slots=True)
class _Costs:
    desk: AnalysisDesk

    async def period(self, caller: PluginInfo) -> CostPeriod:
        context = self._context(caller)
        return CostPeriod(
            first_day=context.period_start,
            last_day=context.period_end,
            currency=context.currency,
            currencies=list(context.totals),
        )

    async def totals(self, caller: PluginInfo) -> dict[str, Totals]:
        return dict(self._context(caller).totals)

    async def daily(self, caller: PluginInfo, service: str, account: str) -> list[DailyCost]:
        context = self._context(caller)
        if not service and not account:
            return context.daily
        return [one for one in context.series if service in ("", one.service) and account in ("", one.account)]

    async def resources(self, caller: PluginInfo, after: str, limit: int) -> list[CloudResource]:
        _check_page("costs.resources", limit)
        analysis = self.desk.analysis_of(caller)
        resources = _known(analysis.resources, _NOT_READ)
        first = bisect_right(analysis.resource_ids, after)
        return [resources[one] for one in analysis.resource_ids[first : first + limit]]

    def _context(self, caller: PluginInfo) -> AnalysisContext:
        return _known(self.desk.analysis_of(caller).context, _NOT_READ)


@dataclass(frozen=True, slots=True)
class _Metrics:
    desk: AnalysisDesk

    async def summaries(self, caller: PluginInfo, resource_ids: list[str]) -> list[MetricSummary]:
        _check_page("instance_metrics.summaries", len(resource_ids) or 1)
        metrics = _known(self.desk.analysis_of(caller).metrics, "the metrics have not been collected yet")
        return [MetricSummary(resource_id=one, values=metrics[one]) for one in resource_ids if one in metrics]


@dataclass(frozen=True, slots=True)
class _Recommendations:
    desk: AnalysisDesk

    async def add(self, caller: PluginInfo, recommendations: list[OptimizationRecommendation]) -> int:
        analysis = self.desk.analysis_of(caller)
        resources = _known(analysis.resources, _NOT_READ)
        size_bytes = len(msgspec.json.encode(recommendations))
        count = analysis.added_count + len(recommendations)
        if count > RECOMMENDATIONS_MAX or analysis.added_bytes + size_bytes > ADDED_BYTES_MAX:
            raise Refused(
                f"an analysis takes {RECOMMENDATIONS_MAX} recommendations of {ADDED_BYTES_MAX // MIB} MiB together",
                code="quota_exceeded",
            )
        analysis.added_count, analysis.added_bytes = count, analysis.added_bytes + size_bytes
        checked = checked_recommendations(recommendations, resources, source=caller.name)
        analysis.added += checked.kept
        analysis.complaints += checked.complaints[: COMPLAINTS_MAX - len(analysis.complaints)]
        return len(checked.kept)


@dataclass(frozen=True, slots=True)
class _Alerts:
    desk: AnalysisDesk

    async def trigger(self, caller: PluginInfo, name: str, details: dict[str, Any] | None) -> bool:
        alerts = self.desk.analysis_of(caller).alerts
        if len(alerts) >= ALERTS_MAX:
            return False
        shown = list((details or {}).items())[:DETAILS_MAX]
        alerts.append(
            Alert(
                name=name[:TEXT_CHARS_MAX],
                source=caller.name,
                details={key[:TEXT_CHARS_MAX]: str(value)[:TEXT_CHARS_MAX] for key, value in shown},
            )
        )
        return True

    async def raised(self, caller: PluginInfo) -> list[RaisedAlert]:
        alerts = self.desk.analysis_of(caller).alerts
        return [RaisedAlert(name=one.name, details=one.details) for one in alerts if one.source == caller.name]


def _known(value: Any, why_not: str) -> Any:
    if value is None:
        raise Unavailable(why_not, code="not_yet")
    return value


def _check_page(method: str, count: int) -> None:
    if not 0 < count <= PAGE_MAX:
        raise Misuse(f"{method} answers about 1 to {PAGE_MAX} at once, found {count}", code="invalid_params")
