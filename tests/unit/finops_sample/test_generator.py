"""Sample estates: repeatable, exact, labelled, and as large as one likes."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from collections import defaultdict
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from cardcage_finops.focus import FOCUS_1_2, MANDATORY
from cardcage_finops.sample import SampleFiles, generate, iter_sample_progress, plan_estate
from cardcage_finops.sample.estate import daily_series


def digest(files: SampleFiles) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in (files.bill, files.metrics, files.truth)]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> SampleFiles:
    return generate(tmp_path_factory.mktemp("estate"), resources=60, days=45, seed=7)


@pytest.fixture(scope="module")
def truth(small: SampleFiles) -> dict[str, Any]:
    return json.loads(small.truth.read_text("utf-8"))


@pytest.fixture(scope="module")
def rows(small: SampleFiles) -> list[dict[str, str]]:
    with small.bill.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(tmp_path: Path) -> None:
    size: dict[str, Any] = {"resources": 40, "days": 30}
    first, again, other = (
        digest(generate(tmp_path / name, seed=seed, **size)) for name, seed in [("a", 3), ("b", 3), ("c", 4)]
    )
    assert first == again
    assert all(one != two for one, two in zip(first, other, strict=True))


def test_a_seed_gives_the_bytes_that_it_always_gave(tmp_path: Path) -> None:
    """A change here changes every figure that was ever quoted for a seed: say so where it is meant."""
    files = generate(tmp_path, resources=40, days=30, seed=3)
    assert hashlib.sha256(files.bill.read_bytes()).hexdigest() == BILL_OF_SEED_3


BILL_OF_SEED_3 = "8cc7fa63f5f8eaf40991fdccb5ffb0698343fe14a828472b0433d85575465ece"


def test_a_bill_has_the_57_columns_of_focus_1_2_in_order_and_its_mandatory_values(
    rows: list[dict[str, str]],
) -> None:
    assert list(rows[0]) == list(FOCUS_1_2)
    nullable = {"ChargeClass"}
    for row in rows[:2000]:
        empty = [name for name in MANDATORY - nullable if not row[name]]
        assert row["ChargeCategory"] != "Usage" or empty == []


def test_the_truth_has_the_bills_totals_to_the_last_digit(rows: list[dict[str, str]], truth: dict[str, Any]) -> None:
    names = {"billed": "BilledCost", "effective": "EffectiveCost", "list": "ListCost", "contracted": "ContractedCost"}
    keys = {"service": "ServiceName", "account": "SubAccountId", "day": "ChargePeriodStart"}
    sums: dict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    whole: dict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        for short, name in names.items():
            amount = Decimal(row[name])
            whole[short] += amount
            for kind, column in keys.items():
                sums[kind, row[column][:10] if kind == "day" else row[column], short] += amount
    assert len(rows) == truth["rows"]
    assert {short: Decimal(text) for short, text in truth["totals"].items()} == whole
    told = {
        (kind, key, short): Decimal(text)
        for kind, table in truth["by"].items()
        for key, costs in table.items()
        for short, text in costs.items()
    }
    assert told == sums


def test_list_cost_is_quantity_times_price_in_every_row_of_usage(rows: list[dict[str, str]]) -> None:
    for row in rows[:3000]:
        if row["ChargeCategory"] == "Usage" and not row["ChargeClass"]:
            assert Decimal(row["PricingQuantity"]) * Decimal(row["ListUnitPrice"]) == Decimal(row["ListCost"])


def test_each_resource_has_one_row_an_hour(small: SampleFiles, rows: list[dict[str, str]]) -> None:
    hours = defaultdict[str, set[str]](set)
    for row in rows:
        if row["ResourceId"]:
            assert row["ChargePeriodStart"] not in hours[row["ResourceId"]]
            hours[row["ResourceId"]].add(row["ChargePeriodStart"])
    assert {len(found) for found in hours.values()} == {45 * 24}
    assert len(hours) == small.resources == 60


def test_every_anomaly_raises_what_its_resource_costs_and_only_then(
    rows: list[dict[str, str]], truth: dict[str, Any]
) -> None:
    assert truth["anomalies"]
    for anomaly in truth["anomalies"]:
        days = defaultdict[str, Decimal](Decimal)
        for row in rows:
            if row["ResourceId"] == anomaly["resource_id"]:
                days[row["ChargePeriodStart"][:10]] += Decimal(row["EffectiveCost"])
        inside = [cost for day, cost in days.items() if anomaly["first_day"] <= day <= anomaly["last_day"]]
        outside = [cost for day, cost in days.items() if not anomaly["first_day"] <= day <= anomaly["last_day"]]
        assert len(outside) >= 14
        assert max(inside) > sum(outside) / len(outside)
        assert 0 < Decimal(anomaly["extra_cost"]) < sum(inside)


def test_distractors_are_told_apart_from_anomalies(truth: dict[str, Any]) -> None:
    kinds = {one["description"] for one in truth["not_anomalies"]}
    assert {"Support fee of the month", "Promotional credit", "Refund of a disturbance"} <= kinds


def test_an_estate_of_size_has_every_kind_of_finding_and_decoy(tmp_path: Path) -> None:
    plan = plan_estate(resources=200)
    assert {one.kind for one in plan.idle} == {"instance", "volume", "database", "load balancer"}
    assert {one.kind for one in plan.oversized} == {"oversized", "oversized_no_memory_metric"}
    assert {one.kind for one in plan.decoys} == {"quiet_proxy", "batch_job", "new"}
    assert {one.kind for one in plan.anomalies} == {"spike", "step", "drift"}


def test_daily_series_are_what_the_bill_adds_up_to(rows: list[dict[str, str]]) -> None:
    sums = defaultdict[tuple[str, str, str], Decimal](Decimal)
    for row in rows:
        sums[row["ServiceName"], row["SubAccountId"], row["ChargePeriodStart"][:10]] += Decimal(row["EffectiveCost"])
    plan = plan_estate(resources=60, days=45, seed=7)
    told = {
        (one.service, one.account, plan.day(position).isoformat()): amount
        for one in daily_series(plan)
        for position, amount in enumerate(one.amounts)
        if amount
    }
    assert told == {key: amount for key, amount in sums.items() if amount}


def test_rows_ask_for_at_least_so_many(tmp_path: Path) -> None:
    files = generate(tmp_path, rows=5000, days=7)
    with files.bill.open(encoding="utf-8") as file:
        lines = sum(1 for _ in file) - 1
    assert lines == files.rows
    assert 5000 <= lines < 5000 + 24 * 7 + 20


def test_memory_does_not_grow_with_the_days(tmp_path: Path) -> None:
    program = """
import sys
from cardcage_finops.sample import generate
generate(sys.argv[1], resources=30, days=int(sys.argv[2]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""
    peaks_kib: list[int] = []
    for days in (20, 200):
        command = [sys.executable, "-c", program, str(tmp_path), str(days)]
        answer = subprocess.run(command, capture_output=True, text=True, check=True, timeout=100)
        peaks_kib.append(int(answer.stdout))
    assert (tmp_path / "bill.csv").stat().st_size > 40 * 1024 * 1024
    assert peaks_kib[1] - peaks_kib[0] < 4 * 1024


def test_progress_reaches_the_end_and_never_goes_back(tmp_path: Path) -> None:
    seen: list[float] = []
    files = generate(tmp_path, resources=20, days=10, progress=iter_sample_progress(seen.append))
    assert seen == sorted(set(seen))
    assert (seen[0], seen[-1]) == (0.0, 1.0)
    assert files.rows > 0


def test_new_resources_have_few_days_of_metrics(small: SampleFiles, truth: dict[str, Any]) -> None:
    days = defaultdict[str, set[str]](set)
    with small.metrics.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            days[row["resource_id"]].add(row["time"][:10])
    new = {one["resource_id"] for one in truth["not_findings"] if one["kind"] == "new"}
    assert {len(found) for name, found in days.items() if name in new} <= {3}
    assert {len(found) for name, found in days.items() if name not in new} == {14}


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ({"rows": 10, "resources": 10}, "not both"),
        ({"resources": 0}, "at least 1 resource, but 0"),
        ({"days": 0}, "at least 1 day, but 0"),
        ({"rows": 0}, "at least 1 resource"),
    ],
)
def test_sizes_that_cannot_be_are_refused(tmp_path: Path, size: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        generate(tmp_path, **size)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "size", [{"resources": 1, "days": 1}, {"resources": 5, "days": 2}, {"resources": 21, "days": 15}]
)
def test_the_smallest_estates_can_be_made(tmp_path: Path, size: dict[str, int]) -> None:
    files = generate(tmp_path, **size)  # pyright: ignore[reportArgumentType]
    assert files.rows >= size["resources"] * size["days"] * 24
