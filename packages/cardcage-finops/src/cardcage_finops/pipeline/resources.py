"""From the ledger's resources to `CloudResource`: what it is, where, what size, and what a month of it costs. Pure."""

from __future__ import annotations

import re
from datetime import date
from decimal import Decimal, localcontext
from typing import Any, Final

import msgspec

from cardcage_finops.models import CloudResource, ResourceWithMetrics
from cardcage_finops.pipeline.amounts import ROUNDING
from cardcage_finops.pipeline.ledger import Ledger, ResourceEntry, tags_of
from cardcage_finops.pipeline.series import period

MONTH_DAYS: Final = 30
_CENT_FRACTION: Final = Decimal("0.000001")

_SIZE_KEYS: Final = ("InstanceType", "x_InstanceType", "InstanceClass", "VolumeType", "StorageClass", "Size")
"""Where FOCUS's `SkuPriceDetails` says what is rented; the first that is there counts."""

_INSTANCE_TYPE: Final = re.compile(r"^[a-z][a-z0-9-]*\.[a-z0-9]+$", re.ASCII)


def cloud_resources(ledger: Ledger, currency: str) -> list[CloudResource]:
    """The resources of one currency that cost something, the costliest first."""
    _, last_day = period(ledger)
    found = [
        _resource(entry, last_day) for (of, _), entry in ledger.resources.items() if of == currency and any(entry.usage)
    ]
    return sorted(found, key=lambda one: (-(one.monthly_cost or 0), one.id))


def _resource(entry: ResourceEntry, last_day: str) -> CloudResource:
    details = _details(entry.sku_details)
    return CloudResource(
        id=entry.id,
        name=entry.name,
        provider=entry.provider,
        resource_type=entry.type,
        service=entry.service,
        region=entry.region,
        account=entry.account,
        size=_size(details, entry),
        tags=tags_of(entry.tags),
        attributes={**details, "first_day": entry.first_day, "last_day": entry.last_day},
        monthly_cost=_monthly(entry.usage[1], entry.first_day, last_day),
        monthly_list_cost=_monthly(entry.usage[2], entry.first_day, last_day),
        currency=entry.currency,
    )


def _monthly(amount: Decimal, first_day: str, last_day: str) -> Decimal:
    """The amount scaled to 30 days, from the resource's first day to the bill's last: a resource that came late is not
    made to look cheaper than it will be, one that is gone is not made to look dearer. Rounded to a millionth."""
    days = (date.fromisoformat(last_day) - date.fromisoformat(first_day)).days + 1
    with localcontext(ROUNDING):
        return (amount * MONTH_DAYS / days).quantize(_CENT_FRACTION)


def _details(text: str) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text, type=dict[str, Any]) if text else {}
    except (msgspec.DecodeError, ValueError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str | int | float | bool)}


def _size(details: dict[str, Any], entry: ResourceEntry) -> str:
    for key in _SIZE_KEYS:
        if details.get(key):
            return str(details[key])
    return entry.sku if _INSTANCE_TYPE.fullmatch(entry.sku) else ""


def with_metrics(resources: list[CloudResource], metrics: dict[str, dict[str, float]]) -> list[ResourceWithMetrics]:
    """Each resource and its metric summary, empty where the collector had none for it."""
    return [ResourceWithMetrics(resource=one, metrics=metrics.get(one.id, {})) for one in resources]
