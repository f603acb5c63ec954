"""The columns of FOCUS as data, and how headers are understood."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardcage_finops.focus import COLUMNS, FOCUS_1_2, MANDATORY, canonical_name, kind_of, version_of


def test_versions_have_the_number_of_columns_that_the_specification_says() -> None:
    assert {version: len(columns) for version, columns in COLUMNS.items()} == {"1.0": 43, "1.1": 50, "1.2": 57}
    assert len(MANDATORY) == 21
    assert set(COLUMNS["1.0"]) > MANDATORY


def test_the_official_sample_has_the_columns_of_1_0_and_its_known_defect(shared_data: Path) -> None:
    with (shared_data / "focus_1.0_official_sample_1000.csv").open(encoding="utf-8", newline="") as file:
        header = next(csv.reader(file))
    assert set(header) - set(COLUMNS["1.0"]) == {"Id"}
    assert set(COLUMNS["1.0"]) <= set(header)


@given(st.sampled_from(sorted(FOCUS_1_2)), st.sampled_from(["{}", "{} ", "_{}"]), st.booleans())
def test_case_and_separators_make_no_difference_to_a_header(name: str, form: str, lower: bool) -> None:
    written = form.format(name.lower() if lower else name)
    assert canonical_name(written) == name


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("billedCost", "BilledCost"),
        ("charge_period_start", "ChargePeriodStart"),
        ("Billing Account Id", "BillingAccountId"),
        ("Provider", "ProviderName"),
        ("x_SkuTier", "x_SkuTier"),
        ("Id", None),
        ("", None),
    ],
)
def test_a_header_means_one_column_or_none(written: str, meant: str | None) -> None:
    assert canonical_name(written) == meant


def test_the_version_is_the_lowest_that_has_all_columns() -> None:
    assert version_of(frozenset({"BilledCost", "x_Own"})) == "1.0"
    assert version_of(frozenset({"BilledCost", "SkuMeter"})) == "1.1"
    assert version_of(frozenset({"SkuMeter", "InvoiceId"})) == "1.2"


def test_kinds_tell_money_from_dates_and_text() -> None:
    assert [kind_of(name) for name in ("ListCost", "ChargePeriodEnd", "Tags", "x_Own")] == [
        "decimal",
        "date",
        "json",
        "text",
    ]
