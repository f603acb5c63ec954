"""What the tests of the pipeline build bills from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from cardcage_finops.models import ChargeBatch

MakeBatch = Callable[..., ChargeBatch]


@pytest.fixture
def make_batch() -> MakeBatch:
    """A batch out of rows given as mappings; what a row does not say is filled in plausibly."""

    def make(rows: Sequence[Mapping[str, str | None]], *, first_row: int = 1, refused: int = 0) -> ChargeBatch:
        filled: list[dict[str, str | None]] = []
        for row in rows:
            billed = row.get("BilledCost", "1")
            effective = row.get("EffectiveCost", billed)
            filled.append(
                {
                    "BilledCost": billed,
                    "EffectiveCost": effective,
                    "ListCost": effective,
                    "ContractedCost": effective,
                    "BillingCurrency": "USD",
                    "ChargePeriodStart": "2024-09-01T00:00:00Z",
                    "ServiceName": "Compute",
                    "SubAccountId": "a1",
                    "BillingAccountId": "payer",
                    "RegionId": "eu-west-1",
                    "ResourceId": None,
                    "ChargeCategory": "Usage",
                    **row,
                }
            )
        names = list(dict.fromkeys(name for row in filled for name in row))
        columns = {name: [row.get(name) for row in filled] for name in names}
        taken = len(filled)
        return ChargeBatch(columns=columns, first_row=first_row, read=taken + refused, taken=taken, refused=refused)

    return make
