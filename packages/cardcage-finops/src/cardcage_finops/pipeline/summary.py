"""From a ledger to the tables of the result: exact totals by service, account, day and region. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from cardcage_finops.pipeline.issues import LISTED_PER_KIND_MAX, IssueLog
from cardcage_finops.pipeline.ledger import CurrencyLedger, Ledger, Sums, totals_of
from cardcage_finops.pipeline.result import CurrencyResult, Issue, Issues, KeyTotal, Rows
from cardcage_finops.pipeline.series import main_currency


def currency_results(ledger: Ledger) -> list[CurrencyResult]:
    """One result a currency, the main one first, the rest by their code."""
    main = main_currency(ledger)
    ordered = sorted(ledger.currencies.items(), key=lambda item: (item[0] != main, item[0]))
    return [_currency_result(currency, one, ledger) for currency, one in ordered]


def rows_result(ledger: Ledger) -> Rows:
    """The row counts, frozen."""
    rows = ledger.rows
    return Rows(read=rows.read, taken=rows.taken, corrected=rows.corrected, refused=rows.refused)


def issues_result(log: IssueLog) -> Issues:
    """The issue log, frozen."""
    counts = [Issue(code=one.code, action=one.action, count=one.count) for one in log.counts()]
    return Issues(total=log.total, counts=counts, listed=log.listed(), listed_per_kind_max=LISTED_PER_KIND_MAX)


def _currency_result(currency: str, one: CurrencyLedger, ledger: Ledger) -> CurrencyResult:
    return CurrencyResult(
        currency=currency,
        rows=one.rows,
        totals=totals_of(one.total),
        service=_by_cost(one.by_service, ledger.service_names),
        account=_by_cost(one.by_account, ledger.account_names),
        day=[_key_total(key, "", one.by_day[key]) for key in sorted(one.by_day)],
        region=_by_cost(one.by_region, {}),
    )


def _by_cost(table: Mapping[str, Sums], names: Mapping[str, str]) -> list[KeyTotal]:
    ranked = sorted(table, key=lambda key: (-table[key][1], -table[key][0], key))
    return [_key_total(key, names.get(key, ""), table[key]) for key in ranked]


def _key_total(key: str, name: str, sums: Sums) -> KeyTotal:
    return KeyTotal(key=key, name=name, totals=totals_of(sums))
