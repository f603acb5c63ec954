"""Writing an estate: bill, metrics and `truth.json`, row by row, in memory bounded by the number of resources."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from random import Random
from typing import IO, Final

from cardcage_finops.focus import FOCUS_1_2
from cardcage_finops.sample.plan import UNITS, EstatePlan, Fee, Resource, hours_of, plan_estate
from cardcage_finops.sample.shapes import METRIC_COLUMNS, hour_values
from cardcage_finops.sample.truth import DayTotals, Truth
from cardcage_finops.sample.world import ACCOUNTS, BILLING_ACCOUNT, PROVIDER, REGIONS

BILL: Final = "bill.csv"
METRICS: Final = "metrics.csv"
TRUTH: Final = "truth.json"
RESOURCES_MAX: Final = 1_000_000
"""The plan is held in memory, some 1 KiB a resource; days are not, so that bills of any size can be made."""
LINES_AT_ONCE: Final = 2000
QUANTITY_UNITS: Final = 10_000

Progress = Callable[[int, int], None]
"""Called with rows written and rows in all."""

COLUMNS: Final = tuple(FOCUS_1_2)


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleFiles:
    """What was written, and how much of it."""

    bill: Path
    metrics: Path
    truth: Path
    rows: int
    metric_rows: int
    resources: int
    days: int


def generate(
    directory: str | Path,
    *,
    rows: int | None = None,
    resources: int | None = None,
    days: int = 60,
    seed: int = 1,
    start: date = date(2025, 3, 3),
    metrics_days: int = 14,
    progress: Progress | None = None,
) -> SampleFiles:
    """Write a bill, metrics and their truth into `directory`, which is made where it is missing.

    The size is said by `resources`, or by `rows`, of which there are then at least so many: a resource has one row an
    hour. The same arguments give the same bytes. Raises `ValueError` for sizes below one resource or one day.
    """
    plan = _plan(rows, resources, days, seed, start)
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    bill, metrics, truth = folder / BILL, folder / METRICS, folder / TRUTH
    metered_days = min(metrics_days, days)
    metered = [one for one in plan.resources if has_metrics(one)]
    whole = len(plan.resources) * 24 * days + len(plan.fees)
    known = Truth(plan=plan)
    written = 0
    with bill.open("w", encoding="utf-8", newline="") as out:
        for count in write_bill(plan, out, known):
            written += count
            if progress:
                progress(written, whole)
    with metrics.open("w", encoding="utf-8", newline="") as out:
        metric_rows = write_metrics(plan, metered, metered_days, out)
    truth.write_text(json.dumps(known.document(metered_days), indent=1) + "\n", encoding="utf-8")
    return SampleFiles(
        bill=bill,
        metrics=metrics,
        truth=truth,
        rows=written,
        metric_rows=metric_rows,
        resources=len(plan.resources),
        days=days,
    )


def iter_sample_progress(callback: Callable[[float], None]) -> Progress:
    """A `progress` for `generate` that calls back with a fraction, at most once in a hundredth."""
    last = -1

    def report(done: int, whole: int) -> None:
        nonlocal last
        hundredth = done * 100 // whole if whole else 100
        if hundredth != last:
            last = hundredth
            callback(hundredth / 100)

    return report


def _plan(rows: int | None, resources: int | None, days: int, seed: int, start: date) -> EstatePlan:
    if rows is not None and resources is not None:
        raise ValueError("say either how many rows or how many resources, not both")
    if days < 1:
        raise ValueError(f"an estate has at least 1 day, but {days} were asked for")
    if rows is not None:
        resources = -(-rows // (24 * days))
    count = 100 if resources is None else resources
    if count < 1:
        raise ValueError(f"an estate has at least 1 resource, but {count} were asked for")
    if count > RESOURCES_MAX:
        raise ValueError(
            f"an estate has at most {RESOURCES_MAX:,} resources, but {count:,} were asked for; take more days"
        )
    return plan_estate(seed=seed, days=days, resources=count, start=start)


def has_metrics(resource: Resource) -> bool:
    """Whether the resource reports anything at all."""
    levels = resource.metrics
    return any(level is not None for level in (levels.cpu_peak, levels.disk_ops, levels.requests, levels.connections))


def write_bill(plan: EstatePlan, out: IO[str], known: Truth) -> Iterator[int]:
    """Write all rows, by day and hour. Gives the number of rows each time some have been written."""
    out.write(",".join(COLUMNS) + "\n")
    templates = [_template(one) for one in plan.resources]
    for day in range(plan.days):
        totals = DayTotals()
        month = _month(plan.day(day))
        levels = [day_level(plan, one, day) for one in plan.resources]
        shapes = [hours_of(one, plan.shapes[one.kind.service, one.account].weekend) for one in plan.resources]
        for hour in range(24):
            period = _hour_period(plan, day, hour)
            for first in range(0, len(plan.resources), LINES_AT_ONCE):
                lines: list[str] = []
                for index in range(first, min(first + LINES_AT_ONCE, len(plan.resources))):
                    resource = plan.resources[index]
                    quantity = hour_quantity(resource, levels[index], shapes[index][hour])
                    listed = quantity * resource.price
                    effective = listed * 7 // 10 if resource.committed else listed
                    billed = 0 if resource.committed else listed
                    totals.add(resource, billed=billed, effective=effective, listed=listed)
                    paid, list_text = amount_text(effective), amount_text(listed)
                    lines.append(
                        templates[index]
                        % (
                            "0" if resource.committed else paid,
                            *month,
                            *period,
                            units := f"{quantity // QUANTITY_UNITS}.{quantity % QUANTITY_UNITS:04d}",
                            list_text,
                            paid,
                            list_text,
                            units,
                        )
                    )
                out.write("".join(lines))
                yield len(lines)
        fees = [fee for fee in plan.fees if fee.day == day]
        out.writelines(_fee_line(plan, fee) for fee in fees)
        known.close_day(day, totals, fees)
        yield len(fees)


def day_level(plan: EstatePlan, resource: Resource, day: int) -> float:
    """Units an hour on this day, on average over its hours."""
    if resource.kind.fixed:
        return resource.quantity
    factor = plan.shapes[resource.kind.service, resource.account].factors[day]
    return resource.quantity * factor * resource.boosts.get(day, 1.0)


def hour_quantity(resource: Resource, level: float, shape: float) -> int:
    """The quantity of one hour, in ten-thousandths of a unit."""
    return QUANTITY_UNITS if resource.kind.fixed else int(level * shape * QUANTITY_UNITS)


def amount_text(amount: int) -> str:
    """An exact amount in `UNITS` as a decimal string."""
    sign, amount = ("-", -amount) if amount < 0 else ("", amount)
    return f"{sign}{amount // UNITS}.{amount % UNITS:010d}"


def _month(day: date) -> tuple[str, str]:
    """End and start of the billing period, in the order of the columns."""
    following = date(day.year + day.month // 12, day.month % 12 + 1, 1)
    return f"{following.isoformat()}T00:00:00Z", f"{day.replace(day=1).isoformat()}T00:00:00Z"


def _hour_period(plan: EstatePlan, day: int, hour: int) -> tuple[str, str]:
    """End and start of an hour, in the order of the columns."""
    end_day, end_hour = (day + 1, 0) if hour == 23 else (day, hour + 1)
    return f"{plan.day(end_day).isoformat()}T{end_hour:02d}:00:00Z", f"{plan.day(day).isoformat()}T{hour:02d}:00:00Z"


_DYNAMIC: Final = (
    "BilledCost",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ContractedCost",
    "EffectiveCost",
    "ListCost",
    "PricingQuantity",
)
"""What changes from hour to hour, in alphabetical order as in the file."""


def _template(resource: Resource) -> str:
    """The resource's line with a %s for each value that changes."""
    kind = resource.kind
    account, region = ACCOUNTS[resource.account], REGIONS[resource.region]
    price = f"{resource.price / 1_000_000:.6f}"
    details = json.dumps({"InstanceType": resource.size}) if resource.size else ""
    values = {
        **_common(account),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{kind.service} in {region[1]}, {resource.size or kind.type}, each {kind.unit}",
        "ChargeFrequency": "Usage-Based",
        "ConsumedUnit": kind.unit,
        "ContractedUnitPrice": price,
        "ListUnitPrice": price,
        "PricingCategory": "Committed" if resource.committed else "Standard",
        "PricingUnit": kind.unit,
        "RegionId": region[0],
        "RegionName": region[1],
        "ResourceId": resource.id,
        "ResourceName": resource.name,
        "ResourceType": kind.type,
        "ServiceCategory": kind.category,
        "ServiceName": kind.service,
        "ServiceSubcategory": kind.subcategory,
        "SkuId": f"{kind.prefix}-{resource.size or 'use'}",
        "SkuMeter": kind.unit,
        "SkuPriceDetails": details,
        "SkuPriceId": f"{kind.prefix}-{resource.size or 'use'}-{region[0]}",
        "Tags": json.dumps(resource.tags),
    }
    if resource.committed:
        values |= {
            "CommitmentDiscountCategory": "Usage",
            "CommitmentDiscountId": f"commitment-{account[0]}",
            "CommitmentDiscountName": f"Commitment of {account[1]}",
            "CommitmentDiscountStatus": "Used",
            "CommitmentDiscountType": "Reservation",
        }
    return _line({name: value.replace("%", "%%") for name, value in values.items()} | dict.fromkeys(_DYNAMIC, "%s"))


def _common(account: tuple[str, str]) -> dict[str, str]:
    return {
        "BillingAccountId": BILLING_ACCOUNT[0],
        "BillingAccountName": BILLING_ACCOUNT[1],
        "BillingAccountType": "Organisation",
        "BillingCurrency": "USD",
        "InvoiceIssuerName": PROVIDER,
        "PricingCurrency": "USD",
        "ProviderName": PROVIDER,
        "PublisherName": PROVIDER,
        "SubAccountId": account[0],
        "SubAccountName": account[1],
        "SubAccountType": "Account",
    }


def _fee_line(plan: EstatePlan, fee: Fee) -> str:
    day = plan.day(fee.day)
    end, start = _month(day)
    categories = {"Support": "Management and Governance", "Virtual Machines": "Compute"}
    return _line(
        {
            **_common(ACCOUNTS[fee.account]),
            "BilledCost": amount_text(fee.billed),
            "BillingPeriodEnd": end,
            "BillingPeriodStart": start,
            "ChargeCategory": fee.category,
            "ChargeClass": fee.charge_class,
            "ChargeDescription": fee.description,
            "ChargeFrequency": fee.frequency,
            "ChargePeriodEnd": f"{plan.day(fee.day + 1).isoformat()}T00:00:00Z",
            "ChargePeriodStart": f"{day.isoformat()}T00:00:00Z",
            "ContractedCost": amount_text(fee.contracted),
            "EffectiveCost": amount_text(fee.effective),
            "ListCost": amount_text(fee.list),
            "ServiceCategory": categories.get(fee.service, "Storage"),
            "ServiceName": fee.service,
        }
    )


def _line(values: dict[str, str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerow([values.get(name, "") for name in COLUMNS])
    return out.getvalue()


def write_metrics(plan: EstatePlan, resources: list[Resource], days: int, out: IO[str]) -> int:
    """Write an hour a row for each resource, of the last days of the estate. Gives the number of rows."""
    out.write(",".join(("time", "resource_id", *METRIC_COLUMNS)) + "\n")
    rng = Random(plan.seed + 1)  # noqa: S311 - a repeatable estate, not a secret
    count = 0
    for day in range(plan.days - days, plan.days):
        stamp = plan.day(day).isoformat()
        shown = [one for one in resources if _reports(one, plan.days - day)]
        for hour in range(24):
            for resource in shown:
                values = hour_values(resource.metrics, rng, hour)
                cells = ",".join("" if value is None else str(value) for value in values)
                out.write(f"{stamp}T{hour:02d}:00:00Z,{resource.id},{cells}\n")
            count += len(shown)
    return count


def _reports(resource: Resource, days_left: int) -> bool:
    return not resource.metrics.last_days_only or days_left <= resource.metrics.last_days_only
