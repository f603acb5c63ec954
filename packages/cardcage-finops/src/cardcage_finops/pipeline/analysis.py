"""One analysis from end to end: which plugin does what, in which order, and what happens where one fails.

    cost source -> ledger -> detectors -> metrics -> optimizers -> policies -> hook -> channels

What is computed is computed in pure code elsewhere (`ledger`, `series`, `resources`, `arbitration`, `summary`); this
module asks the plugins. Only the cost source can't be done without: any other plugin that fails is listed in
`Analysis.plugins` with its error, and the rest goes on.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar, cast

import msgspec
from msgspec.structs import replace

from cardcage.foundation.errors import CardcageError, Misuse, PluginFault
from cardcage.manager import PluginManager
from cardcage_finops.extension_points import (
    AnomalyDetector,
    CostSource,
    MetricsCollector,
    NotificationChannel,
    Optimizer,
    Policy,
)
from cardcage_finops.hooks import POST_COST_ANALYSIS
from cardcage_finops.models import (
    AnalysisContext,
    BillProfile,
    Budget,
    CloudResource,
    CostAnomaly,
    Delivery,
    OptimizationRecommendation,
    PolicyVerdict,
)
from cardcage_finops.pipeline.arbitration import arbitrate, total_savings
from cardcage_finops.pipeline.batches import chunks, series_per_call
from cardcage_finops.pipeline.checks import checked_recommendations
from cardcage_finops.pipeline.crew import Crew, Member
from cardcage_finops.pipeline.desk import AnalysisDesk, OpenAnalysis
from cardcage_finops.pipeline.grants import capability_grants, fitted_config
from cardcage_finops.pipeline.ledger import AMOUNT_COLUMNS, KEY_COLUMNS, RESOURCE_COLUMNS, Ledger
from cardcage_finops.pipeline.message import notification
from cardcage_finops.pipeline.request import (
    AnalysisRequest,
    NotifyTarget,
    changed_bill,
    file_sha256,
    file_state,
    make_target_file,
)
from cardcage_finops.pipeline.resources import cloud_resources, with_metrics
from cardcage_finops.pipeline.result import Analysis, Bill, Notice, Recommendation
from cardcage_finops.pipeline.series import analysis_context, service_account_costs
from cardcage_finops.pipeline.summary import currency_results, issues_result, rows_result

P = TypeVar("P")

RESOURCES_PER_CALL: Final = 500
"""Resources of one `analyze_many`: about a MiB with tags and metrics, a sixteenth of what a frame may hold."""

SAID_CHARS_MAX: Final = 300

METHODS: Final = {"robust": "robust", "rule25": "daily_rule"}
"""What an anomaly detector calls the ways to find unusual days."""

COLUMNS: Final = (*AMOUNT_COLUMNS, *KEY_COLUMNS, *RESOURCE_COLUMNS)


class Progress(Protocol):
    """Where an analysis tells how far it is."""

    def stage(self, name: str) -> None:
        """A new part has begun."""
        ...

    def advance(self, done: float, rows: int) -> None:
        """The bill is read as far as `done` (0 to 1), `rows` rows of it."""
        ...


class Quiet:
    """Progress that nobody watches."""

    def stage(self, name: str) -> None:
        """Nothing."""

    def advance(self, done: float, rows: int) -> None:
        """Nothing."""


async def analyze(manager: PluginManager, request: AnalysisRequest, progress: Progress | None = None) -> Analysis:
    """Analyse a bill with the plugins that `manager` knows.

    Raises `Misuse` (`bill_unrecognised`) where no cost source can read the bill, and the cost source's `PluginFault`
    where it fails on the way. Every instance started for it is gone when this returns, raises or is cancelled.
    Analyses with one manager take turns.
    """
    desk = AnalysisDesk.of(manager)
    async with desk.turn, Crew(manager=manager, label=f"analysis-{secrets.token_hex(4)}") as crew:
        with desk.open(crew.label) as shared:
            run = _Run(crew=crew, request=request, progress=progress or Quiet(), shared=shared)
            found = await run.all()
            return replace(found, alerts=list(shared.alerts), plugins=[member.run() for member in crew.members])


@dataclass(slots=True)
class _Run:
    crew: Crew
    request: AnalysisRequest
    progress: Progress
    shared: OpenAnalysis
    """What plugins may ask of this analysis while it is under way."""
    ledger: Ledger = field(default_factory=Ledger)
    warnings: list[str] = field(default_factory=list[str])
    metrics: dict[str, dict[str, float]] = field(default_factory=dict[str, dict[str, float]])

    async def all(self) -> Analysis:
        started = time.monotonic()
        created = datetime.now(UTC)
        for target in self.request.notify:
            await asyncio.to_thread(make_target_file, target)
        bill = await self.read_bill()
        context = await asyncio.to_thread(analysis_context, self.ledger)
        resources = cloud_resources(self.ledger, context.currency)
        self.shared.know_resources(resources)
        self.shared.context = context
        context = replace(context, anomalies=await self.detect())
        await self.collect_metrics(resources)
        self.shared.metrics = self.metrics
        context = self.with_added(replace(context, recommendations=await self.optimize(resources)))
        context = replace(context, verdicts=await self.judge(context))
        context = self.with_added(await self.run_hook(context))
        self.warnings.extend(self.shared.complaints)
        found = self.result(bill, context, resources)
        found = replace(found, notices=await self.notify(found))
        stamp = created.strftime("%Y-%m-%d %H:%M:%S UTC")
        return replace(found, created_at=stamp, seconds=time.monotonic() - started, warnings=self.warnings)

    # the bill -----------------------------------------------------------------------------------------------------

    async def read_bill(self) -> Bill:
        self.progress.stage("looking at the bill")
        path = self.request.bill
        before = file_state(path)
        source, profile = await self.choose_source()
        assert source.proxy is not None
        self.ledger.issues.extend(profile.issues)
        wanted = [name for name in COLUMNS if not profile.columns or name in profile.columns]
        self.progress.stage("reading the bill")
        async for batch in source.each(source.proxy.read(wanted)):
            try:
                self.ledger.add(batch)
            except ValueError as error:
                raise _failed(source, source.refuse(f"sent a batch that is not one: {error}")) from error
            self.progress.advance(batch.done, self.ledger.rows.read)
        self.ledger.forget_amounts()
        if before is None or file_state(path) != before:
            raise changed_bill(path)
        digest = await asyncio.to_thread(file_sha256, path)
        if file_state(path) != before:
            raise changed_bill(path)
        return Bill(
            name=path.name,
            size_bytes=before[2],
            sha256=digest,
            format=profile.format,
            version=profile.version,
            source=source.name,
        )

    async def choose_source(self) -> tuple[Member[CostSource], BillProfile]:
        """Ask every cost source whether the bill is one of its own; the first by priority that says yes reads it.

        The host itself never looks inside: bills are untrusted, and reading them is what the walls are for.
        """
        path = str(self.request.bill)
        said: list[str] = []
        chosen: tuple[Member[CostSource], BillProfile] | None = None
        for view in self.crew.candidates(CostSource):
            config = fitted_config(view, {"bill": path})
            if "bill" not in config:
                continue  # it reads an account of its own, not a file
            grants = [f"read:{path}", *capability_grants(view)]
            member = await self.crew.hire(CostSource, view, "cost source", config, grants)
            profile, reason = await self.probe(member)
            if profile is None:
                said.append(f"{view.name}: {reason}")
            elif chosen is None:
                chosen = (member, profile)
            if chosen is None or member is not chosen[0]:
                member.role = "cost source, not chosen"
        if chosen is not None:
            return chosen
        if not said:
            raise Misuse("no cost source plugin is there to read a bill", code="no_cost_source")
        broken = [member.error for member in self.crew.members if member.error is not None]
        if len(broken) == len(said):
            raise broken[0]  # none of them could even be asked: it is not the bill that is wrong
        raise Misuse(
            f'no cost source can read the bill "{self.request.bill.name}": {"; ".join(said)}',
            code="bill_unrecognised",
            bill=path,
            hint="bills can be FOCUS or AWS CUR, as CSV or gzipped CSV; list what is there: cardcage finops plugins",
        )

    async def probe(self, member: Member[CostSource]) -> tuple[BillProfile | None, str]:
        """What a source says of the bill. A source that raises does not know the format, which is no failure."""
        if member.proxy is None:
            return None, member.error.message if member.error else "it did not start"
        try:
            return await member.ask(member.proxy.probe()), ""
        except PluginFault as fault:
            if fault.code == "plugin_error":
                member.error = None
            return None, said_by_plugin(fault)
        except CardcageError as error:
            return None, error.message

    # what plugins find --------------------------------------------------------------------------------------------

    async def detect(self) -> list[CostAnomaly]:
        self.progress.stage("looking for unusual days")
        series = await asyncio.to_thread(service_account_costs, self.ledger)
        found: list[CostAnomaly] = []
        offered = {"method": METHODS[self.request.detector]}
        for member in await self.team(AnomalyDetector, "anomaly detector", offered):
            assert member.proxy is not None
            try:
                for part in chunks(series, series_per_call(series)):
                    answer = await member.ask(member.proxy.detect(part))
                    found.extend(replace(one, source=member.name) for one in answer)
            except CardcageError:
                continue  # written down by the member
        return sorted(found, key=lambda one: (-one.impact, one.first_day, one.service, one.account))

    async def collect_metrics(self, resources: Sequence[CloudResource]) -> None:
        self.progress.stage("reading the metrics")
        known = {one.id for one in resources}
        team = self.crew.local(MetricsCollector, "metrics collector")
        if self.request.metrics is not None:
            path = str(self.request.metrics)
            needed = {"file": path}
            team += await self.hire_all(MetricsCollector, "metrics collector", needed, [f"read:{path}"])
        for member in team:
            assert member.proxy is not None
            try:
                async for summary in member.each(member.proxy.summarize([])):
                    self.ledger.issues.extend(summary.issues)
                    if summary.resource_id in known:
                        self.metrics.setdefault(summary.resource_id, {}).update(summary.values)
            except CardcageError:
                continue

    async def optimize(self, resources: Sequence[CloudResource]) -> list[OptimizationRecommendation]:
        self.progress.stage("looking for savings")
        known = {one.id: one for one in resources}
        items = with_metrics(list(resources), self.metrics)
        found: list[OptimizationRecommendation] = []
        for member in await self.team(Optimizer, "optimizer"):
            assert member.proxy is not None
            try:
                for part in chunks(items, RESOURCES_PER_CALL):
                    answer = await member.ask(member.proxy.analyze_many(part))
                    checked = checked_recommendations(answer, known, source=member.name)
                    found.extend(checked.kept)
                    self.warnings.extend(checked.complaints)
            except CardcageError:
                continue
        return found

    async def judge(self, context: AnalysisContext) -> list[PolicyVerdict]:
        self.progress.stage("checking policies")
        budgets = [_in_currency(budget, context.currency) for budget in self.request.budgets]
        found: list[PolicyVerdict] = []
        for member in await self.team(Policy, "policy", {"budgets": msgspec.to_builtins(budgets)}):
            assert member.proxy is not None
            try:
                answer = await member.ask(member.proxy.evaluate(context))
                found.extend(replace(one, source=member.name) for one in answer)
            except CardcageError:
                continue
        return found

    async def team(self, point: type[P], role: str, offered: Mapping[str, Any] | None = None) -> list[Member[P]]:
        """Everyone who takes this part and has started: plugins behind their walls, and the host's own code."""
        hired = [
            await self.crew.hire(point, view, role, fitted_config(view, offered or {}), capability_grants(view))
            for view in self.crew.candidates(point)
        ]
        return [*(member for member in hired if member.proxy is not None), *self.crew.local(point, role)]

    async def hire_all(
        self, point: type[P], role: str, needed: Mapping[str, str], grants: list[str]
    ) -> list[Member[P]]:
        """Those plugins whose config takes all of `needed`, each with these grants; the ones that have started."""
        hired: list[Member[P]] = []
        for view in self.crew.candidates(point):
            config = fitted_config(view, needed)
            if len(config) == len(needed):
                hired.append(await self.crew.hire(point, view, role, config, [*grants, *capability_grants(view)]))
        return [member for member in hired if member.proxy is not None]

    async def run_hook(self, context: AnalysisContext) -> AnalysisContext:
        """Let the chain see, and add to, what was found. The sums are the host's own, and no hook can change those."""
        self.progress.stage("running hooks")
        for name in self.request.hooks:
            view = self.crew.manager.plugin_info(name)
            await self.crew.hire_for_hooks(view, "hook", capability_grants(view))
        outcome = await self.crew.manager.run_hook(POST_COST_ANALYSIS, msgspec.to_builtins(context))
        for step in outcome.steps:
            if step.error is None:
                continue
            member = next((one for one in self.crew.members if one.instance == step.plugin.instance), None)
            if member is not None:
                member.fail(step.error)
            else:
                self.warnings.append(
                    f"the hook {POST_COST_ANALYSIS} of {step.plugin.name} failed: {step.error.message}"
                )
        try:
            after = msgspec.convert(outcome.context, AnalysisContext)
        except msgspec.ValidationError as error:
            self.warnings.append(f"what the hook {POST_COST_ANALYSIS} left is no analysis, and was put aside: {error}")
            return context
        return replace(
            context,
            anomalies=after.anomalies,
            recommendations=after.recommendations,
            verdicts=after.verdicts,
            data=after.data,
        )

    def with_added(self, context: AnalysisContext) -> AnalysisContext:
        """What plugins have handed in through the host since the last time, among the recommendations."""
        return replace(context, recommendations=[*context.recommendations, *self.shared.take_added()])

    # telling of it ------------------------------------------------------------------------------------------------

    async def notify(self, found: Analysis) -> list[Notice]:
        if not self.request.notify:
            return []
        self.progress.stage("sending messages")
        message = notification(found, self.request.report, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        notices: list[Notice] = []
        for target in self.request.notify:
            member = await self.hire_channel(target)
            if member.proxy is None:
                detail = member.error.message if member.error else "it did not start"
                notices.append(Notice(target=str(target), delivery=Delivery(delivered=False, detail=detail)))
                continue
            try:
                delivery = await member.ask(member.proxy.send(message))
                if not delivery.delivered:
                    member.fail(
                        member.refuse(f"could not deliver to {target}: {delivery.detail or 'it gave no reason'}")
                    )
            except CardcageError as error:
                delivery = Delivery(delivered=False, detail=error.message)
            notices.append(Notice(target=str(target), delivery=delivery))
        return notices

    async def hire_channel(self, target: NotifyTarget) -> Member[NotificationChannel]:
        needed = next(iter(target.config))
        for view in self.crew.candidates(NotificationChannel):
            config = fitted_config(view, target.config)
            if needed in config:
                grants = [target.grant, *capability_grants(view)]
                return await self.crew.hire(NotificationChannel, view, "notification channel", config, grants)
        raise Misuse(f"no notification channel plugin takes {target}", code="no_channel")

    def result(self, bill: Bill, context: AnalysisContext, resources: Sequence[CloudResource]) -> Analysis:
        by_id = {one.id: one for one in resources}
        rulings = arbitrate(context.recommendations)
        recommendations = [
            Recommendation(
                chosen=ruling.chosen,
                alternatives=list(ruling.alternatives),
                resource=by_id.get(ruling.chosen.resource_id),
            )
            for ruling in rulings
        ]
        return Analysis(
            bill=bill,
            created_at="",
            seconds=0.0,
            period_start=context.period_start,
            period_end=context.period_end,
            currency=context.currency,
            rows=rows_result(self.ledger),
            issues=issues_result(self.ledger.issues),
            currencies=currency_results(self.ledger),
            daily_spike=context.daily_spike,
            daily_spike_day=context.daily_spike_day,
            daily=context.daily,
            series=[one for one in context.series if one.currency == context.currency],
            resources=len(resources),
            metrics_resources=sum(one.id in self.metrics for one in resources),
            anomalies=context.anomalies,
            recommendations=recommendations,
            monthly_savings=total_savings(rulings, context.currency),
            policies=context.verdicts,
        )


def said_by_plugin(fault: PluginFault) -> str:
    """A plugin's own sentence, without the host's words around it, where it gave one; cut to `SAID_CHARS_MAX`."""
    data: Any = fault.fields.get("data")
    own: Any = cast(dict[str, Any], data).get("message") if isinstance(data, dict) else None
    words = own if isinstance(own, str) and own else fault.message
    return words if len(words) <= SAID_CHARS_MAX else words[:SAID_CHARS_MAX] + "..."


def _failed(member: Member[Any], error: CardcageError) -> CardcageError:
    member.fail(error)
    return error


def _in_currency(budget: Budget, currency: str) -> Budget:
    return budget if budget.currency else replace(budget, currency=currency)
