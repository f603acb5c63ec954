"""The pack's services, asked by walled plugins while an analysis is under way."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cardcage import PluginManager
from cardcage.audit import Action, MemoryAuditor
from cardcage.contracts import service_of
from cardcage_finops.extension_points import CAPABILITIES
from cardcage_finops.pack import PACK
from cardcage_finops.pipeline.analysis import analyze
from cardcage_finops.pipeline.request import AnalysisRequest
from cardcage_finops.pipeline.result import Analysis
from cardcage_finops.services import SERVICES

BLOCKING = """
    from cardcage_finops.clients import Alerts, Costs, Metrics, Recommendations
    from cardcage_finops.hooks import hook
    from cardcage_finops.models import AnalysisContext, OptimizationRecommendation
    from cardcage_sdk import Plugin

    class Main(Plugin):
        @hook("post_cost_analysis")
        def watch(self, context: AnalysisContext):
            costs = Costs(self.context)
            (resource,) = costs.resources()
            half = resource.monthly_cost / 2
            wishes = [
                OptimizationRecommendation(resource_id=resource.id, estimated_savings=half, confidence=0.5),
                OptimizationRecommendation(resource_id="unknown", estimated_savings=half, confidence=0.5),
            ]
            found = {
                "period": [costs.period().first_day, costs.period().last_day, costs.period().currency],
                "billed": str(costs.totals()["USD"].billed),
                "compute": [str(day) for day in costs.daily(service="Compute")[0].amounts],
                "nothing": len(costs.daily(service="None such")),
                "beyond": len(costs.resources(after=resource.id)),
                "metrics": Metrics(self.context).summaries([resource.id]),
                "taken": Recommendations(self.context).add(wishes),
                "alerted": Alerts(self.context).trigger("Spike", growth=0.5),
                "raised": [alert.name for alert in Alerts(self.context).raised()],
            }
            Alerts(self.context).trigger("Found", **found)
            return context
"""

ASYNCHRONOUS = """
    from cardcage_finops.clients import Alerts, Costs, Metrics, Recommendations
    from cardcage_finops.hooks import hook
    from cardcage_finops.models import AnalysisContext, OptimizationRecommendation
    from cardcage_sdk import Plugin

    class Main(Plugin):
        @hook("post_cost_analysis")
        async def watch(self, context: AnalysisContext):
            costs = Costs(self.context)
            (resource,) = await costs.aresources()
            half = resource.monthly_cost / 2
            wishes = [OptimizationRecommendation(resource_id=resource.id, estimated_savings=half, confidence=0.5)]
            period = await costs.aperiod()
            found = {
                "period": [period.first_day, period.last_day, period.currency],
                "billed": str((await costs.atotals())["USD"].billed),
                "compute": [str(day) for day in (await costs.adaily(service="Compute"))[0].amounts],
                "nothing": len(await costs.adaily(account="None such")),
                "beyond": len(await costs.aresources(after=resource.id)),
                "metrics": await Metrics(self.context).asummaries([resource.id]),
                "taken": await Recommendations(self.context).aadd(wishes),
                "alerted": await Alerts(self.context).atrigger("Spike", growth=0.5),
                "raised": [alert.name for alert in await Alerts(self.context).araised()],
            }
            await Alerts(self.context).atrigger("Found", **found)
            return context
"""

ASKING_EACH = """
    from cardcage_finops.hooks import hook
    from cardcage_sdk import Plugin
    from cardcage_sdk.context import HostError

    class Main(Plugin):
        @hook("post_cost_analysis")
        def watch(self, context):
            for name, args in {
                "costs.totals": (), "costs.period": (), "costs.daily": (), "costs.resources": (),
                "instance_metrics.summaries": (["i-1"],), "recommendations.add": ([],), "alerts.raised": (),
            }.items():
                try:
                    self.context.api_client.call(name, *args)
                    context.data[name.replace(".", "_")] = "answered"
                except HostError as error:
                    context.data[name.replace(".", "_")] = error.code
            return None

        def ask(self, name, *args):
            try:
                return self.context.api_client.call(name, *args)
            except HostError as error:
                return [error.code, error.message]
"""


@pytest.fixture
def bill(tmp_path: Path) -> Path:
    """Three rows of one resource."""
    path = tmp_path / "bill.csv"
    lines = ["BilledCost,BillingCurrency,ChargePeriodStart,ServiceName,ResourceId,SubAccountId"]
    lines += [f"{day}.5,USD,2024-09-0{day},Compute,i-1,a1" for day in (1, 2, 3)]
    path.write_text("\n".join(lines) + "\n")
    return path


def write(folder: Path, code: str, permissions: Iterable[str]) -> Path:
    own = folder / "own"
    package = own / "watcher"
    package.mkdir(parents=True)
    asked = ", ".join(permissions)
    manifest = f"name: watcher\nversion: 1.0.0\nentrypoint: watcher:Main\npermissions: [{asked}]\n"
    (package / "plugin.yaml").write_text(manifest)
    (package / "watcher.py").write_text(textwrap.dedent(code))
    return own


def manager_of(folder: Path, own: Path, granted: Iterable[str], **options: Any) -> PluginManager:
    return PluginManager(
        plugin_paths=[*PACK.plugin_dirs, own],
        state_dir=folder / "state",
        auto_start=False,
        grants={"watcher": [f"capability:{name}" for name in granted]},
        **options,
    )


@pytest.mark.parametrize("code", [BLOCKING, ASYNCHRONOUS], ids=["blocking", "asynchronous"])
async def test_a_plugin_reads_the_costs_and_adds_to_the_analysis(tmp_path: Path, bill: Path, code: str) -> None:
    own = write(tmp_path, code, CAPABILITIES)
    async with manager_of(tmp_path, own, CAPABILITIES) as manager:
        found: Analysis = await analyze(manager, AnalysisRequest(bill=bill, hooks=["watcher"]))
    assert [run.error for run in found.plugins if run.name == "watcher"] == [None]
    (standing,) = found.recommendations
    assert standing.chosen.source == "watcher"
    assert found.monthly_savings == Decimal("37.5")
    alert, told = found.alerts
    assert told.details == {
        "period": "['2024-09-01', '2024-09-03', 'USD']",
        "billed": "7.5",
        "compute": "['1.5', '2.5', '3.5']",
        "nothing": "0",
        "beyond": "0",
        "metrics": "[]",
        "taken": "1",
        "alerted": "True",
        "raised": "['Spike']",
    }
    assert (alert.name, alert.source, alert.details) == ("Spike", "watcher", {"growth": "0.5"})
    assert [one for one in found.warnings if "unknown" in one] or code is ASYNCHRONOUS


async def test_without_grants_each_service_is_refused_and_that_is_recorded(tmp_path: Path, bill: Path) -> None:
    own = write(tmp_path, ASKING_EACH, ())
    audit = MemoryAuditor()
    async with manager_of(tmp_path, own, (), audit=audit) as manager:
        await analyze(manager, AnalysisRequest(bill=bill, hooks=["watcher"]))
    refused = {str(event.fields["service"]) for event in audit.of(Action.CAPABILITY_REFUSED)}
    assert refused == {
        "costs.totals",
        "costs.period",
        "costs.daily",
        "costs.resources",
        "instance_metrics.summaries",
        "recommendations.add",
        "alerts.raised",
    }
    assert not audit.of(Action.CAPABILITY_CALLED)


@pytest.mark.parametrize("capability", CAPABILITIES)
async def test_a_capability_opens_its_own_service_and_no_other(tmp_path: Path, bill: Path, capability: str) -> None:
    own = write(tmp_path, ASKING_EACH, [capability])
    audit = MemoryAuditor()
    async with manager_of(tmp_path, own, [capability], audit=audit) as manager:
        await analyze(manager, AnalysisRequest(bill=bill, hooks=["watcher"]))
    opened = {str(event.fields["service"]).partition(".")[0] for event in audit.of(Action.CAPABILITY_CALLED)}
    assert opened == {service_of(each).name for each in SERVICES if service_of(each).capability == capability}


async def test_before_an_analysis_there_is_nothing_to_read(tmp_path: Path, bill: Path) -> None:
    own = write(tmp_path, ASKING_EACH, CAPABILITIES)
    async with manager_of(tmp_path, own, CAPABILITIES) as manager:
        await analyze(manager, AnalysisRequest(bill=bill))
        await manager.start_plugin("watcher")
        assert await manager.call("watcher", "ask", "costs.totals") == ["unavailable", "no analysis is under way"]
        wrong = [{"resource_id": "i-1", "estimated_savings": "much", "confidence": 2}]
        code, message = await manager.call("watcher", "ask", "recommendations.add", wrong)
        assert code == "invalid_params"
        assert "recommendations[0]" in message


def test_every_capability_of_the_pack_has_a_service() -> None:
    assert {service_of(each).capability for each in SERVICES} == set(CAPABILITIES)
    assert PACK.services == SERVICES
