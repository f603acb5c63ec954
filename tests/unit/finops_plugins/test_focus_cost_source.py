"""The FOCUS cost source: exact sums, dirty files, and nothing lost in silence."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardcage_finops.interfaces import CostSourcePlugin
from cardcage_finops.models import BillProfile, ChargeBatch, RowIssue

if TYPE_CHECKING:
    from .conftest import Bills, Shipped

COSTS = ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost"]


@pytest.fixture
def read(shipped: Shipped) -> Reader:
    return Reader(shipped)


class Reader:
    """Reads bills with the plugin, in this process."""

    def __init__(self, shipped: Shipped) -> None:
        self.shipped = shipped

    def source(self, path: str) -> CostSourcePlugin:
        return self.shipped.make("focus-cost-source", CostSourcePlugin, {"bill": path})

    def __call__(self, path: str, columns: Iterable[str] = ("BilledCost",)) -> list[ChargeBatch]:
        batches = list(self.source(path).read(list(columns)))
        for batch in batches:
            assert batch.read == batch.taken + batch.refused
            assert {len(values) for values in batch.columns.values()} <= {batch.taken}
            assert not batch.rows or len(batch.rows) == batch.taken
        return batches


def issues(batches: list[ChargeBatch]) -> list[RowIssue]:
    return [issue for batch in batches for issue in batch.issues]


def total(batches: list[ChargeBatch], column: str = "BilledCost") -> Decimal:
    return sum((Decimal(value) for batch in batches for value in batch.columns[column] if value), Decimal(0))


def told(found: list[RowIssue]) -> list[tuple[int, str, str, str]]:
    return [(one.row, one.column, one.code, one.action) for one in found]


def test_the_official_sample_comes_to_the_last_digit_by_service_account_and_day(
    read: Reader, shared_data: Path
) -> None:
    path = shared_data / "focus_1.0_official_sample_1000.csv"
    keys = {"ServiceName": slice(None), "SubAccountId": slice(None), "ChargePeriodStart": slice(0, 10)}
    expected: dict[tuple[str, str | None, str], Decimal] = defaultdict(Decimal)
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            for name, part in keys.items():
                for cost in COSTS:
                    key = None if row[name] in ("", "NULL") else row[name][part]
                    expected[name, key, cost] += Decimal(row[cost]) if row[cost] not in ("", "NULL") else 0
    batches = read(str(path), [*COSTS, *keys])
    found: dict[tuple[str, str | None, str], Decimal] = defaultdict(Decimal)
    for batch in batches:
        for charge in batch.charges():
            for name, part in keys.items():
                key = charge.values[name]
                for cost in COSTS:
                    found[name, key and key[part], cost] += Decimal(charge.values[cost] or 0)
    assert found == expected
    assert total(batches) == Decimal("20.52022672899")
    assert sum(batch.taken for batch in batches) == 1000
    missing = [issue for issue in issues(batches) if issue.action == "corrected"]
    assert {(issue.column, issue.code) for issue in missing} == {("ContractedCost", "missing_value")}
    assert sum(batch.corrected for batch in batches) == len(missing) == 7


def test_the_official_samples_defect_is_told_by_probe(read: Reader, shared_data: Path) -> None:
    profile = read.source(str(shared_data / "focus_1.0_official_sample_1000.csv")).probe()
    assert (profile.format, profile.version, len(profile.columns)) == ("focus", "1.0", 43)
    assert told(profile.issues) == [(0, "Id", "unknown_column", "noted")]


def test_a_served_plugin_gives_the_same_as_an_imported_one(
    shipped: Shipped, read: Reader, shared_data: Path, tmp_path: Path
) -> None:
    path = str(shared_data / "focus_1.0_official_sample_1000.csv")
    columns = [*COSTS, "Tags", "SkuMeter"]
    with shipped.serve("focus-cost-source", {"bill": path}, tmp_path) as served:
        assert served.call(BillProfile, "probe") == read.source(path).probe()
        assert served.stream(ChargeBatch, "read", columns) == read(path, columns)


@pytest.mark.parametrize("name", ["bill.csv", "bill.csv.gz"])
def test_plain_and_gzip_files_are_read_alike(read: Reader, bills: Bills, name: str) -> None:
    batches = read(bills.write(bills.text({}, {"BilledCost": "0.0000000001"}), name))
    assert total(batches) == Decimal("1.5000000001")
    assert batches[-1].done == 1.0


def test_rows_come_in_bounded_batches_with_their_numbers(read: Reader, bills: Bills) -> None:
    text = bills.text(*[{"BilledCost": str(number)} for number in range(4500)])
    batches = read(bills.write(text))
    assert [(batch.first_row, batch.taken) for batch in batches] == [(1, 2000), (2001, 2000), (4001, 500)]
    assert total(batches) == Decimal(sum(range(4500)))


def test_rows_with_huge_tags_come_in_smaller_batches(read: Reader, bills: Bills) -> None:
    text = bills.text(*[{"Tags": "x" * 100_000} for _ in range(200)])
    batches = read(bills.write(text), ["Tags"])
    assert sum(batch.taken for batch in batches) == 200
    assert max(len(batch.columns["Tags"]) for batch in batches) < 70


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("BilledCost", "free", "bad_decimal"),
        ("BilledCost", "1,5", "bad_decimal"),
        ("BilledCost", "NaN", "bad_decimal"),
        ("BilledCost", "1e9999999", "bad_decimal"),
        ("EffectiveCost", "$1.50", "bad_decimal"),
        ("ListCost", "1.2.3", "bad_decimal"),
        ("ChargePeriodStart", "2025-02-30", "bad_date"),
        ("ChargePeriodStart", "01/02/2025", "bad_date"),
        ("ChargePeriodEnd", "soon", "bad_date"),
        ("BilledCost", "NULL", "missing_value"),
        ("ChargePeriodStart", "", "missing_value"),
        ("BillingCurrency", "NULL", "missing_value"),
    ],
)
def test_a_row_whose_money_or_day_cannot_be_told_is_refused_with_its_number(
    read: Reader, bills: Bills, column: str, value: str, code: str
) -> None:
    (batch,) = read(bills.write(bills.text({}, {column: value}, {"BilledCost": "2"})), ["BilledCost"])
    assert (batch.read, batch.taken, batch.refused, batch.rows) == (3, 2, 1, [1, 3])
    assert told(batch.issues) == [(2, column, code, "refused")]
    assert code == "missing_value" or value in batch.issues[0].message
    assert batch.columns == {"BilledCost": ["1.5", "2"]}


def test_the_same_rows_are_taken_whatever_columns_are_asked_for(read: Reader, bills: Bills) -> None:
    path = bills.write(bills.text({}, {"ListCost": "bad"}, {"ChargePeriodEnd": "bad"}))
    for columns in (["ServiceName"], ["ListCost"], [], ["Tags", "BilledCost"]):
        (batch,) = read(path, columns)
        assert (batch.taken, batch.refused) == (1, 2)


def test_a_row_of_a_wrong_width_is_refused_and_the_rest_is_read(read: Reader, bills: Bills) -> None:
    lines = bills.text({}, {}, {}).splitlines()
    lines[2] += ",one too many"
    (batch,) = read(bills.write("\n".join(lines)))
    assert told(batch.issues) == [(2, "", "wrong_width", "refused")]
    assert batch.issues[0].message == "expected 21 values, found 22"
    assert batch.rows == [1, 3]


def test_an_unclosed_quote_loses_no_row_in_silence(read: Reader, bills: Bills) -> None:
    text = bills.text({}, {}, {}) + '"never closed,1,2\n3,4\n'
    batches = read(bills.write(text))
    assert sum(batch.read for batch in batches) == 4
    assert sum(batch.refused for batch in batches) == 1


def test_other_bad_values_are_emptied_and_the_row_is_taken(read: Reader, bills: Bills) -> None:
    row = {"PricingQuantity": "many", "BillingPeriodEnd": "later"}
    (batch,) = read(bills.write(bills.text(row)), ["PricingQuantity", "BillingPeriodEnd"])
    assert batch.columns == {"PricingQuantity": [None], "BillingPeriodEnd": [None]}
    assert (batch.taken, batch.corrected) == (1, 1)
    assert {one.code for one in batch.issues} == {"bad_decimal", "bad_date"}


def test_thousands_separators_are_mended(read: Reader, bills: Bills) -> None:
    (batch,) = read(bills.write(bills.text({"BilledCost": "-1,234,567.50"})))
    assert batch.columns["BilledCost"] == ["-1234567.50"]
    assert told(batch.issues)[0] == (1, "BilledCost", "thousands_separator", "corrected")


def test_an_empty_effective_cost_is_taken_as_billed_and_other_empty_costs_add_nothing(
    read: Reader, bills: Bills
) -> None:
    row = {"EffectiveCost": "NULL", "ListCost": "", "ContractedCost": "null"}
    (batch,) = read(bills.write(bills.text(row)), COSTS)
    assert batch.charges()[0].values == {
        "BilledCost": "1.5",
        "EffectiveCost": "1.5",
        "ListCost": None,
        "ContractedCost": None,
    }
    assert batch.corrected == 1
    assert [one.column for one in batch.issues] == ["EffectiveCost", "ListCost", "ContractedCost"]


def test_null_is_known_in_its_spellings(read: Reader, bills: Bills) -> None:
    rows = [{"ServiceName": text} for text in ("NULL", "null", "\\N", "", "Null Service")]
    (batch,) = read(bills.write(bills.text(*rows)), ["ServiceName"])
    assert batch.columns["ServiceName"] == [None, None, None, None, "Null Service"]


def test_times_come_in_utc_whatever_their_form(read: Reader, bills: Bills) -> None:
    forms = [
        "2025-01-02",
        "2025-01-02 00:00:00",
        "2025-01-02T00:00:00Z",
        "2025-01-02T02:00:00+02:00",
        "2025-01-02T00:00:00.000Z",
    ]
    rows = [{"ChargePeriodStart": text} for text in forms]
    (batch,) = read(bills.write(bills.text(*rows)), ["ChargePeriodStart"])
    assert batch.columns["ChargePeriodStart"] == ["2025-01-02T00:00:00Z"] * 5


def test_currencies_are_kept_apart_and_noted_once(read: Reader, bills: Bills) -> None:
    rows = [{"BillingCurrency": currency} for currency in ("USD", "EUR", "EUR", "USD")]
    (batch,) = read(bills.write(bills.text(*rows)), ["BillingCurrency"])
    assert batch.columns["BillingCurrency"] == ["USD", "EUR", "EUR", "USD"]
    assert told(batch.issues) == [(2, "BillingCurrency", "mixed_currency", "noted")]


def test_credits_and_refunds_are_taken_and_only_negative_usage_is_noted(read: Reader, bills: Bills) -> None:
    rows = [
        {"BilledCost": "-5", "ChargeCategory": "Credit"},
        {"BilledCost": "-6", "ChargeClass": "Correction"},
        {"BilledCost": "-7"},
        {"PricingQuantity": "-1"},
        {"BilledCost": "-0.00"},
    ]
    (batch,) = read(bills.write(bills.text(*rows)))
    assert total([batch]) == Decimal("-16.5")
    assert told(batch.issues) == [(row, "BilledCost", "negative_usage", "noted") for row in (3, 4)]


def test_headers_in_another_spelling_are_read_and_told_once(read: Reader, bills: Bills) -> None:
    path = bills.write(bills.text({}, header={"BilledCost": "billedCost", "ServiceName": "service_name"}))
    assert total(read(path)) == Decimal("1.5")
    renamed = [one for one in read.source(path).probe().issues if one.code == "renamed_column"]
    assert [(one.column, one.action) for one in renamed] == [("BilledCost", "corrected"), ("ServiceName", "corrected")]


def test_the_exact_header_counts_where_a_variant_stands_beside_it(read: Reader, bills: Bills) -> None:
    path = bills.write(bills.text({"billed_cost": "9"}))
    assert total(read(path)) == Decimal("1.5")
    assert [one.code for one in read.source(path).probe().issues] == ["duplicate_column"]


@pytest.mark.parametrize("column", ["BillingCurrency", "ServiceName"])
def test_a_bill_without_currencies_or_services_is_read_and_says_so(read: Reader, bills: Bills, column: str) -> None:
    path = bills.write(bills.text({}, {}, drop=(column,)))
    (batch,) = read(path, ["BilledCost", column])
    assert (batch.taken, batch.refused, batch.columns[column]) == (2, 0, [None, None])
    profile = read.source(path).probe()
    assert column not in profile.columns
    assert (0, column, "missing_column", "corrected") in told(profile.issues)


@pytest.mark.parametrize("column", ["BilledCost", "ChargePeriodStart"])
def test_a_column_that_nothing_stands_in_for_is_asked_for_by_name(read: Reader, bills: Bills, column: str) -> None:
    path = bills.write(bills.text({}, drop=(column,)))
    for attempt in (read.source(path).probe, lambda: read(path)):
        with pytest.raises(ValueError, match=f"has no column {column}, .*found 20 columns: ") as caught:
            attempt()
        assert len(str(caught.value).splitlines()) == 1


def test_a_needed_column_that_stands_there_twice_is_an_error(read: Reader, bills: Bills) -> None:
    path = bills.write(bills.text({"Again": "1"}, header={"Again": "BilledCost"}))
    with pytest.raises(ValueError, match='has the column "BilledCost" twice'):
        read(path)


def test_missing_cost_columns_are_taken_from_the_next_and_told(read: Reader, bills: Bills) -> None:
    path = bills.write(bills.text({}, drop=("EffectiveCost", "ListCost", "ContractedCost")))
    (batch,) = read(path, COSTS)
    assert list(batch.charges()[0].values.values()) == ["1.5"] * 4
    said = {one.column: one.message for one in read.source(path).probe().issues}
    assert said["ListCost"] == "column ListCost is missing and was taken as ContractedCost"


def test_a_column_that_the_bill_lacks_comes_as_nothing(read: Reader, bills: Bills) -> None:
    (batch,) = read(bills.write(bills.text({}, {})), ["SkuMeter", "x_Own", "SkuMeter"])
    assert batch.columns == {"SkuMeter": [None, None], "x_Own": [None, None]}


@pytest.mark.parametrize(
    ("encoding", "code"), [("utf-8-sig", "byte_order_mark"), ("utf-16", "encoding"), ("cp1252", "encoding")]
)
def test_other_encodings_are_read_and_told(read: Reader, bills: Bills, encoding: str, code: str) -> None:
    path = bills.write(bills.text({"ServiceName": "Café"}).encode(encoding))
    (batch,) = read(path, ["ServiceName"])
    assert batch.columns["ServiceName"] == ["Café"]
    assert [one.code for one in read.source(path).probe().issues] == [code]


def test_bytes_that_are_no_text_late_in_a_file_are_replaced_and_told(read: Reader, bills: Bills) -> None:
    text = bills.text(*[{"Tags": ""}] * 2000, {"ServiceName": "Caf@"}).encode().replace(b"Caf@", b"Caf\xe9")
    batches = read(bills.write(text), ["ServiceName"])
    assert batches[-1].columns["ServiceName"][-1] == "Caf�"
    assert ("encoding", "corrected") in [(one.code, one.action) for one in issues(batches)]


def test_e_mail_addresses_in_tags_pass_unchanged(read: Reader, bills: Bills) -> None:
    tags = '{"owner": "a.b+c@example.com", "x": "1,2\\n3"}'
    (batch,) = read(bills.write(bills.text({"Tags": tags})), ["Tags"])
    assert batch.columns["Tags"] == [tags]


@pytest.mark.parametrize(
    ("content", "says"),
    [("", "is empty"), ("\n\n", "is empty"), ("just words\n", "has no column BilledCost and no ChargePeriodStart")],
)
def test_what_is_no_bill_is_refused_in_one_sentence(read: Reader, bills: Bills, content: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read(bills.write(content))


def test_a_file_that_is_not_there_is_named(read: Reader, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'cannot open the bill ".*none\.csv": No such file'):
        read(str(tmp_path / "none.csv"))


def test_a_gzip_file_that_breaks_off_says_after_which_row(read: Reader, bills: Bills, tmp_path: Path) -> None:
    path = bills.write(bills.text(*[{"Tags": f"{number:x}" * 40} for number in range(3000)]), "bill.csv.gz")
    Path(path).write_bytes(Path(path).read_bytes()[:-3000])
    with pytest.raises(ValueError, match=r"breaks off after row \d+"):
        read(path)


def test_more_issues_than_anyone_reads_are_told_as_counts(read: Reader, bills: Bills) -> None:
    batches = read(bills.write(bills.text(*[{"BilledCost": "bad"} for _ in range(1000)])))
    assert sum(batch.refused for batch in batches) == 1000
    assert len(issues(batches)) <= 201
    assert "800 more rows from 201 to 1000" in issues(batches)[-1].message


AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, places=10, min_value=-(10**9), max_value=10**9)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(AMOUNTS, st.text(max_size=8)), min_size=1, max_size=20))
def test_any_amounts_sum_exactly_and_any_text_comes_back(
    read: Reader, bills: Bills, rows: list[tuple[Decimal, str]]
) -> None:
    clean = [
        (amount, "".join(ch for ch in text if ch.isprintable() and not 0xD800 <= ord(ch) < 0xE000))
        for amount, text in rows
    ]
    path = bills.write(bills.text(*[{"BilledCost": str(amount), "ServiceName": text} for amount, text in clean]))
    batches = read(path, ["BilledCost", "ServiceName"])
    assert total(batches) == sum((amount for amount, _ in clean), Decimal(0))
    names = [value for batch in batches for value in batch.columns["ServiceName"]]
    assert names == [None if text in ("", "NULL", "null", "Null") else text for _, text in clean]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.sampled_from([b'"', b",", b"\n", b"\r", b"\x00", b"\xff", b"1", b"USD", b"2025-01-02", b"NULL", b"-"])
        | st.binary(max_size=6),
        max_size=120,
    )
)
def test_whatever_stands_under_the_header_is_counted_and_nothing_breaks(
    read: Reader, bills: Bills, pieces: list[bytes]
) -> None:
    text = b"BilledCost,BillingCurrency,ChargePeriodStart,ServiceName\n1,USD,2025-01-02,a\n"
    path = bills.write(text + b"".join(pieces))
    batches = read(path, ["BilledCost", "ServiceName"])
    assert sum(batch.taken for batch in batches) >= (0 if pieces else 1)
    assert batches[0].read >= 1
    numbers = [
        number for batch in batches for number in batch.rows or range(batch.first_row, batch.first_row + batch.taken)
    ]
    refused = {issue.row for issue in issues(batches) if issue.action == "refused"}
    assert len(numbers) + len(refused) == sum(batch.read for batch in batches) or len(refused) >= 200
    assert not set(numbers) & refused


def test_a_value_beyond_the_csv_limit_is_refused_and_the_rest_is_read(read: Reader, bills: Bills) -> None:
    (batch,) = read(bills.write(bills.text({}, {"Tags": "x" * 200_000}, {"BilledCost": "2"})))
    assert [(issue.row, issue.code) for issue in batch.issues] == [(2, "bad_row")]
    assert (batch.rows, batch.columns["BilledCost"]) == ([1, 3], ["1.5", "2"])


def plain_bill(*rows: str) -> str:
    """A bill of the columns that are needed, with EffectiveCost and ListCost beside them."""
    return "\n".join(("BilledCost,BillingCurrency,ChargePeriodStart,ServiceName,EffectiveCost,ListCost", *rows, ""))


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_read_with_and_without_a_mark(read: Reader, tmp_path: Path, encoding: str) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_bytes(plain_bill("1.5,USD,2024-09-01,Café,1.5,1.5").encode(encoding))
    batches = read(str(bill), ["ServiceName"])
    assert [value for batch in batches for value in batch.columns["ServiceName"]] == ["Café"]
    assert [one.code for one in read.source(str(bill)).probe().issues][:1] == ["encoding"]


def test_a_file_of_nul_bytes_is_no_bill(read: Reader, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_bytes(bytes(4000))
    with pytest.raises(ValueError, match="NUL bytes"):
        read(str(bill))


def test_blank_lines_above_the_header_are_passed_over(read: Reader, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text("\n , \n\n" + plain_bill("1.5,USD,2024-09-01,A,1.5,1.5"))
    assert total(read(str(bill))) == Decimal("1.5")


def test_a_refused_row_is_not_said_to_be_corrected_too(read: Reader, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    bill.write_text(plain_bill(",USD,2024-09-01,A,,", '"1,000",USD,never,A,1,1'))
    batches = read(str(bill))
    assert sorted(told(issues(batches))) == [
        (1, "BilledCost", "missing_value", "refused"),
        (2, "ChargePeriodStart", "bad_date", "refused"),
    ]
    assert [batch.corrected for batch in batches] == [0]


def test_a_row_that_swallowed_lines_says_which(read: Reader, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv"
    good = "1.5,USD,2024-09-01,A,1.5,1.5"
    bill.write_text(plain_bill(good, '"' + good, good, good))
    assert [one.message for one in issues(read(str(bill)))] == [
        "expected 6 values, found 1 in lines 3 to 5; is a quotation mark left open?"
    ]


def test_a_gzip_file_that_is_cut_off_is_told_with_its_name(read: Reader, tmp_path: Path) -> None:
    bill = tmp_path / "bill.csv.gz"
    bill.write_bytes(gzip.compress(plain_bill("1.5,USD,2024-09-01,A,1.5,1.5").encode())[:-20])
    with pytest.raises(ValueError, match=r"bill\.csv\.gz\" cannot be read"):
        read(str(bill))
