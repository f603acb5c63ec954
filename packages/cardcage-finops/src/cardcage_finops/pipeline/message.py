"""The message that channels carry when an analysis is finished. Pure."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

from cardcage_finops.models import Notification
from cardcage_finops.pipeline.amounts import amount_for_people, amount_text
from cardcage_finops.pipeline.result import Analysis

LINES_MAX: Final = 5
"""Of each kind: a message is to be read, the report has the rest."""


def notification(found: Analysis, report: Path | None, time: str) -> Notification:
    """What was spent, what stood out, what could be saved, and which policies are broken."""
    main = found.main
    billed = amount_for_people(main.totals.billed, found.currency) if main else "nothing"
    return Notification(
        title=f"Cloud cost of {found.bill.name}: {billed} billed, {_plural(len(found.anomalies), 'unusual day')}",
        text="\n".join(_lines(found, report)),
        severity=severity(found),
        kind="analysis_finished",
        time=time,
        data={
            "bill": found.bill.name,
            "currency": found.currency,
            "period": {"first_day": found.period_start, "last_day": found.period_end},
            "totals": {
                "billed": amount_text(main.totals.billed) if main else "0",
                "effective": amount_text(main.totals.effective) if main else "0",
            },
            "rows": {"read": found.rows.read, "taken": found.rows.taken, "refused": found.rows.refused},
            "anomalies": len(found.anomalies),
            "recommendations": len(found.recommendations),
            "monthly_savings": amount_text(found.monthly_savings),
            "policies_breached": sorted({one.policy for one in found.policies if one.status == "breach"}),
        },
    )


def severity(found: Analysis) -> Literal["info", "warning", "critical"]:
    """Critical where a policy is broken, a warning where something stood out."""
    statuses = {one.status for one in found.policies}
    if "breach" in statuses:
        return "critical"
    return "warning" if "warn" in statuses or found.anomalies or found.alerts else "info"


def _lines(found: Analysis, report: Path | None) -> list[str]:
    lines = [f"Period: {found.period_start} to {found.period_end}."]
    worst = sorted((one for one in found.policies if one.status != "ok"), key=lambda one: one.status)  # breach, warn
    lines += [f"Policy {one.policy} ({one.status}): {one.message}" for one in worst[:LINES_MAX]]
    for one in found.anomalies[:LINES_MAX]:
        scope = one.service or "all services"
        lines.append(f"Unusual: {scope} on {one.first_day}, {amount_for_people(one.impact, one.currency)} too much.")
    if found.recommendations:
        saved = amount_for_people(found.monthly_savings, found.currency)
        lines.append(f"{_plural(len(found.recommendations), 'recommendation')} could save {saved} a month.")
    if report is not None:
        lines.append(f"Report: {report}")
    return lines


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
