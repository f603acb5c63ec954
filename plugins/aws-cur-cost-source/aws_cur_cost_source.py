"""A cost source for legacy AWS Cost and Usage Reports, given as FOCUS 1.2 columns.

What each cost means by line item type is in README.md, with its source.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from aws_services import SERVICES

from cardcage_finops.bills import BillError, BillFile, Column, RawRows, RowLedger, dates, decimals, require, texts
from cardcage_finops.focus import kind_of
from cardcage_finops.interfaces import CostSourcePlugin
from cardcage_finops.models import BillProfile, ChargeBatch, RowIssue

NEEDED = ("lineItem/LineItemType", "lineItem/ProductCode", "lineItem/UnblendedCost", "lineItem/UsageStartDate")

COPIED = {
    "AvailabilityZone": ("lineItem/AvailabilityZone",),
    "BillingAccountId": ("bill/PayerAccountId",),
    "BillingAccountName": ("bill/PayerAccountName",),
    "BillingCurrency": ("lineItem/CurrencyCode",),
    "BillingPeriodEnd": ("bill/BillingPeriodEndDate",),
    "BillingPeriodStart": ("bill/BillingPeriodStartDate",),
    "CapacityReservationId": ("reservation/CapacityReservationArn",),
    "ChargeDescription": ("lineItem/LineItemDescription",),
    "CommitmentDiscountId": ("savingsPlan/SavingsPlanARN", "reservation/ReservationARN"),
    "ConsumedQuantity": ("lineItem/UsageAmount",),
    "ConsumedUnit": ("pricing/unit",),
    "ContractedUnitPrice": ("lineItem/UnblendedRate",),
    "InvoiceId": ("bill/InvoiceId",),
    "InvoiceIssuerName": ("bill/InvoicingEntity", "lineItem/LegalEntity"),
    "ListUnitPrice": ("pricing/publicOnDemandRate",),
    "PricingQuantity": ("lineItem/UsageAmount",),
    "PricingUnit": ("pricing/unit",),
    "PublisherName": ("lineItem/LegalEntity",),
    "RegionId": ("product/regionCode", "product/region"),
    "RegionName": ("product/location",),
    "ResourceId": ("lineItem/ResourceId",),
    "ResourceType": ("product/productFamily",),
    "SkuId": ("product/sku",),
    "SkuMeter": ("lineItem/UsageType",),
    "SkuPriceId": ("pricing/RateCode",),
    "SubAccountId": ("lineItem/UsageAccountId",),
    "SubAccountName": ("lineItem/UsageAccountName",),
    "x_InstanceType": ("product/instanceType",),
    "x_LineItemType": ("lineItem/LineItemType",),
    "x_Operation": ("lineItem/Operation",),
    "x_ProductCode": ("lineItem/ProductCode",),
    "x_ServiceKey": ("lineItem/ProductCode",),
    "x_UsageType": ("lineItem/UsageType",),
}
"""FOCUS column to the report's columns, the first one with a value."""

CATEGORIES = {
    "Usage": "Usage",
    "DiscountedUsage": "Usage",
    "SavingsPlanCoveredUsage": "Usage",
    "Fee": "Purchase",
    "RIFee": "Purchase",
    "SavingsPlanRecurringFee": "Purchase",
    "SavingsPlanUpfrontFee": "Purchase",
    "Tax": "Tax",
    "Credit": "Credit",
}
"""Line item type to ChargeCategory; every other type (refunds, discounts, negations) is an Adjustment."""

FREQUENCIES = {"Usage": "Usage-Based", "Purchase": "One-Time", "Tax": "Usage-Based", "Credit": "One-Time"}
RECURRING = frozenset({"RIFee", "SavingsPlanRecurringFee"})
COMMITMENT_TYPES = frozenset({"RIFee", "SavingsPlanNegation", "SavingsPlanRecurringFee", "SavingsPlanUpfrontFee"})
"""Line items that pay for a commitment, or take back what it covers: they cost nothing at list price."""

VITAL = ("BilledCost", "ChargePeriodStart", "EffectiveCost", "ListCost", "ContractedCost")


class AwsCurCostSource(CostSourcePlugin):
    """Reads the file that the config names as `bill`."""

    def load(self, config: dict[str, Any]) -> None:
        """Remember which report to read."""
        self.bill = str(config["bill"])

    def probe(self) -> BillProfile:
        """Look at the header. Raises `BillError` where it is no Cost and Usage Report."""
        with BillFile(self.bill) as file:
            layout = Layout(self.bill, file.header)
            return BillProfile(
                format="aws-cur",
                version="legacy",
                columns=layout.available(),
                issues=[*file.issues, *layout.issues],
                size_bytes=file.size_bytes,
            )

    def read(self, columns: list[str]) -> Iterator[ChargeBatch]:
        """Stream the report in FOCUS 1.2 columns. A column that it cannot give comes as Nones."""
        with BillFile(self.bill) as file:
            layout = Layout(self.bill, file.header)
            cache: dict[str, str | None] = {}
            for rows in file.batches():
                yield Sheet(layout, rows, cache).batch(list(dict.fromkeys(columns)))


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


class Layout:
    """Where the report's columns stand. Both spellings are known: `lineItem/UsageType`, `line_item_usage_type`."""

    def __init__(self, path: str, header: list[str]) -> None:
        self.issues: list[RowIssue] = []
        self._places: dict[str, int] = {}
        for index, name in enumerate(header):
            if self._places.setdefault(_bare(name), index) != index:
                message = f'column "{name}" stands there twice; the first counts'
                self.issues.append(
                    RowIssue(row=0, column=name, code="duplicate_column", message=message, action="corrected")
                )
        missing = [name for name in NEEDED if self.place(name) is None]
        if missing:
            raise BillError(
                f'"{path}" is no AWS Cost and Usage Report: it has no column {" and no ".join(missing)}; '
                f"found {len(header)} columns: {', '.join(header)[:600]}"
            )
        self.tags = {
            name.split("/", 1)[1]: index for index, name in enumerate(header) if name.startswith("resourceTags/")
        }

    def place(self, name: str) -> int | None:
        """The index of a column of the report."""
        return self._places.get(_bare(name))

    def available(self) -> list[str]:
        """The FOCUS columns that this report can give."""
        copied = [name for name, sources in COPIED.items() if any(self.place(source) is not None for source in sources)]
        return sorted({*copied, *COMPUTED})


class Sheet:
    """One batch of the report. Columns are worked out when first asked for, and kept."""

    def __init__(self, layout: Layout, rows: RawRows, cache: dict[str, str | None]) -> None:
        self.layout = layout
        self.rows = rows
        self.ledger = RowLedger(rows=rows)
        self._cache = cache
        self._made: dict[str, Column] = {}
        self._texts: dict[str, Column] = {}
        self._amounts: dict[str, Column] = {}

    def batch(self, columns: list[str]) -> ChargeBatch:
        """The vital columns are checked always, so that the same rows are taken whatever is asked for."""
        for name in VITAL:
            self.column(name)
        require(self.ledger, "BilledCost", self.column("BilledCost"))
        require(self.ledger, "ChargePeriodStart", self.column("ChargePeriodStart"))
        require(self.ledger, "BillingCurrency", self.column("BillingCurrency"))
        return self.ledger.close({name: self.column(name) for name in columns})

    def column(self, name: str) -> Column:
        """One FOCUS column."""
        if name not in self._made:
            make = COMPUTED.get(name)
            self._made[name] = make(self) if make else self._copied(name)
        return self._made[name]

    def text(self, name: str) -> Column:
        """A column of the report as text; Nones where the report lacks it."""
        if name not in self._texts:
            place = self.layout.place(name)
            absent: Column = [None] * len(self.rows.cells)
            self._texts[name] = absent if place is None else texts(self.rows.column(place))
        return self._texts[name]

    def amount(self, name: str) -> Column:
        """A money column of the report; a value that is no decimal refuses its row."""
        if name not in self._amounts:
            values = [value or "" for value in self.text(name)]
            self._amounts[name] = decimals(self.ledger, name, values, vital=True)
        return self._amounts[name]

    def times(self, column: str, values: list[str], *, vital: bool) -> Column:
        """A column of times."""
        return dates(self.ledger, column, values, self._cache, vital=vital)

    def _copied(self, name: str) -> Column:
        values = self._first_of(COPIED.get(name, ()))
        match kind_of(name):
            case "decimal":
                return decimals(self.ledger, name, [value or "" for value in values], vital=False)
            case "date":
                return self.times(name, [value or "" for value in values], vital=False)
            case _:
                return values

    def _first_of(self, sources: tuple[str, ...]) -> Column:
        columns = [self.text(source) for source in sources if self.layout.place(source) is not None]
        if len(columns) == 1:
            return columns[0]
        if not columns:
            return [None] * len(self.rows.cells)
        return [next((value for value in row if value is not None), None) for row in zip(*columns, strict=True)]


def _types(sheet: Sheet) -> list[str]:
    return [value or "" for value in sheet.text("lineItem/LineItemType")]


def _billed(sheet: Sheet) -> Column:
    return sheet.amount("lineItem/UnblendedCost")


def _effective(sheet: Sheet) -> Column:
    billed = list(sheet.column("BilledCost"))
    for position, kind in enumerate(_types(sheet)):
        match kind:
            case "Usage" | "Tax" | "Credit" | "Refund":
                continue
            case "SavingsPlanCoveredUsage":
                billed[position] = _value(sheet, "savingsPlan/SavingsPlanEffectiveCost", position)
            case "SavingsPlanRecurringFee":
                committed = Decimal(_value(sheet, "savingsPlan/TotalCommitmentToDate", position))
                billed[position] = str(committed - Decimal(_value(sheet, "savingsPlan/UsedCommitment", position)))
            case "SavingsPlanNegation" | "SavingsPlanUpfrontFee":
                billed[position] = "0"
            case "DiscountedUsage":
                billed[position] = _value(sheet, "reservation/EffectiveCost", position)
            case "RIFee":
                upfront = Decimal(_value(sheet, "reservation/UnusedAmortizedUpfrontFeeForBillingPeriod", position))
                billed[position] = str(upfront + Decimal(_value(sheet, "reservation/UnusedRecurringFee", position)))
            case "Fee" if sheet.text("reservation/ReservationARN")[position]:
                billed[position] = "0"
            case _:
                continue
    return billed


def _value(sheet: Sheet, name: str, position: int) -> str:
    return sheet.amount(name)[position] or "0"


def _list(sheet: Sheet) -> Column:
    on_demand, billed = sheet.amount("pricing/publicOnDemandCost"), sheet.column("BilledCost")
    return [
        "0" if kind in COMMITMENT_TYPES else (listed if listed is not None else paid)
        for kind, listed, paid in zip(_types(sheet), on_demand, billed, strict=True)
    ]


def _contracted(sheet: Sheet) -> Column:
    listed, billed = sheet.column("ListCost"), sheet.column("BilledCost")
    contracted: Column = []
    for kind, at_list, paid in zip(_types(sheet), listed, billed, strict=True):
        contracted.append("0" if kind in COMMITMENT_TYPES else at_list if kind == "DiscountedUsage" else paid)
    return contracted


def _interval(sheet: Sheet, end: int) -> Column:
    """Half of `identity/TimeInterval`, or the usage's own time where a report has no interval."""
    fallback = sheet.text(("lineItem/UsageStartDate", "lineItem/UsageEndDate")[end])
    halves: list[str] = []
    for interval, own in zip(sheet.text("identity/TimeInterval"), fallback, strict=True):
        parts = (interval or "").split("/")
        halves.append(parts[end] if len(parts) == 2 else own or "")
    return sheet.times(("ChargePeriodStart", "ChargePeriodEnd")[end], halves, vital=True)


def _category(sheet: Sheet) -> Column:
    return [CATEGORIES.get(kind, "Adjustment") for kind in _types(sheet)]


def _charge_class(sheet: Sheet) -> Column:
    return ["Correction" if kind == "Refund" else None for kind in _types(sheet)]


def _frequency(sheet: Sheet) -> Column:
    return [
        "Recurring" if kind in RECURRING else FREQUENCIES.get(CATEGORIES.get(kind, ""), "One-Time")
        for kind in _types(sheet)
    ]


def _pricing_category(sheet: Sheet) -> Column:
    committed = {"DiscountedUsage", "SavingsPlanCoveredUsage"}
    return ["Committed" if kind in committed else "Standard" if kind == "Usage" else None for kind in _types(sheet)]


def _commitment(values: tuple[str, str]) -> Callable[[Sheet], Column]:
    def make(sheet: Sheet) -> Column:
        plans, reservations = sheet.text("savingsPlan/SavingsPlanARN"), sheet.text("reservation/ReservationARN")
        return [
            values[0] if plan else values[1] if reservation else None
            for plan, reservation in zip(plans, reservations, strict=True)
        ]

    return make


def _commitment_status(sheet: Sheet) -> Column:
    used, unused = {"DiscountedUsage", "SavingsPlanCoveredUsage"}, {"RIFee", "SavingsPlanRecurringFee"}
    return ["Used" if kind in used else "Unused" if kind in unused else None for kind in _types(sheet)]


def _service_name(sheet: Sheet) -> Column:
    codes, names = sheet.text("lineItem/ProductCode"), sheet.text("product/ProductName")
    return [name or SERVICES.get(code or "", (code, ""))[0] for code, name in zip(codes, names, strict=True)]


def _service_category(sheet: Sheet) -> Column:
    return [SERVICES.get(code or "", ("", "Other"))[1] for code in sheet.text("lineItem/ProductCode")]


def _provider(sheet: Sheet) -> Column:
    return ["AWS"] * len(sheet.rows.cells)


def _tags(sheet: Sheet) -> Column:
    tags = sheet.layout.tags
    found: Column = []
    for row in sheet.rows.cells:
        held = {key: row[index] for key, index in tags.items() if row[index]}
        found.append(json.dumps(held, ensure_ascii=False) if held else None)
    return found


COMPUTED: dict[str, Callable[[Sheet], Column]] = {
    "BilledCost": _billed,
    "ChargeCategory": _category,
    "ChargeClass": _charge_class,
    "ChargeFrequency": _frequency,
    "ChargePeriodEnd": lambda sheet: _interval(sheet, 1),
    "ChargePeriodStart": lambda sheet: _interval(sheet, 0),
    "CommitmentDiscountCategory": _commitment(("Spend", "Usage")),
    "CommitmentDiscountStatus": _commitment_status,
    "CommitmentDiscountType": _commitment(("Savings Plan", "Reserved Instance")),
    "ContractedCost": _contracted,
    "EffectiveCost": _effective,
    "ListCost": _list,
    "PricingCategory": _pricing_category,
    "ProviderName": _provider,
    "ServiceCategory": _service_category,
    "ServiceName": _service_name,
    "Tags": _tags,
}
"""FOCUS columns that are worked out of several columns of the report."""
