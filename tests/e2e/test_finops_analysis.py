"""An analysis out of a program: the host's own code beside plugins, two analyses, and cost sources that go wrong."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cardcage import CardcageError, PluginFault, PluginManager
from cardcage_finops.extension_points import Optimizer
from cardcage_finops.models import CloudResource, OptimizationRecommendation, ResourceWithMetrics
from cardcage_finops.pack import PACK
from cardcage_finops.pipeline import crew
from cardcage_finops.pipeline.analysis import analyze
from cardcage_finops.pipeline.request import AnalysisRequest


@pytest.fixture
def bill(tmp_path: Path) -> Path:
    """Three rows of one resource."""
    path = tmp_path / "bill.csv"
    lines = ["BilledCost,BillingCurrency,ChargePeriodStart,ServiceName,ResourceId,SubAccountId"]
    lines += [f"{day}.5,USD,2024-09-0{day},Compute,i-1,a1" for day in (1, 2, 3)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
async def manager(tmp_path: Path) -> AsyncIterator[PluginManager]:
    """A manager over the shipped plugins and those in `own`."""
    own = tmp_path / "own"
    own.mkdir(exist_ok=True)
    paths = [*PACK.plugin_dirs, own]
    async with PluginManager(plugin_paths=paths, state_dir=tmp_path / "state", auto_start=False) as manager:
        yield manager


class Halving:
    """An optimizer of the host's own, in process."""

    async def analyze(self, resource: CloudResource, metrics: dict[str, Any]) -> list[OptimizationRecommendation]:
        """Half of it."""
        saved = (resource.monthly_cost or Decimal(0)) / 2
        return [OptimizationRecommendation(resource_id=resource.id, estimated_savings=saved, confidence=0.5)]

    async def analyze_many(self, items: list[ResourceWithMetrics]) -> list[OptimizationRecommendation]:
        """Half of each."""
        return [found for item in items for found in await self.analyze(item.resource, item.metrics)]


async def test_the_host_s_own_optimizer_stands_beside_the_plugins(manager: PluginManager, bill: Path) -> None:
    manager.provide(Optimizer, Halving(), name="halving")
    found = await analyze(manager, AnalysisRequest(bill=bill))
    assert [one.chosen.source for one in found.recommendations] == ["halving"]
    assert found.monthly_savings == Decimal("37.5")
    assert {run.name: run.isolation for run in found.plugins}["halving"] == "none"
    assert {run.isolation for run in found.plugins if run.name != "halving"} == {"process"}


async def test_two_analyses_take_turns_and_leave_no_instance_behind(manager: PluginManager, bill: Path) -> None:
    first, second = await asyncio.gather(*(analyze(manager, AnalysisRequest(bill=bill)) for _ in range(2)))
    assert first.currencies == second.currencies
    assert first.currencies[0].totals.billed == Decimal("7.5")
    assert manager.list_instances() == []
    assert [view.instances for view in map(manager.plugin_info, manager.list_plugins()) if view.instances] == []


async def test_an_analysis_that_is_cancelled_leaves_no_instance_behind(manager: PluginManager, bill: Path) -> None:
    reached = asyncio.Event()

    class Watcher:
        def stage(self, name: str) -> None:
            if name == "looking for unusual days":
                reached.set()

        def advance(self, done: float, rows: int) -> None:
            pass

    task = asyncio.create_task(analyze(manager, AnalysisRequest(bill=bill), Watcher()))
    await asyncio.wait_for(reached.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert manager.list_instances() == []


@pytest.mark.parametrize("change", ["grows", "goes"])
async def test_a_bill_that_changes_while_it_is_read_is_an_error(
    manager: PluginManager, bill: Path, change: str
) -> None:
    class Meddler:
        def stage(self, name: str) -> None:
            if name == "reading the bill" and change == "grows":
                bill.write_text(bill.read_text() + bill.read_text().splitlines()[-1] + "\n")

        def advance(self, done: float, rows: int) -> None:
            if change == "goes":
                bill.unlink(missing_ok=True)

    with pytest.raises(CardcageError) as caught:
        await analyze(manager, AnalysisRequest(bill=bill), Meddler())
    assert caught.value.code == "bill_changed"
    assert manager.list_instances() == []


SOURCES = {
    "counts that do not add up": (
        "yield ChargeBatch(columns={'BilledCost': ['1']}, first_row=1, read=9, taken=1, done=1.0)",
        "invalid_result",
        "read must be taken + refused",
    ),
    "the wrong shape": ("yield {'columns': 5}", "invalid_result", "columns"),
    "a process that ends": ("os._exit(3)", "crashed", "3"),
    "an exception": ("raise RuntimeError('disk on fire')", "plugin_error", "disk on fire"),
}


@pytest.mark.parametrize("kind", SOURCES)
async def test_a_cost_source_that_goes_wrong_is_an_error_that_names_it(tmp_path: Path, bill: Path, kind: str) -> None:
    statement, code, words = SOURCES[kind]
    folder = tmp_path / "own" / "odd-source"
    folder.mkdir(parents=True)
    (folder / "plugin.yaml").write_text(
        "name: odd-source\nversion: 3.1.4\nentrypoint: odd_source:Odd\ntype: cost_source\npriority: 1\n"
        "config_schema:\n  bill: {type: string, required: true}\n"
    )
    code_of_plugin = f"""
        import os
        from cardcage_finops.interfaces import CostSourcePlugin
        from cardcage_finops.models import BillProfile, ChargeBatch

        class Odd(CostSourcePlugin):
            def probe(self):
                return BillProfile(format="odd")

            def read(self, columns):
                {statement}
                yield ChargeBatch(columns={{}}, first_row=1, read=0, taken=0)
    """
    (folder / "odd_source.py").write_text(textwrap.dedent(code_of_plugin))
    paths = [*PACK.plugin_dirs, tmp_path / "own"]
    async with PluginManager(plugin_paths=paths, state_dir=tmp_path / "state", auto_start=False) as manager:
        with pytest.raises(CardcageError) as caught:
            await analyze(manager, AnalysisRequest(bill=bill))
        assert isinstance(caught.value, PluginFault)
        assert 'plugin "odd-source" 3.1.4' in caught.value.message
        assert words in caught.value.message
        assert caught.value.code == code
        assert manager.list_instances() == []


async def test_a_detector_that_never_answers_is_given_up_and_the_rest_goes_on(
    tmp_path: Path, bill: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "own" / "sleepy-detector"
    folder.mkdir(parents=True)
    (folder / "plugin.yaml").write_text(
        "name: sleepy-detector\nversion: 1.0.0\nentrypoint: sleepy:Sleepy\ntype: anomaly_detector\n"
    )
    code = """
        import time
        from cardcage_finops.interfaces import AnomalyDetectorPlugin

        class Sleepy(AnomalyDetectorPlugin):
            def detect(self, series):
                time.sleep(600)
                return []
    """
    (folder / "sleepy.py").write_text(textwrap.dedent(code))
    monkeypatch.setattr(crew, "CALL_TIMEOUT_S", 5.0)
    paths = [*PACK.plugin_dirs, tmp_path / "own"]
    async with PluginManager(plugin_paths=paths, state_dir=tmp_path / "state", auto_start=False) as manager:
        found = await analyze(manager, AnalysisRequest(bill=bill))
    errors = {run.name: run.error_code for run in found.plugins if run.error}
    assert errors == {"sleepy-detector": "deadline_exceeded"}
    assert found.currencies[0].totals.billed == Decimal("7.5")
