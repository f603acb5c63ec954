"""The ledger: batches of charges in, exact totals, series and resources out. Pure; a million rows in bounded memory.

What is kept grows with the number of *distinct* keys, never with the number of rows: services, accounts, days, series
(service x account), their days, resources and the days of resources. Each has a bound below. Past it the key is folded
into `OVERFLOW_KEY`, so that every total stays exact and only the split becomes coarser, and an issue says so.

Measured: the process peaks at some 110 MiB over a million rows of 700 resources, at some 510 MiB where all bounds below
are reached at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal, InvalidOperation, localcontext
from typing import Final

import msgspec

from cardcage_finops.models import ChargeBatch, RowIssue, Totals
from cardcage_finops.pipeline.amounts import EXACT, ZERO, is_amount
from cardcage_finops.pipeline.issues import IssueLog

AMOUNT_COLUMNS: Final = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
KEY_COLUMNS: Final = (
    "BillingCurrency",
    "ChargePeriodStart",
    "ServiceName",
    "SubAccountId",
    "BillingAccountId",
    "RegionId",
    "ResourceId",
    "ChargeCategory",
)
RESOURCE_COLUMNS: Final = (
    "ResourceName",
    "ResourceType",
    "ProviderName",
    "SubAccountName",
    "BillingAccountName",
    "SkuId",
    "SkuPriceDetails",
    "Tags",
)
"""Read only where a resource or an account is met for the first time."""

OVERFLOW_KEY: Final = "(other)"
USAGE: Final = "Usage"
"""The charge category of what was used; a row that names none counts as usage."""
NO_SERVICE: Final = "(no service)"
NO_ACCOUNT: Final = "(no account)"
NO_CURRENCY: Final = "XXX"
"""ISO 4217 for "no currency": what a bill that names none is kept under, apart from all others."""

CURRENCIES_MAX: Final = 200
"""ISO 4217 has about 180. A row in the 201st is refused: folding currencies together would add what can't be added."""

KEYS_MAX: Final = 50_000
"""Distinct services, accounts and days, each."""

CELLS_MAX: Final = 300_000
"""Distinct (day, service, account). 90 days of 100 services in 30 accounts are 270,000."""

RESOURCES_MAX: Final = 100_000
"""Distinct resources."""

RESOURCE_DAYS_MAX: Final = 300_000
"""Distinct (resource, day), kept to rank the causes of anomalies."""

KEY_CHARS_MAX: Final = 1024
"""Names and ids of providers have some 200 characters; longer ones are cut."""

CURRENCY_CHARS_MAX: Final = 32

ATTRIBUTE_CHARS_MAX: Final = 4096
CATEGORY_CHARS_MAX: Final = 64
AMOUNT_CACHE_MAX: Final = 65_536
"""Bills repeat their amounts (an hour of one instance type); the cache saves reading the same digits again."""

Sums = list[Decimal]
"""[billed, effective, list, contracted]; a list because it is added to in place."""
SeriesKey = tuple[str, str, str]
"""(currency, service, account)"""


@dataclass(slots=True)
class RowCounts:
    """What became of the rows: read = taken + refused; corrected ones are among the taken."""

    read: int = 0
    taken: int = 0
    corrected: int = 0
    refused: int = 0


@dataclass(slots=True)
class ResourceEntry:
    """What the bill says of one resource. `usage` are the sums of its usage rows alone: no fees, taxes or credits."""

    id: str
    currency: str
    service: str
    account: str
    region: str
    name: str
    type: str
    provider: str
    sku: str
    sku_details: str
    tags: str
    first_day: str
    last_day: str
    usage: Sums


@dataclass(slots=True)
class CurrencyLedger:
    """All that is known of one currency."""

    rows: int = 0
    total: Sums = field(default_factory=lambda: _zeros())
    by_service: dict[str, Sums] = field(default_factory=dict[str, Sums])
    by_account: dict[str, Sums] = field(default_factory=dict[str, Sums])
    by_day: dict[str, Sums] = field(default_factory=dict[str, Sums])
    by_region: dict[str, Sums] = field(default_factory=dict[str, Sums])


def _zeros() -> Sums:
    return [ZERO, ZERO, ZERO, ZERO]


def totals_of(sums: Sums) -> Totals:
    """The sums under their names."""
    return Totals(billed=sums[0], effective=sums[1], list=sums[2], contracted=sums[3])


_Group = tuple[str, str, str, str, str, str, str]
"""(currency, day, service, account, region, resource, category): rows of one batch that are added up together."""


@dataclass(slots=True)
class Ledger:
    """Takes batches as they come. The order and the cut of the batches make no difference to any sum."""

    rows: RowCounts = field(default_factory=RowCounts)
    issues: IssueLog = field(default_factory=IssueLog)
    currencies: dict[str, CurrencyLedger] = field(default_factory=dict[str, CurrencyLedger])
    cells: dict[SeriesKey, dict[str, Decimal]] = field(default_factory=dict[SeriesKey, dict[str, Decimal]])
    """EffectiveCost by day of each series."""
    region_cells: dict[SeriesKey, dict[str, dict[str, Decimal]]] = field(
        default_factory=dict[SeriesKey, dict[str, dict[str, Decimal]]]
    )
    """EffectiveCost by region and day of each series."""
    resource_cells: dict[SeriesKey, dict[str, dict[str, Decimal]]] = field(
        default_factory=dict[SeriesKey, dict[str, dict[str, Decimal]]]
    )
    """EffectiveCost by resource and day of each series."""
    resources: dict[tuple[str, str], ResourceEntry] = field(default_factory=dict[tuple[str, str], ResourceEntry])
    """By (currency, resource id)."""
    account_names: dict[str, str] = field(default_factory=dict[str, str])
    fee_cells: dict[SeriesKey, dict[str, dict[str, Decimal]]] = field(
        default_factory=dict[SeriesKey, dict[str, dict[str, Decimal]]]
    )
    """EffectiveCost by category and day of what is no usage: purchases, taxes, credits. Most series have none."""
    _cell_count: int = 0
    _fee_cell_count: int = 0
    _region_cell_count: int = 0
    _resource_day_count: int = 0
    _folded: set[str] = field(default_factory=set[str])
    _amounts: dict[str, Decimal | None] = field(default_factory=dict[str, Decimal | None])

    def add(self, batch: ChargeBatch) -> None:
        """Take a batch. Raises `ValueError` where its columns differ in length or its counts do not add up."""
        _check_shape(batch)
        self.issues.extend(batch.issues)
        with localcontext(EXACT):
            refused = self._add_rows(batch)
        self.rows.read += batch.read
        self.rows.taken += batch.taken - refused
        self.rows.corrected += min(batch.corrected, batch.taken - refused)
        self.rows.refused += batch.refused + refused

    def forget_amounts(self) -> None:
        """Let go of the cache of amounts, which holds at most `AMOUNT_CACHE_MAX` (some 12 MiB)."""
        self._amounts.clear()

    def _add_rows(self, batch: ChargeBatch) -> int:
        """Group the batch's rows, then fold the groups into the tables; answers how many rows were refused."""
        columns = [_column(batch, name) for name in (*AMOUNT_COLUMNS, *KEY_COLUMNS)]
        groups: dict[_Group, Sums] = {}
        counts: dict[str, int] = {}
        firsts: dict[_Group, int] = {}
        refused = 0
        amount = self._amount
        for index, cells in enumerate(zip(*columns, strict=True)):
            billed, effective, listed, contracted = (
                amount(cells[0]),
                amount(cells[1]),
                amount(cells[2]),
                amount(cells[3]),
            )
            currency = (cells[4] or NO_CURRENCY)[:CURRENCY_CHARS_MAX]
            start = cells[5] or ""
            if (
                billed is None
                or effective is None
                or listed is None
                or contracted is None
                or not _is_day(start[:10])
                or (currency not in self.currencies and len(self.currencies) >= CURRENCIES_MAX)
            ):
                refused += 1
                self.issues.add(_refusal(_row_number(batch, index), cells))
                continue
            group = (
                currency,
                start[:10],
                cells[6] or NO_SERVICE,
                cells[7] or cells[8] or NO_ACCOUNT,
                cells[9] or "",
                cells[10] or "",
                (cells[11] or USAGE)[:CATEGORY_CHARS_MAX],
            )
            if (sums := groups.get(group)) is None:
                groups[group] = [billed, effective, listed, contracted]
                firsts[group] = index
                if currency not in self.currencies:
                    self.currencies[currency] = CurrencyLedger()
            else:
                sums[0] += billed
                sums[1] += effective
                sums[2] += listed
                sums[3] += contracted
            counts[currency] = counts.get(currency, 0) + 1
        for currency, count in counts.items():
            self.currencies[currency].rows += count
        for group, sums in groups.items():
            self._fold(batch, firsts[group], group, sums)
        return refused

    def _amount(self, text: str | None) -> Decimal | None:
        """The amount that `text` spells, or None where it spells none. An absent amount adds nothing."""
        if text is None:
            return ZERO
        found = self._amounts.get(text, _UNSEEN)
        if found is _UNSEEN:
            if len(self._amounts) >= AMOUNT_CACHE_MAX:
                self._amounts.clear()
            found = _parse_amount(text)
            if len(text) <= 64:
                self._amounts[text] = found
        return found

    def _fold(self, batch: ChargeBatch, index: int, group: _Group, sums: Sums) -> None:
        """Add a group's sums to every table that it belongs to."""
        currency, day, service, account, region, resource, category = group
        ledger = self.currencies[currency]
        service = self._key(ledger.by_service, service, "services")
        account = self._key(ledger.by_account, account, "accounts")
        _add(ledger.total, sums)
        _add(ledger.by_service.setdefault(service, _zeros()), sums)
        _add(ledger.by_account.setdefault(account, _zeros()), sums)
        _add(ledger.by_day.setdefault(self._key(ledger.by_day, day, "days"), _zeros()), sums)
        _add(ledger.by_region.setdefault(self._key(ledger.by_region, region, "regions"), _zeros()), sums)
        if account not in self.account_names and account != OVERFLOW_KEY:
            name = _cell(batch, "SubAccountName", index) or _cell(batch, "BillingAccountName", index)
            self.account_names[account] = name[:KEY_CHARS_MAX]
        series = (currency, service, account)
        self._fold_series(series, day, sums[1])
        if category != USAGE:
            self._fold_fee(series, category, day, sums[1])
        self._fold_region(series, region, day, sums[1])
        if resource:
            entry = self._fold_resource(batch, index, group, sums)
            self._fold_resource_day(series, entry.id if entry else OVERFLOW_KEY, day, sums[1])

    def _key(self, table: dict[str, Sums], key: str, what: str) -> str:
        """`key` as it may stand in `table`: cut to its bound, folded where the table is full."""
        if key in table:
            return key
        key = key[:KEY_CHARS_MAX]
        if key in table or len(table) < KEYS_MAX:
            return key
        self._say_folded(what, KEYS_MAX)
        return OVERFLOW_KEY

    def _say_folded(self, what: str, bound: int) -> None:
        if what in self._folded:
            return
        self._folded.add(what)
        message = f"the bill has more than {bound} distinct {what}; further ones are counted together as {OVERFLOW_KEY}"
        self.issues.add(RowIssue(row=0, column="", code="too_many_keys", message=message, action="noted"))

    def _fold_series(self, series: SeriesKey, day: str, effective: Decimal) -> None:
        days = self.cells.get(series)
        if days is None or day not in days:
            if self._cell_count >= CELLS_MAX:
                self._say_folded("days of services and accounts", CELLS_MAX)
                series = (series[0], OVERFLOW_KEY, OVERFLOW_KEY)
            self._cell_count += 1
            days = self.cells.setdefault(series, {})
        days[day] = days.get(day, ZERO) + effective

    def _fold_region(self, series: SeriesKey, region: str, day: str, effective: Decimal) -> None:
        regions = self.region_cells.setdefault(series, {}) if len(self.region_cells) < CELLS_MAX else {}
        days = regions.get(region)
        if days is None or day not in days:
            if self._region_cell_count >= CELLS_MAX:
                return  # only the ranking of causes loses; the sums by region are kept elsewhere
            self._region_cell_count += 1
            days = regions.setdefault(region, {})
        days[day] = days.get(day, ZERO) + effective

    def _fold_fee(self, series: SeriesKey, category: str, day: str, effective: Decimal) -> None:
        categories = self.fee_cells.setdefault(series, {})
        days = categories.get(category)
        if days is None or day not in days:
            if self._fee_cell_count >= CELLS_MAX:
                self._say_folded("days of fees, taxes and credits", CELLS_MAX)
                return  # they stay in every sum; detectors will see them as usage
            self._fee_cell_count += 1
            days = categories.setdefault(category, {})
        days[day] = days.get(day, ZERO) + effective

    def _fold_resource(self, batch: ChargeBatch, index: int, group: _Group, sums: Sums) -> ResourceEntry | None:
        currency, day, service, account, region, resource, category = group
        resource = resource[:KEY_CHARS_MAX]
        entry = self.resources.get((currency, resource))
        if entry is None:
            if len(self.resources) >= RESOURCES_MAX:
                self._say_folded("resources", RESOURCES_MAX)
                return None
            entry = self.resources[currency, resource] = ResourceEntry(
                id=resource,
                currency=currency,
                service=service,
                account=account,
                region=region,
                name=_cell(batch, "ResourceName", index)[:KEY_CHARS_MAX],
                type=_cell(batch, "ResourceType", index)[:KEY_CHARS_MAX],
                provider=_cell(batch, "ProviderName", index)[:KEY_CHARS_MAX],
                sku=_cell(batch, "SkuId", index)[:KEY_CHARS_MAX],
                sku_details=_cell(batch, "SkuPriceDetails", index)[:ATTRIBUTE_CHARS_MAX],
                tags=_cell(batch, "Tags", index)[:ATTRIBUTE_CHARS_MAX],
                first_day=day,
                last_day=day,
                usage=_zeros(),
            )
        entry.first_day = min(entry.first_day, day)
        entry.last_day = max(entry.last_day, day)
        if category == USAGE:
            _add(entry.usage, sums)
        return entry

    def _fold_resource_day(self, series: SeriesKey, resource: str, day: str, effective: Decimal) -> None:
        days = self.resource_cells.setdefault(series, {}).get(resource)
        if days is None or day not in days:
            if self._resource_day_count >= RESOURCE_DAYS_MAX:
                self._say_folded("days of resources", RESOURCE_DAYS_MAX)
                resource = OVERFLOW_KEY
            self._resource_day_count += 1
            days = self.resource_cells[series].setdefault(resource, {})
        days[day] = days.get(day, ZERO) + effective


_UNSEEN: Final = Decimal("NaN")
"""Stands for "not in the cache", compared by identity."""


def _parse_amount(text: str) -> Decimal | None:
    if len(text) > KEY_CHARS_MAX:
        return None
    try:
        value = EXACT.create_decimal(text)
    except (InvalidOperation, ArithmeticError):
        return None
    return value if is_amount(value) else None


def _is_day(text: str) -> bool:
    known = _days_known.get(text)
    if known is None:
        try:
            known = len(text) == 10 and date.fromisoformat(text).isoformat() == text
        except ValueError:
            known = False
        if len(_days_known) >= KEYS_MAX:
            _days_known.clear()
        _days_known[text] = known
    return known


_days_known: dict[str, bool] = {}
"""A cache of a pure function: `2024-09-31` is no day whoever asks."""


def _check_shape(batch: ChargeBatch) -> None:
    for name, cells in batch.columns.items():
        if len(cells) != batch.taken:
            raise ValueError(f"column {name} has {len(cells)} cells, but {batch.taken} rows were taken")
    if batch.read != batch.taken + batch.refused or min(batch.read, batch.taken, batch.refused, batch.corrected) < 0:
        raise ValueError(
            f"the batch from row {batch.first_row} says {batch.read} read, {batch.taken} taken and {batch.refused} "
            "refused, but read must be taken + refused"
        )
    if batch.rows and len(batch.rows) != batch.taken:
        raise ValueError(f"the batch numbers {len(batch.rows)} rows, but {batch.taken} were taken")


def _column(batch: ChargeBatch, name: str) -> Sequence[str | None]:
    return batch.columns.get(name) or [None] * batch.taken


def _cell(batch: ChargeBatch, name: str, index: int) -> str:
    cells = batch.columns.get(name)
    return (cells[index] or "") if cells else ""


def _row_number(batch: ChargeBatch, index: int) -> int:
    return batch.rows[index] if batch.rows else batch.first_row + index


def _refusal(row: int, cells: Sequence[str | None]) -> RowIssue:
    """Why the host could not take a row that the cost source had let through."""
    for column, text in zip(AMOUNT_COLUMNS, cells, strict=False):
        if text is not None and _parse_amount(text) is None:
            message = f"expected an amount within 30 digits before and 50 after the point, but found {text[:80]!r}"
            return RowIssue(row=row, column=column, code="bad_decimal", message=message, action="refused")
    start = cells[5]
    if not _is_day((start or "")[:10]):
        found = "nothing" if start is None else repr(start[:80])
        message = f"expected a date such as 2024-09-18T22:00:00Z, but found {found}"
        return RowIssue(row=row, column="ChargePeriodStart", code="bad_date", message=message, action="refused")
    message = f"the bill has more than {CURRENCIES_MAX} currencies; {(cells[4] or '')[:80]!r} is one too many"
    return RowIssue(row=row, column="BillingCurrency", code="too_many_currencies", message=message, action="refused")


def _add(into: Sums, sums: Sums) -> None:
    into[0] += sums[0]
    into[1] += sums[1]
    into[2] += sums[2]
    into[3] += sums[3]


def tags_of(text: str) -> dict[str, str]:
    """The tags of a `Tags` cell: one JSON object of text; anything else is no tags."""
    try:
        found = msgspec.json.decode(text, type=dict[str, str | int | float | bool | None]) if text else {}
    except (msgspec.DecodeError, ValueError):
        return {}
    return {key: "" if value is None else str(value) for key, value in found.items()}


def add_all(batches: Iterable[ChargeBatch]) -> Ledger:
    """A ledger of these batches."""
    ledger = Ledger()
    for batch in batches:
        ledger.add(batch)
    return ledger
