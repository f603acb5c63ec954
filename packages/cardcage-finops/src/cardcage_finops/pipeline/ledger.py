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
from cardcage_finops.pipeline.amounts import DIGITS_BEFORE_POINT_MAX, EXACT, ZERO, is_amount
from cardcage_finops.pipeline.issues import IssueLog

AMOUNT_COLUMNS: Final = ("BilledCost", "EffectiveCost", "ListCost", "ContractedCost")
SERVICE_KEY: Final = "x_ServiceKey"
"""The id by which the provider's own bill knows a service, where ServiceName is a name for people. Few bills have one;
in all others totals by service are under the name."""
REST_OF_KEY: Final = (
    "ServiceName",
    SERVICE_KEY,
    "SubAccountId",
    "BillingAccountId",
    "RegionId",
    "ResourceId",
    "ChargeCategory",
)
KEY_COLUMNS: Final = ("BillingCurrency", "ChargePeriodStart", *REST_OF_KEY)
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


_RawGroup = tuple[str, str, str | None, str | None, str | None, str | None, str | None, str | None, str | None]
"""(currency, day, then `REST_OF_KEY` as in the batch): rows of one batch that are added up together."""
_Wide = tuple[str, str, str, str, str, str, str]
"""(currency, day, service, account, region, category, service's key): what every table but those of resources needs."""


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
    service_names: dict[str, str] = field(default_factory=dict[str, str])
    """What services are called that have a key of their own. A key with several names keeps the first."""
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
        """Group the batch's rows, then fold the groups into the tables; answers how many rows were refused.

        A bill repeats its keys, so most of the work is done once a group and not once a row.
        """
        amounts = [self._parsed(_column(batch, name)) for name in AMOUNT_COLUMNS]
        currencies = self._known_currencies(_column(batch, "BillingCurrency"))
        days = _days(_column(batch, "ChargePeriodStart"))
        keys = zip(currencies, days, *(_column(batch, name) for name in REST_OF_KEY), strict=True)
        groups: dict[_RawGroup, Sums] = {}
        firsts: dict[_RawGroup, int] = {}
        refused = 0
        for index, (key, billed, effective, listed, contracted) in enumerate(zip(keys, *amounts, strict=True)):
            currency, day = key[0], key[1]
            if billed is None or effective is None or listed is None or contracted is None or not day or not currency:
                refused += 1
                self.issues.add(_refusal(batch, index))
                continue
            sums = groups.get(key)
            if sums is None:
                groups[key] = [billed, effective, listed, contracted]
                firsts[key] = index
                if currency not in self.currencies:
                    self.currencies[currency] = CurrencyLedger()
            else:
                sums[0] += billed
                sums[1] += effective
                sums[2] += listed
                sums[3] += contracted
            self.currencies[currency].rows += 1
        self._fold_groups(batch, groups, firsts)
        return refused

    def _known_currencies(self, cells: Sequence[str | None]) -> list[str]:
        """The currency of each row; empty for one that is one too many."""
        names: dict[str | None, str] = {}
        known = set(self.currencies)
        for cell in dict.fromkeys(cells):
            name = (cell or NO_CURRENCY)[:CURRENCY_CHARS_MAX]
            if len(known) < CURRENCIES_MAX:
                known.add(name)
            names[cell] = name if name in known else ""
        return [names[cell] for cell in cells]

    def _parsed(self, cells: Sequence[str | None]) -> list[Decimal | None]:
        """The amounts that the cells spell, None for one that spells none. An absent amount adds nothing."""
        known, unseen, read = self._amounts, _UNSEEN, self._read_amount
        return [
            ZERO if text is None else read(text) if (found := known.get(text, unseen)) is unseen else found
            for text in cells
        ]

    def _read_amount(self, text: str) -> Decimal | None:
        if len(self._amounts) >= AMOUNT_CACHE_MAX:
            self._amounts.clear()
        found = _parse_amount(text)
        if len(text) <= 64:
            self._amounts[text] = found
        return found

    def _fold_groups(self, batch: ChargeBatch, groups: dict[_RawGroup, Sums], firsts: dict[_RawGroup, int]) -> None:
        """Add the groups to the resources one by one, and to everything else by what they share."""
        wide: dict[_Wide, Sums] = {}
        for raw, sums in groups.items():
            currency, day, service, service_key, account, billing_account, region, resource, category = raw
            service, account = service or NO_SERVICE, account or billing_account or NO_ACCOUNT
            ledger = self.currencies[currency]
            known_as = self._key(ledger.by_service, service_key or service, "services")
            service = self._service(known_as, service) if service_key else known_as
            account = self._key(ledger.by_account, account, "accounts")
            category = (category or USAGE)[:CATEGORY_CHARS_MAX]
            self._name_account(batch, firsts[raw], account)
            key = (currency, day, service, account, region or "", category, known_as)
            known = wide.get(key)
            if known is None:
                wide[key] = list(sums)
                ledger.by_service.setdefault(known_as, _zeros())
                ledger.by_account.setdefault(account, _zeros())
            else:
                _add(known, sums)
            if resource:
                self._fold_resource(batch, firsts[raw], key, resource[:KEY_CHARS_MAX], sums)
        for key, sums in wide.items():
            self._fold(key, sums)

    def _service(self, key: str, name: str) -> str:
        """The name of a service that has a key; each key has one, so that series are as few as services."""
        return key if key == OVERFLOW_KEY else self.service_names.setdefault(key, name[:KEY_CHARS_MAX])

    def _name_account(self, batch: ChargeBatch, index: int, account: str) -> None:
        if account not in self.account_names and account != OVERFLOW_KEY:
            name = _cell(batch, "SubAccountName", index) or _cell(batch, "BillingAccountName", index)
            self.account_names[account] = name[:KEY_CHARS_MAX]

    def _fold(self, key: _Wide, sums: Sums) -> None:
        """Add sums to every table that is not about resources."""
        currency, day, service, account, region, category, known_as = key
        ledger = self.currencies[currency]
        _add(ledger.total, sums)
        _add(ledger.by_service[known_as], sums)
        _add(ledger.by_account[account], sums)
        _add(ledger.by_day.setdefault(self._key(ledger.by_day, day, "days"), _zeros()), sums)
        _add(ledger.by_region.setdefault(self._key(ledger.by_region, region, "regions"), _zeros()), sums)
        series = (currency, service, account)
        self._fold_series(series, day, sums[1])
        if category != USAGE:
            self._fold_fee(series, category, day, sums[1])
        self._fold_region(series, region, day, sums[1])

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

    def _fold_resource(self, batch: ChargeBatch, index: int, key: _Wide, resource: str, sums: Sums) -> None:
        currency, day, service, account, region, category, _ = key
        series = (currency, service, account)
        entry = self.resources.get((currency, resource))
        if entry is None:
            if len(self.resources) >= RESOURCES_MAX:
                self._say_folded("resources", RESOURCES_MAX)
                self._fold_resource_day(series, OVERFLOW_KEY, day, sums[1])
                return
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
        self._fold_resource_day(series, resource, day, sums[1])

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
    # Plain digits that are this few are within the bounds; to look at the number's parts would take four times as long.
    is_short = len(text) <= DIGITS_BEFORE_POINT_MAX and "E" not in text and "e" not in text
    return value if (value.is_finite() if is_short else is_amount(value)) else None


def _days(starts: Sequence[str | None]) -> list[str]:
    """The day of each time, empty where it names none."""
    known = {start: _day(start or "") for start in dict.fromkeys(starts)}
    return [known[start] for start in starts]


def _day(start: str) -> str:
    day = start[:10]
    try:
        return day if len(day) == 10 and date.fromisoformat(day).isoformat() == day else ""
    except ValueError:
        return ""


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


def _refusal(batch: ChargeBatch, index: int) -> RowIssue:
    """Why the host could not take a row that the cost source had let through."""
    row = _row_number(batch, index)
    for column in AMOUNT_COLUMNS:
        text = _column(batch, column)[index]
        if text is not None and _parse_amount(text) is None:
            message = f"expected an amount within 30 digits before and 50 after the point, but found {text[:80]!r}"
            return RowIssue(row=row, column=column, code="bad_decimal", message=message, action="refused")
    start = _column(batch, "ChargePeriodStart")[index]
    if not _day(start or ""):
        found = "nothing" if start is None else repr(start[:80])
        message = f"expected a date such as 2024-09-18T22:00:00Z, but found {found}"
        return RowIssue(row=row, column="ChargePeriodStart", code="bad_date", message=message, action="refused")
    currency = _cell(batch, "BillingCurrency", index)
    message = f"the bill has more than {CURRENCIES_MAX} currencies; {currency[:80]!r} is one too many"
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
