"""The budget policy: verdicts with their numbers."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from cardcage_finops.interfaces import PolicyModulePlugin
from cardcage_finops.models import AnalysisContext, Budget, DailyCost, PolicyVerdict

if TYPE_CHECKING:
    from .conftest import Shipped


def daily(
    first_day: str, *amounts: float | str, service: str = "", account: str = "", currency: str = "USD"
) -> DailyCost:
    exact = [Decimal(str(amount)) for amount in amounts]
    return DailyCost(first_day=first_day, amounts=exact, service=service, account=account, currency=currency)


TEN_A_DAY = AnalysisContext(
    daily=[daily("2025-01-30", *[10] * 12), daily("2025-01-30", *[1] * 12, currency="EUR")],
    series=[
        daily("2025-01-30", *[6] * 12, service="Functions", account="1"),
        daily("2025-01-30", *[3] * 12, service="Functions", account="2"),
        daily("2025-01-30", *[1] * 12, service="Queue", account="1"),
    ],
)
"""30 January to 10 February: twelve days of which the last month has ten, with eighteen to come."""


@pytest.fixture
def judge(shipped: Shipped) -> Judge:
    return Judge(shipped)


class Judge:
    """Evaluates one budget over a context, in this process."""

    def __init__(self, shipped: Shipped) -> None:
        self.shipped = shipped

    def __call__(self, context: AnalysisContext = TEN_A_DAY, **budget: Any) -> list[PolicyVerdict]:
        config = {"budgets": [{"name": "b", **budget}]}
        return self.shipped.make("budget-policy", PolicyModulePlugin, config).evaluate(context)


def test_each_month_is_judged_and_the_open_one_has_a_forecast(judge: Judge) -> None:
    january, february = judge(amount="1000")
    assert (january.period, january.spent, january.forecast) == ("2025-01", Decimal(20), None)
    assert (february.period, february.spent, february.forecast) == ("2025-02", Decimal(100), Decimal("280.00"))
    assert february.message == ("100.00 of 1000.00 USD spent in 2025-02, 10%; 280.00 forecast by the month's end")


@pytest.mark.parametrize(
    ("amount", "status"),
    [("99.99", "breach"), ("100", "warn"), ("125", "warn"), ("279.99", "warn"), ("280", "ok"), ("1000", "ok")],
)
def test_status_follows_spent_share_and_forecast(judge: Judge, amount: str, status: str) -> None:
    assert judge(amount=amount)[-1].status == status


def test_the_share_that_warns_can_be_set(judge: Judge) -> None:
    assert judge(amount="280", warn_at=0.3)[-1].status == "warn"


def test_a_month_that_is_over_has_no_forecast(judge: Judge) -> None:
    context = AnalysisContext(daily=[daily("2025-02-26", 10, 10, 10)])
    (found,) = judge(context, amount="35")
    assert (found.spent, found.forecast, found.status) == (Decimal(30), None, "warn")


def test_scopes_are_by_service_account_or_both(judge: Judge) -> None:
    assert judge(amount="1000", service="Functions")[-1].spent == 90
    assert judge(amount="1000", account="1")[-1].spent == 70
    found = judge(amount="1000", service="Functions", account="1")[-1]
    assert (found.spent, found.scope) == (60, "1 / Functions")
    assert judge(amount="1000")[-1].scope == "everything"


def test_other_currencies_never_count(judge: Judge) -> None:
    assert judge(amount="1000", currency="EUR")[-1].spent == Decimal(10)
    (found,) = judge(amount="1000", currency="GBP")
    assert (found.status, found.spent, found.message) == ("ok", Decimal(0), "no charges in GBP are in its scope")


def test_totals_and_dearest_days_are_judged(judge: Judge) -> None:
    context = AnalysisContext(daily=[daily("2025-01-30", "1.10", "2.20", "0.30")])
    (whole,) = judge(context, amount="3", period="total")
    assert (whole.status, whole.spent, whole.period) == ("breach", Decimal("3.60"), "2025-01-30 to 2025-02-01")
    (day,) = judge(context, amount="2.2", period="day")
    assert (day.status, day.spent, day.period) == ("warn", Decimal("2.20"), "2025-01-31")


def test_the_forecast_uses_the_last_week(judge: Judge) -> None:
    context = AnalysisContext(daily=[daily("2025-02-01", *[100] * 14, *[10] * 7)])
    (found,) = judge(context, amount="2000")
    assert found.forecast == Decimal("1540.00")


def test_amounts_are_exact_and_wrong_ones_are_refused(judge: Judge) -> None:
    assert judge(amount="100.00000000000000000001")[-1].limit == Decimal("100.00000000000000000001")
    with pytest.raises(ValueError, match="Invalid decimal"):
        judge(amount="much")


def test_a_served_policy_takes_budgets_as_the_host_writes_them(shipped: Shipped, tmp_path: Path) -> None:
    budgets = msgspec.to_builtins([Budget(name="all", amount=50), Budget(name="eu", amount="5.5", currency="EUR")])
    with shipped.serve("budget-policy", {"budgets": budgets}, tmp_path) as served:
        found = served.call(list[PolicyVerdict], "evaluate", TEN_A_DAY)
    assert found == shipped.make("budget-policy", PolicyModulePlugin, {"budgets": budgets}).evaluate(TEN_A_DAY)
    assert [one.status for one in found] == ["ok", "breach", "ok", "breach"]
