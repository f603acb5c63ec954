"""The ledger: exact totals whatever the batches, and no row lost."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from decimal import Context, Decimal
from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardcage_finops.models import ChargeBatch, RowIssue
from cardcage_finops.pipeline import ledger as ledger_module
from cardcage_finops.pipeline.ledger import NO_CURRENCY, OVERFLOW_KEY, Ledger, add_all, totals_of

MakeBatch = Callable[..., ChargeBatch]
Row = dict[str, str | None]

_cents = st.decimals(min_value=-(10**9), max_value=10**9, places=10).map(str)
_rows = st.lists(
    st.fixed_dictionaries(
        {
            "BilledCost": st.one_of(_cents, st.sampled_from(["1E-7", "-0", "NaN", "1E+40", "", "12,5", None])),
            "EffectiveCost": _cents,
            "BillingCurrency": st.sampled_from(["USD", "EUR", None]),
            "ServiceName": st.sampled_from(["Compute", "Storage", "\x1b[31m", None]),
            "SubAccountId": st.sampled_from(["a1", "a2", None]),
            "ChargePeriodStart": st.sampled_from(["2024-09-01T00:00:00Z", "2024-09-02T23:00:00Z", "2024-02-30", None]),
            "ResourceId": st.sampled_from([None, "i-1", "i-2"]),
            "ChargeCategory": st.sampled_from(["Usage", "Tax", None]),
        }
    ),
    max_size=40,
)


def _independent_sums(rows: list[Row]) -> tuple[dict[tuple[str, str, str], Decimal], int]:
    """BilledCost by (currency, dimension, key) added up in the plainest way, and how many rows can't be taken."""
    context = Context(prec=300)
    sums: defaultdict[tuple[str, str, str], Decimal] = defaultdict(Decimal)
    refused = 0
    for row in rows:
        billed, start = row["BilledCost"], row["ChargePeriodStart"]
        if billed in ("NaN", "1E+40", "", "12,5") or start in ("2024-02-30", None):
            refused += 1
            continue
        currency = row["BillingCurrency"] or NO_CURRENCY
        keys = {
            "total": "",
            "service": row["ServiceName"] or "(no service)",
            "account": row["SubAccountId"] or "payer",
            "day": start[:10],
        }
        for dimension, key in keys.items():
            at = (currency, dimension, key)
            sums[at] = context.add(sums[at], Decimal(billed or "0"))
    return dict(sums), refused


def _ledger_sums(ledger: Ledger) -> dict[tuple[str, str, str], Decimal]:
    found: dict[tuple[str, str, str], Decimal] = {}
    for currency, one in ledger.currencies.items():
        found[currency, "total", ""] = one.total[0]
        for dimension, table in (("service", one.by_service), ("account", one.by_account), ("day", one.by_day)):
            for key, sums in table.items():
                found[currency, dimension, key] = sums[0]
    return found


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_rows, cuts=st.lists(st.integers(0, 40), max_size=4), order=st.randoms())
def test_sums_equal_a_plain_addition_whatever_the_order_and_the_cut_of_batches(
    make_batch: MakeBatch, rows: list[Row], cuts: list[int], order: Random
) -> None:
    shuffled = list(rows)
    order.shuffle(shuffled)
    edges = sorted({0, len(shuffled), *(min(cut, len(shuffled)) for cut in cuts)})
    ledger = Ledger()
    for start, end in pairwise(edges):
        ledger.add(make_batch(shuffled[start:end], first_row=start + 1))
    expected, refused = _independent_sums(rows)
    assert _ledger_sums(ledger) == expected
    assert ledger.rows.read == len(rows) == ledger.rows.taken + ledger.rows.refused
    assert ledger.rows.refused == refused
    assert sum(one.rows for one in ledger.currencies.values()) == ledger.rows.taken


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=_rows)
def test_services_accounts_and_days_each_add_up_to_the_total(make_batch: MakeBatch, rows: list[Row]) -> None:
    for one in add_all([make_batch(rows)]).currencies.values():
        for table in (one.by_service, one.by_account, one.by_day, one.by_region):
            assert [sum(column) for column in zip(*table.values(), strict=True)] == one.total


def test_currencies_are_never_added_together(make_batch: MakeBatch) -> None:
    ledger = add_all([make_batch([{"BilledCost": "1.1"}, {"BilledCost": "2.2", "BillingCurrency": "EUR"}])])
    assert {name: totals_of(one.total).billed for name, one in ledger.currencies.items()} == {
        "USD": Decimal("1.1"),
        "EUR": Decimal("2.2"),
    }


def test_negative_rows_count_as_they_are(make_batch: MakeBatch) -> None:
    ledger = add_all([make_batch([{"BilledCost": "5"}, {"BilledCost": "-7.25", "ChargeCategory": "Credit"}])])
    assert ledger.currencies["USD"].total[0] == Decimal("-2.25")
    assert ledger.rows.taken == 2


def test_a_row_that_the_source_let_through_and_is_no_amount_is_refused_with_its_number(make_batch: MakeBatch) -> None:
    ledger = add_all(
        [make_batch([{}, {"EffectiveCost": "twelve"}, {"ChargePeriodStart": "2024-09-31T00:00:00Z"}], first_row=41)]
    )
    assert (ledger.rows.taken, ledger.rows.refused) == (1, 2)
    assert [(issue.row, issue.column, issue.code, issue.action) for issue in ledger.issues.listed()] == [
        (42, "EffectiveCost", "bad_decimal", "refused"),
        (43, "ChargePeriodStart", "bad_date", "refused"),
    ]


def test_row_numbers_of_a_batch_with_gaps_are_the_ones_it_gives(make_batch: MakeBatch) -> None:
    batch = make_batch([{}, {"BilledCost": "?"}], refused=1)
    batch = ChargeBatch(columns=batch.columns, first_row=1, read=3, taken=2, refused=1, rows=[1, 3])
    ledger = add_all([batch])
    assert [issue.row for issue in ledger.issues.listed()] == [3]
    assert (ledger.rows.read, ledger.rows.taken, ledger.rows.refused) == (3, 1, 2)


@pytest.mark.parametrize(
    "batch",
    [
        ChargeBatch(columns={"BilledCost": ["1"]}, first_row=1, read=2, taken=2),
        ChargeBatch(columns={}, first_row=1, read=5, taken=2, refused=2),
        ChargeBatch(columns={}, first_row=1, read=-1, taken=0, refused=-1),
        ChargeBatch(columns={}, first_row=1, read=2, taken=2, rows=[1]),
    ],
)
def test_a_batch_whose_counts_do_not_add_up_is_no_batch(batch: ChargeBatch) -> None:
    ledger = Ledger()
    with pytest.raises(ValueError, match=r"rows|cells|read"):
        ledger.add(batch)
    assert ledger.rows.read == 0


def test_an_account_is_the_sub_account_or_else_the_billing_account(make_batch: MakeBatch) -> None:
    ledger = add_all([make_batch([{"SubAccountName": "Team"}, {"SubAccountId": None, "BillingAccountName": "Payer"}])])
    assert set(ledger.currencies["USD"].by_account) == {"a1", "payer"}
    assert ledger.account_names == {"a1": "Team", "payer": "Payer"}


def test_a_resource_keeps_the_sums_of_its_usage_alone(make_batch: MakeBatch) -> None:
    rows: list[Row] = [
        {"ResourceId": "i-1", "BilledCost": "3", "ResourceName": "web"},
        {"ResourceId": "i-1", "BilledCost": "100", "ChargeCategory": "Purchase"},
        {"ResourceId": "i-1", "BilledCost": "4", "ChargePeriodStart": "2024-09-03T00:00:00Z"},
    ]
    ledger = add_all([make_batch(rows)])
    entry = ledger.resources["USD", "i-1"]
    assert (entry.name, entry.first_day, entry.last_day) == ("web", "2024-09-01", "2024-09-03")
    assert entry.usage[0] == 7
    assert ledger.currencies["USD"].total[0] == 107


def test_past_the_bound_of_keys_the_split_gets_coarser_and_totals_stay_exact(
    make_batch: MakeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "KEYS_MAX", 3)
    monkeypatch.setattr(ledger_module, "RESOURCES_MAX", 2)
    monkeypatch.setattr(ledger_module, "CELLS_MAX", 2)
    monkeypatch.setattr(ledger_module, "RESOURCE_DAYS_MAX", 2)
    rows: list[Row] = [{"ServiceName": f"s{n}", "ResourceId": f"i-{n}", "BilledCost": "0.1"} for n in range(10)]
    ledger = add_all([make_batch(rows)])
    one = ledger.currencies["USD"]
    assert one.total[0] == Decimal("1.0")
    assert one.by_service[OVERFLOW_KEY][0] == Decimal("0.7")
    assert sum(sums[0] for sums in one.by_service.values()) == one.total[0]
    assert len(ledger.resources) == 2
    assert sum(sum(days.values()) for days in ledger.cells.values()) == Decimal("1.0")
    assert {issue.code for issue in ledger.issues.listed()} == {"too_many_keys"}


def test_issues_are_counted_in_full_and_listed_up_to_a_bound(make_batch: MakeBatch) -> None:
    issues = [RowIssue(row=n, column="Tags", code="bad", message="m" * 9000, action="noted") for n in range(1, 501)]
    ledger = Ledger()
    ledger.add(ChargeBatch(columns={}, first_row=1, read=0, taken=0, issues=issues))
    assert [(one.code, one.count) for one in ledger.issues.counts()] == [("bad", 500)]
    assert [issue.row for issue in ledger.issues.listed()] == list(range(1, 51))
    assert max(len(issue.message) for issue in ledger.issues.listed()) == 500


def test_kinds_of_issues_beyond_the_bound_are_counted_as_other() -> None:
    ledger = Ledger()
    issues = [RowIssue(row=n, column="", code=f"k{n}", message="", action="noted") for n in range(150)]
    ledger.add(ChargeBatch(columns={}, first_row=1, read=0, taken=0, issues=issues))
    counts = {one.code: one.count for one in ledger.issues.counts()}
    assert counts["other"] == 50
    assert ledger.issues.total == 150


def test_memory_grows_with_the_keys_of_a_bill_and_not_with_its_rows(make_batch: MakeBatch) -> None:
    def batch(number: int) -> ChargeBatch:
        rows: list[Row] = [
            {
                "BilledCost": f"{number}.{at:07d}",
                "ServiceName": f"service {at % 7}",
                "ResourceId": f"i-{at % 50}",
                "ChargePeriodStart": f"2024-09-{1 + at % 28:02d}T00:00:00Z",
            }
            for at in range(1000)
        ]
        return make_batch(rows, first_row=1 + number * 1000)

    ledger = Ledger()
    ledger.add(batch(0))
    tracemalloc.start()
    try:
        for number in range(1, 41):
            ledger.add(batch(number))
            ledger.forget_amounts()
        grown = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert ledger.rows.taken == 41_000
    assert grown < 1024 * 1024


def test_a_service_with_a_key_is_added_up_by_the_key_and_called_by_its_first_name(make_batch: MakeBatch) -> None:
    rows: list[Row] = [
        {"x_ServiceKey": "AmazonS3", "ServiceName": "Amazon Simple Storage Service", "BilledCost": "1"},
        {"x_ServiceKey": "AmazonS3", "ServiceName": "AmazonS3", "BilledCost": "2"},
        {"x_ServiceKey": "other-s3", "ServiceName": "Amazon Simple Storage Service", "BilledCost": "4"},
        {"x_ServiceKey": None, "ServiceName": "Support", "BilledCost": "8"},
    ]
    ledger = add_all([make_batch(rows)])
    found = {key: sums[0] for key, sums in ledger.currencies["USD"].by_service.items()}
    assert found == {"AmazonS3": 3, "other-s3": 4, "Support": 8}
    assert {service for _, service, _ in ledger.cells} == {"Amazon Simple Storage Service", "Support"}
    assert ledger.service_names == dict.fromkeys(("AmazonS3", "other-s3"), "Amazon Simple Storage Service")
