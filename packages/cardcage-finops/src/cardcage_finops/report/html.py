"""An analysis as one HTML file that loads nothing: charts, tables, and everything that they are drawn from, inside.

Text from bills and plugins is untrusted. Four defences, each enough by itself for markup: the template escapes every
value; data for the script is JSON with `<`, `>` and `&` escaped; the script writes text only as text; and a content
security policy allows the two scripts and two style sheets of this file by their digests, and no network at all.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from cardcage_finops.models import PolicyVerdict, Totals
from cardcage_finops.pipeline.amounts import ZERO, amount_for_people, amount_text
from cardcage_finops.pipeline.result import Analysis, KeyTotal
from cardcage_finops.report.figures import change_text, chart_data, charted_anomalies, main_days
from cardcage_finops.report.untrusted import visible

TABLE_ROWS_MAX: Final = 500
"""Rows of one table in the page; the JSON has them all."""

TABLE_DAYS_MAX: Final = 1200
_TEXT_CHARS_MAX: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakdownRow:
    """One line of the tables by service and by account. `width` is its bar, 1 for the costliest."""

    label: str
    detail: str
    effective: Decimal
    billed: Decimal
    share: float
    width: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """A verdict with the bar that shows how much of its limit is used."""

    verdict: PolicyVerdict
    kind: str
    fill: str
    width: float | None
    limit_at: float | None


def html_report(analysis: Analysis) -> str:
    """The whole page."""
    main = analysis.main
    totals = main.totals if main else Totals()
    chart_css, page_css = _asset("uplot/uPlot.min.css"), _asset("report.css")
    chart_js, page_js = _asset("uplot/uPlot.iife.min.js"), _asset("report.js")
    return _template().render(
        analysis=analysis,
        main=main,
        totals=totals,
        currency=analysis.currency,
        policy=content_security_policy([chart_js, page_js], [chart_css, page_css]),
        chart_css=chart_css,
        page_css=page_css,
        chart_js=chart_js,
        page_js=page_js,
        chart_licence=Markup.escape(str(_asset("uplot/LICENSE"))),
        chart_json=script_json(_harmless(chart_data(analysis))),
        days=main_days(analysis),
        charted=charted_anomalies(analysis),
        services=breakdown(main.service, totals.effective) if main else [],
        accounts=breakdown(main.account, totals.effective) if main else [],
        policy_rows=[_policy_row(one) for one in analysis.policies],
        breaches=sum(one.status == "breach" for one in analysis.policies),
        period_text=_period_text(analysis),
        discount_text=_discount_text(totals),
        anomaly_text=_anomaly_text(analysis),
        no_recommendations=_no_recommendations(analysis),
        table_rows_max=TABLE_ROWS_MAX,
        table_days_max=TABLE_DAYS_MAX,
    )


def content_security_policy(scripts: list[str], styles: list[str]) -> str:
    """The policy that runs these scripts and styles, found by their digest, and nothing else; no request leaves."""
    script = " ".join(_digest_source(text) for text in scripts)
    style = " ".join(_digest_source(text) for text in styles)
    return f"default-src 'none'; script-src {script}; style-src {style}; base-uri 'none'; form-action 'none'"


def script_json(value: Any) -> Markup:
    """JSON that is safe inside a script element: no `<` can end it, no separator can break it."""
    text = msgspec.json.encode(value).decode()
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)  # noqa: S704 - every character that HTML could obey is escaped above


def breakdown(rows: list[KeyTotal], whole: Decimal) -> list[BreakdownRow]:
    """The rows with their share of the whole, and their width beside the costliest."""
    greatest = max((row.totals.effective.copy_abs() for row in rows), default=ZERO)
    return [
        BreakdownRow(
            label=row.name or row.key,
            detail=row.key if row.name and row.name != row.key else "",
            effective=row.totals.effective,
            billed=row.totals.billed,
            share=_ratio(row.totals.effective, whole),
            width=abs(_ratio(row.totals.effective, greatest)),
        )
        for row in rows
    ]


def _ratio(part: Decimal, whole: Decimal) -> float:
    return float(part / whole) if whole else 0.0


def _policy_row(verdict: PolicyVerdict) -> PolicyRow:
    kind = {"ok": "good", "warn": "warn", "breach": "bad"}[verdict.status]
    fill = {"ok": "", "warn": "warn", "breach": "over"}[verdict.status]
    if verdict.spent is None or not verdict.limit or verdict.limit < 0:
        return PolicyRow(verdict=verdict, kind=kind, fill=fill, width=None, limit_at=None)
    whole = max(verdict.spent, verdict.limit)
    over = verdict.spent > verdict.limit
    return PolicyRow(
        verdict=verdict,
        kind=kind,
        fill=fill,
        width=max(0.0, _ratio(verdict.spent, whole)),
        limit_at=_ratio(verdict.limit, whole) if over else None,
    )


def _period_text(analysis: Analysis) -> str:
    first, last = analysis.period_start, analysis.period_end
    return first if first == last and first else f"{first} to {last}" if first else "no charges"


def _discount_text(totals: Totals) -> str:
    saved = totals.list - totals.effective
    if not totals.list:
        return "the bill has no list prices"
    share = _ratio(saved, totals.list)
    return f"{abs(share):.1%} {'below' if saved >= 0 else 'above'} it is paid".replace("%", " %")


def _anomaly_text(analysis: Analysis) -> str:
    own = [one.impact for one in analysis.anomalies if one.currency == analysis.currency]
    return f"{amount_for_people(sum(own, ZERO), analysis.currency)} over what was expected" if own else "none stood out"


def _no_recommendations(analysis: Analysis) -> str:
    if not analysis.metrics_resources:
        return "No recommendation: without metrics, no resource can be called idle or too large. Give a metrics file."
    return f"No recommendation: of {analysis.metrics_resources} resources with metrics, none is idle or too large."


@cache
def _asset(name: str) -> Markup:
    text = files("cardcage_finops").joinpath("assets", *name.split("/")).read_text("utf-8")
    assert "</script" not in text.lower(), f"{name} would end the element it stands in"
    assert "</style" not in text.lower(), f"{name} would end the element it stands in"
    return Markup(text)  # noqa: S704 - our own file, checked above


@cache
def _template() -> Any:
    environment = Environment(autoescape=True, undefined=StrictUndefined, finalize=_finalize)
    environment.filters |= {
        "money": amount_for_people,
        "exact": amount_text,
        "percent": _percent,
        "percent_width": _percent_width,
        "change": change_text,
    }
    source = files("cardcage_finops").joinpath("assets", "report.html.j2").read_text("utf-8")
    return environment.from_string(source)


def _percent(share: float) -> str:
    return f"{share:.1%}" if abs(share) < 0.1 else f"{share:.0%}"


def _percent_width(share: float) -> str:
    return f"{min(max(share, 0.0), 1.0) * 100:.2f}"


def _finalize(value: Any) -> Any:
    """Every text that the template prints, with controls spelled out; what is already markup is ours."""
    return visible(value, _TEXT_CHARS_MAX) if type(value) is str else value


def _harmless(value: Any) -> Any:
    """Plain data with the controls in its texts spelled out."""
    match value:
        case str():
            return visible(value)
        case list():
            return [_harmless(one) for one in value]  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {key: _harmless(one) for key, one in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


def _digest_source(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
