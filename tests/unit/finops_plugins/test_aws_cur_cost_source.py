"""The AWS cost source: totals to the last digit, and what each line item type costs."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cardcage_finops.interfaces import CostSourcePlugin
from cardcage_finops.models import BillProfile, Charge, ChargeBatch

if TYPE_CHECKING:
    from .conftest import Shipped

COSTS = ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost"]

LINE = {
    "identity/TimeInterval": "2025-01-02T00:00:00Z/2025-01-02T01:00:00Z",
    "bill/PayerAccountId": "1",
    "lineItem/UsageAccountId": "2",
    "lineItem/LineItemType": "Usage",
    "lineItem/ProductCode": "AmazonEC2",
    "lineItem/UsageStartDate": "2025-01-02T00:30:00Z",
    "lineItem/UsageEndDate": "2025-01-02T00:40:00Z",
    "lineItem/CurrencyCode": "USD",
    "lineItem/UnblendedCost": "1.0",
    "product/ProductName": "",
    "pricing/publicOnDemandCost": "",
    "reservation/ReservationARN": "",
    "reservation/EffectiveCost": "",
    "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod": "",
    "reservation/UnusedRecurringFee": "",
    "savingsPlan/SavingsPlanARN": "",
    "savingsPlan/SavingsPlanEffectiveCost": "",
    "savingsPlan/TotalCommitmentToDate": "",
    "savingsPlan/UsedCommitment": "",
    "resourceTags/user:owner": "",
}


@pytest.fixture
def cur(shipped: Shipped, tmp_path: Path) -> Reports:
    return Reports(shipped, tmp_path)


class Reports:
    """Writes small reports and reads them with the plugin, in this process."""

    def __init__(self, shipped: Shipped, folder: Path) -> None:
        self.shipped = shipped
        self.folder = folder

    def source(self, path: str) -> CostSourcePlugin:
        return self.shipped.make("aws-cur-cost-source", CostSourcePlugin, {"bill": path})

    def write(self, *lines: Mapping[str, str], spelling: str = "/") -> str:
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(list(LINE) if spelling == "/" else [spell(name) for name in LINE])
        writer.writerows([(LINE | dict(line))[name] for name in LINE] for line in lines)
        path = self.folder / "cur.csv"
        path.write_text(out.getvalue(), "utf-8")
        return str(path)

    def read(self, path: str, columns: Iterable[str] = COSTS) -> list[ChargeBatch]:
        return list(self.source(path).read(list(columns)))

    def charge(self, line: Mapping[str, str], columns: Iterable[str] = COSTS) -> dict[str, str | None]:
        (batch,) = self.read(self.write(line), columns)
        (charge,) = batch.charges()
        return charge.values


def spell(name: str) -> str:
    """`lineItem/UsageType` as `line_item_usage_type`."""
    return "".join(f"_{ch.lower()}" if ch.isupper() else ch for ch in name).replace("/", "").lstrip("_")


def charges(batches: list[ChargeBatch]) -> list[Charge]:
    return [charge for batch in batches for charge in batch.charges()]


def test_the_anonymous_report_is_exact_by_service_account_and_day(cur: Reports, shared_data: Path) -> None:
    path = shared_data / "aws_cur_anonymous_1281.csv"
    expected: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            cost = Decimal(row["lineItem/UnblendedCost"])
            expected["service", row["product/ProductName"]] += cost
            expected["account", row["lineItem/UsageAccountId"]] += cost
            expected["day", row["identity/TimeInterval"][:10]] += cost
    batches = cur.read(str(path), [*COSTS, "ServiceName", "SubAccountId", "ChargePeriodStart"])
    found: dict[tuple[str, str], Decimal] = defaultdict(Decimal)
    for charge in charges(batches):
        cost = Decimal(charge.values["BilledCost"] or 0)
        found["service", charge.values["ServiceName"] or ""] += cost
        found["account", charge.values["SubAccountId"] or ""] += cost
        found["day", (charge.values["ChargePeriodStart"] or "")[:10]] += cost
    assert found == expected
    assert sum(Decimal(one.values["BilledCost"] or 0) for one in charges(batches)) == Decimal("1.6823086974")
    assert [(batch.read, batch.taken, batch.corrected) for batch in batches] == [(1281, 1281, 0)]


def test_a_generated_report_with_many_columns_is_exact_too(cur: Reports, shared_data: Path) -> None:
    path = shared_data / "nise_synthetic" / "aws_cur_hourly_2024-09.csv"
    with path.open(encoding="utf-8", newline="") as file:
        expected = sum(Decimal(row["lineItem/UnblendedCost"]) for row in csv.DictReader(file))
    batches = cur.read(str(path), ["BilledCost"])
    assert sum(Decimal(one.values["BilledCost"] or 0) for one in charges(batches)) == expected
    assert sum(batch.refused for batch in batches) == 0


def test_a_served_plugin_gives_the_same_as_an_imported_one(
    shipped: Shipped, cur: Reports, shared_data: Path, tmp_path: Path
) -> None:
    path = str(shared_data / "aws_cur_anonymous_1281.csv")
    with shipped.serve("aws-cur-cost-source", {"bill": path}, tmp_path) as served:
        profile = served.call(BillProfile, "probe")
        assert profile == cur.source(path).probe()
        assert served.stream(ChargeBatch, "read", profile.columns) == cur.read(path, profile.columns)


ON_DEMAND = {"lineItem/UnblendedCost": "10", "pricing/publicOnDemandCost": "12"}
PLAN = {"savingsPlan/SavingsPlanARN": "arn:plan"}
RESERVED = {"reservation/ReservationARN": "arn:reserved"}


@pytest.mark.parametrize(
    ("kind", "line", "costs"),
    [
        ("Usage", ON_DEMAND, "10 10 12 10"),
        ("Tax", {"lineItem/UnblendedCost": "0.3"}, "0.3 0.3 0.3 0.3"),
        ("Credit", {"lineItem/UnblendedCost": "-4"}, "-4 -4 -4 -4"),
        ("SavingsPlanCoveredUsage", {**ON_DEMAND, **PLAN, "savingsPlan/SavingsPlanEffectiveCost": "7"}, "10 7 12 10"),
        ("SavingsPlanNegation", {"lineItem/UnblendedCost": "-10", **PLAN}, "-10 0 0 0"),
        (
            "SavingsPlanRecurringFee",
            {
                "lineItem/UnblendedCost": "8",
                "savingsPlan/TotalCommitmentToDate": "8.0",
                "savingsPlan/UsedCommitment": "7.5",
            },
            "8 0.5 0 0",
        ),
        ("SavingsPlanUpfrontFee", {"lineItem/UnblendedCost": "100"}, "100 0 0 0"),
        (
            "DiscountedUsage",
            {
                **RESERVED,
                "lineItem/UnblendedCost": "0",
                "reservation/EffectiveCost": "6",
                "pricing/publicOnDemandCost": "12",
            },
            "0 6 12 12",
        ),
        (
            "RIFee",
            {
                **RESERVED,
                "lineItem/UnblendedCost": "30",
                "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod": "1.25",
                "reservation/UnusedRecurringFee": "2.5",
            },
            "30 3.75 0 0",
        ),
        ("Fee", {**RESERVED, "lineItem/UnblendedCost": "50"}, "50 0 50 50"),
        ("Fee", {"lineItem/UnblendedCost": "50"}, "50 50 50 50"),
    ],
)
def test_each_line_item_type_costs_what_the_table_says(
    cur: Reports, kind: str, line: dict[str, str], costs: str
) -> None:
    values = cur.charge({"lineItem/LineItemType": kind, **line})
    assert [values[name] for name in COSTS] == costs.split()


def test_a_plan_and_what_it_covers_come_to_what_was_really_spent(cur: Reports) -> None:
    covered = {**ON_DEMAND, **PLAN, "savingsPlan/SavingsPlanEffectiveCost": "7"}
    fee = {"savingsPlan/TotalCommitmentToDate": "8", "savingsPlan/UsedCommitment": "7", "lineItem/UnblendedCost": "8"}
    path = cur.write(
        {"lineItem/LineItemType": "SavingsPlanCoveredUsage", **covered},
        {"lineItem/LineItemType": "SavingsPlanNegation", "lineItem/UnblendedCost": "-10"},
        {"lineItem/LineItemType": "SavingsPlanRecurringFee", **fee},
    )
    found = charges(cur.read(path))
    assert [sum(Decimal(one.values[name] or 0) for one in found) for name in COSTS[:2]] == [8, 8]


def test_categories_and_commitments_follow_the_line_item_type(cur: Reports) -> None:
    names = ["ChargeCategory", "ChargeClass", "ChargeFrequency", "PricingCategory", "CommitmentDiscountStatus"]
    for kind, expected in {
        "Usage": ["Usage", None, "Usage-Based", "Standard", None],
        "DiscountedUsage": ["Usage", None, "Usage-Based", "Committed", "Used"],
        "RIFee": ["Purchase", None, "Recurring", None, "Unused"],
        "Refund": ["Adjustment", "Correction", "One-Time", None, None],
        "Tax": ["Tax", None, "Usage-Based", None, None],
        "Credit": ["Credit", None, "One-Time", None, None],
    }.items():
        assert list(cur.charge({"lineItem/LineItemType": kind}, names).values()) == expected


def test_a_service_is_named_by_the_report_else_by_its_code(cur: Reports) -> None:
    columns = ["ServiceName", "ServiceCategory"]
    assert cur.charge({"product/ProductName": "My EC2"}, columns) == {
        "ServiceName": "My EC2",
        "ServiceCategory": "Compute",
    }
    assert cur.charge({}, columns)["ServiceName"] == "Amazon Elastic Compute Cloud"
    assert cur.charge({"lineItem/ProductCode": "NewThing"}, columns) == {
        "ServiceName": "NewThing",
        "ServiceCategory": "Other",
    }


def test_the_charge_period_is_the_time_interval_else_the_usages_own(cur: Reports) -> None:
    columns = ["ChargePeriodStart", "ChargePeriodEnd"]
    assert list(cur.charge({}, columns).values()) == ["2025-01-02T00:00:00Z", "2025-01-02T01:00:00Z"]
    assert list(cur.charge({"identity/TimeInterval": ""}, columns).values()) == [
        "2025-01-02T00:30:00Z",
        "2025-01-02T00:40:00Z",
    ]


def test_the_other_spelling_of_columns_gives_the_same(cur: Reports) -> None:
    usual = cur.read(cur.write(ON_DEMAND), [*COSTS, "ServiceName"])
    assert cur.read(cur.write(ON_DEMAND, spelling="_"), [*COSTS, "ServiceName"]) == usual


def test_tags_come_as_one_object(cur: Reports) -> None:
    assert cur.charge({"resourceTags/user:owner": "a@example.com"}, ["Tags"]) == {
        "Tags": '{"user:owner": "a@example.com"}'
    }
    assert cur.charge({}, ["Tags"]) == {"Tags": None}


@pytest.mark.parametrize(
    ("line", "column"),
    [
        ({"lineItem/UnblendedCost": "free"}, "lineItem/UnblendedCost"),
        ({"lineItem/UnblendedCost": ""}, "BilledCost"),
        ({"identity/TimeInterval": "yesterday/today"}, "ChargePeriodStart"),
        ({"lineItem/CurrencyCode": ""}, "BillingCurrency"),
        ({"pricing/publicOnDemandCost": "x"}, "pricing/publicOnDemandCost"),
    ],
)
def test_a_line_that_cannot_be_counted_is_refused_with_its_number(
    cur: Reports, line: dict[str, str], column: str
) -> None:
    (batch,) = cur.read(cur.write({}, line, {}), ["BilledCost"])
    assert (batch.taken, batch.refused, batch.rows) == (2, 1, [1, 3])
    assert [(one.row, one.column, one.action) for one in batch.issues] == [(2, column, "refused")]


def test_a_focus_bill_is_told_to_be_no_report(cur: Reports, shared_data: Path) -> None:
    with pytest.raises(ValueError, match="is no AWS Cost and Usage Report: it has no column lineItem/LineItemType"):
        cur.source(str(shared_data / "focus_1.0_official_sample_1000.csv")).probe()
