"""Daily series, resources and the analysis context out of a ledger."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import pytest

from cardcage_finops.models import ChargeBatch, DailyCost
from cardcage_finops.pipeline import series as series_module
from cardcage_finops.pipeline.ledger import add_all
from cardcage_finops.pipeline.resources import cloud_resources
from cardcage_finops.pipeline.series import (
    PERIOD_DAYS_MAX,
    analysis_context,
    daily_spike,
    main_currency,
    service_account_costs,
    whole_cost,
)

MakeBatch = Callable[..., ChargeBatch]
Row = dict[str, str | None]


def _row(day: int, effective: str, **more: str | None) -> Row:
    return {"ChargePeriodStart": f"2024-09-{day:02d}T05:00:00Z", "EffectiveCost": effective, **more}


def test_a_series_has_every_day_of_the_bill_once(make_batch: MakeBatch) -> None:
    rows = [_row(1, "1"), _row(1, "2"), _row(4, "5"), _row(3, "7", ServiceName="Storage")]
    found = service_account_costs(add_all([make_batch(rows)]))
    assert [(one.service, one.first_day, one.amounts) for one in found] == [
        ("Compute", "2024-09-01", [Decimal(3), Decimal(0), Decimal(0), Decimal(5)]),
        ("Storage", "2024-09-01", [Decimal(0), Decimal(0), Decimal(7), Decimal(0)]),
    ]


def test_parts_split_a_series_by_region_resource_and_category(make_batch: MakeBatch) -> None:
    rows = [
        _row(1, "1", ResourceId="i-1"),
        _row(2, "9", ResourceId="i-2", RegionId="us-east-1"),
        _row(2, "100", ChargeCategory="Tax"),
    ]
    (one,) = service_account_costs(add_all([make_batch(rows)]))
    assert one.amounts == [1, 109]
    assert one.parts["ResourceId"] == {"i-2": [0, 9], "i-1": [1, 0]}
    assert one.parts["RegionId"] == {"eu-west-1": [1, 100], "us-east-1": [0, 9]}
    assert one.parts["ChargeCategory"] == {"Usage": [1, 9], "Tax": [0, 100]}


def test_a_series_of_usage_alone_is_not_split_by_category(make_batch: MakeBatch) -> None:
    (one,) = service_account_costs(add_all([make_batch([_row(1, "1")])]))
    assert "ChargeCategory" not in one.parts


def test_one_row_dated_in_the_year_1_does_not_make_a_million_days(make_batch: MakeBatch) -> None:
    ledger = add_all([make_batch([_row(1, "1"), {"ChargePeriodStart": "0001-01-01T00:00:00Z", "EffectiveCost": "4"}])])
    (whole,) = whole_cost(ledger)
    assert len(whole.amounts) == PERIOD_DAYS_MAX
    assert ledger.currencies["USD"].total[1] == 5


def test_past_their_bound_the_cheapest_become_one(make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(series_module, "SERIES_MAX", 2)
    rows = [_row(1, str(n), ServiceName=f"s{n}") for n in range(1, 6)]
    found = service_account_costs(add_all([make_batch(rows)]))
    assert [(one.service, one.amounts) for one in found] == [("s5", [5]), ("s4", [4]), ("(other)", [6])]


def test_the_main_currency_is_the_one_with_the_greatest_bill(make_batch: MakeBatch) -> None:
    rows: list[Row] = [{"BilledCost": "5", "BillingCurrency": "EUR"}, {"BilledCost": "3"}, {"BilledCost": "1"}]
    ledger = add_all([make_batch(rows)])
    context = analysis_context(ledger)
    assert main_currency(ledger) == context.currency == "EUR"
    assert {name: totals.billed for name, totals in context.totals.items()} == {"EUR": 5, "USD": 4}


def test_an_empty_ledger_has_an_empty_context() -> None:
    context = analysis_context(add_all([]))
    assert (context.period_start, context.currency, context.series, context.daily) == ("", "", [], [])


def test_the_daily_spike_is_the_greatest_growth_from_one_day_to_the_next() -> None:
    amounts = [Decimal(value) for value in (100, 110, 0, 50, 40, 60)]
    assert daily_spike(DailyCost(first_day="2024-02-27", amounts=amounts)) == (0.5, "2024-03-03")
    assert daily_spike(DailyCost(first_day="2024-02-27", amounts=[Decimal(3)])) == (0.0, "")


def test_a_resource_costs_a_month_what_it_costs_a_day_thirty_times(make_batch: MakeBatch) -> None:
    rows = [_row(day, "2", ResourceId="i-old") for day in range(1, 11)]
    rows += [_row(day, "3", ResourceId="i-new", ResourceName="new") for day in range(6, 11)]
    found = cloud_resources(add_all([make_batch(rows)]), "USD")
    assert [(one.id, one.monthly_cost) for one in found] == [("i-new", 90), ("i-old", 60)]


def test_a_resource_has_its_size_tags_and_details_from_the_bill(make_batch: MakeBatch) -> None:
    tags, details = '{"team": "web", "n": 3}', '{"InstanceType": "m5.large"}'
    row = _row(1, "1", ResourceId="i-1", ResourceType="instance", Tags=tags, SkuPriceDetails=details)
    (one,) = cloud_resources(add_all([make_batch([row])]), "USD")
    assert (one.size, one.resource_type, one.region, one.account) == ("m5.large", "instance", "eu-west-1", "a1")
    assert one.tags == {"team": "web", "n": "3"}


@pytest.mark.parametrize("tags", ["", "not json", "[1, 2]", '{"a": {"b": 1}}', '{"a"', "9" * 5000])
def test_tags_that_are_no_object_of_texts_are_no_tags(make_batch: MakeBatch, tags: str) -> None:
    (one,) = cloud_resources(add_all([make_batch([_row(1, "1", ResourceId="i-1", Tags=tags)])]), "USD")
    assert one.tags == {}


def test_resources_that_cost_nothing_or_are_of_another_currency_are_left_out(make_batch: MakeBatch) -> None:
    rows = [_row(1, "0", ResourceId="i-0", BilledCost="0"), _row(1, "1", ResourceId="i-1", BillingCurrency="EUR")]
    assert cloud_resources(add_all([make_batch(rows)]), "USD") == []
