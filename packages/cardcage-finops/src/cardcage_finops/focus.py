"""The columns of FOCUS, the open cost and usage specification, by version, as data.

Source of names, kinds and versions: the FOCUS specification 1.0, 1.1 and 1.2 (focus.finops.org). Everything in the pack
is held in 1.2 columns; columns of our own carry the prefix `x_`.
"""

from __future__ import annotations

import re
from typing import Final, Literal

Kind = Literal["text", "decimal", "date", "json"]

_V1_0: Final[dict[str, Kind]] = {
    "AvailabilityZone": "text",
    "BilledCost": "decimal",
    "BillingAccountId": "text",
    "BillingAccountName": "text",
    "BillingCurrency": "text",
    "BillingPeriodEnd": "date",
    "BillingPeriodStart": "date",
    "ChargeCategory": "text",
    "ChargeClass": "text",
    "ChargeDescription": "text",
    "ChargeFrequency": "text",
    "ChargePeriodEnd": "date",
    "ChargePeriodStart": "date",
    "CommitmentDiscountCategory": "text",
    "CommitmentDiscountId": "text",
    "CommitmentDiscountName": "text",
    "CommitmentDiscountStatus": "text",
    "CommitmentDiscountType": "text",
    "ConsumedQuantity": "decimal",
    "ConsumedUnit": "text",
    "ContractedCost": "decimal",
    "ContractedUnitPrice": "decimal",
    "EffectiveCost": "decimal",
    "InvoiceIssuerName": "text",
    "ListCost": "decimal",
    "ListUnitPrice": "decimal",
    "PricingCategory": "text",
    "PricingQuantity": "decimal",
    "PricingUnit": "text",
    "ProviderName": "text",
    "PublisherName": "text",
    "RegionId": "text",
    "RegionName": "text",
    "ResourceId": "text",
    "ResourceName": "text",
    "ResourceType": "text",
    "ServiceCategory": "text",
    "ServiceName": "text",
    "SkuId": "text",
    "SkuPriceId": "text",
    "SubAccountId": "text",
    "SubAccountName": "text",
    "Tags": "json",
}
_ADDED_IN_1_1: Final[dict[str, Kind]] = {
    "CapacityReservationId": "text",
    "CapacityReservationStatus": "text",
    "CommitmentDiscountQuantity": "decimal",
    "CommitmentDiscountUnit": "text",
    "ServiceSubcategory": "text",
    "SkuMeter": "text",
    "SkuPriceDetails": "json",
}
_ADDED_IN_1_2: Final[dict[str, Kind]] = {
    "BillingAccountType": "text",
    "InvoiceId": "text",
    "PricingCurrency": "text",
    "PricingCurrencyContractedUnitPrice": "decimal",
    "PricingCurrencyEffectiveCost": "decimal",
    "PricingCurrencyListUnitPrice": "decimal",
    "SubAccountType": "text",
}


def _in_order(*groups: dict[str, Kind]) -> dict[str, Kind]:
    columns: dict[str, Kind] = {}
    for group in groups:
        columns.update(group)
    return dict(sorted(columns.items()))


COLUMNS: Final[dict[str, dict[str, Kind]]] = {
    "1.0": _V1_0,
    "1.1": _in_order(_V1_0, _ADDED_IN_1_1),
    "1.2": _in_order(_V1_0, _ADDED_IN_1_1, _ADDED_IN_1_2),
}
"""Columns of each version, by name, in alphabetical order."""

FOCUS_1_2: Final[dict[str, Kind]] = COLUMNS["1.2"]

MANDATORY: Final[frozenset[str]] = frozenset(
    {
        "BilledCost",
        "BillingAccountId",
        "BillingAccountName",
        "BillingCurrency",
        "BillingPeriodEnd",
        "BillingPeriodStart",
        "ChargeCategory",
        "ChargeClass",
        "ChargeDescription",
        "ChargePeriodEnd",
        "ChargePeriodStart",
        "ContractedCost",
        "EffectiveCost",
        "InvoiceIssuerName",
        "ListCost",
        "PricingQuantity",
        "PricingUnit",
        "ProviderName",
        "PublisherName",
        "ServiceCategory",
        "ServiceName",
    }
)
"""Columns that every FOCUS 1.2 data set has, though some of their values may be null."""

COSTS: Final[tuple[str, ...]] = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")

_OLDER_NAMES: Final[dict[str, str]] = {
    "amortizedcost": "EffectiveCost",
    "billedcurrency": "BillingCurrency",
    "chargetype": "ChargeCategory",
    "invoiceissuer": "InvoiceIssuerName",
    "provider": "ProviderName",
    "publisher": "PublisherName",
    "region": "RegionId",
}
"""Names of drafts before 1.0, without case and separators."""


def _bare(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BY_BARE_NAME: Final[dict[str, str]] = {_bare(name): name for name in FOCUS_1_2} | _OLDER_NAMES


def canonical_name(header: str) -> str | None:
    """The FOCUS 1.2 name that a header means, or None: `billedCost`, `billed_cost` and `Billed Cost` are `BilledCost`.

    Columns with the prefix `x_` keep their name.
    """
    header = header.strip()
    if header in FOCUS_1_2 or header.startswith("x_"):
        return header
    return _BY_BARE_NAME.get(_bare(header))


def version_of(columns: frozenset[str]) -> str:
    """The lowest version that has all of these columns."""
    for version, known in COLUMNS.items():
        if all(name in known for name in columns if name in FOCUS_1_2):
            return version
    return "1.2"


def kind_of(column: str) -> Kind:
    """What a column's values are; columns of our own (`x_`) are text."""
    return FOCUS_1_2.get(column, "text")
