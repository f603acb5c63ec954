"""The JSON of an analysis. Money is a decimal string in plain notation, to the last digit; the shape is stable."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from cardcage_finops.models import CostAnomaly, OptimizationRecommendation, PolicyVerdict, Totals
from cardcage_finops.pipeline.amounts import amount_text
from cardcage_finops.pipeline.result import Analysis, CurrencyResult, KeyTotal, PluginRun, Recommendation

FORMAT: Final = "cardcage.finops.analysis/1"


def analysis_document(analysis: Analysis) -> dict[str, Any]:
    """The whole analysis as plain data for `--json`."""
    main = analysis.main
    return {
        "format": FORMAT,
        "created_at": analysis.created_at,
        "seconds": round(analysis.seconds, 6),
        "bill": msgspec.to_builtins(analysis.bill),
        "currency": analysis.currency,
        "period": {"first_day": analysis.period_start, "last_day": analysis.period_end},
        "rows": msgspec.to_builtins(analysis.rows),
        "issues": msgspec.to_builtins(analysis.issues),
        "totals": _totals(main.totals if main else Totals()),
        "by": _by(main),
        "services": {one.key: one.name for one in main.service if one.name} if main else {},
        "accounts": {one.key: one.name for one in main.account if one.name} if main else {},
        "currencies": [
            {"currency": one.currency, "rows": one.rows, "totals": _totals(one.totals), "by": _by(one)}
            for one in analysis.currencies
        ],
        "daily_spike": {"change": analysis.daily_spike, "day": analysis.daily_spike_day},
        "resources": {"count": analysis.resources, "with_metrics": analysis.metrics_resources},
        "anomalies": [_anomaly(one) for one in analysis.anomalies],
        "recommendations": [_ruling(one) for one in analysis.recommendations],
        "monthly_savings": amount_text(analysis.monthly_savings),
        "policies": [_policy(one) for one in analysis.policies],
        "alerts": msgspec.to_builtins(analysis.alerts),
        "notifications": [{"target": one.target, **msgspec.to_builtins(one.delivery)} for one in analysis.notices],
        "warnings": analysis.warnings,
        "plugins": [_plugin(one) for one in analysis.plugins],
    }


def analysis_json(analysis: Analysis) -> str:
    """`analysis_document`, indented, ending in a newline. Not-ASCII text is escaped, so any terminal can show it."""
    encoded = msgspec.json.format(msgspec.json.encode(analysis_document(analysis)), indent=2)
    return _ascii(encoded.decode()) + "\n"


def _ascii(text: str) -> str:
    """JSON text with what is not printable ASCII as \\u escapes: a DEL or a bidirectional override stays inert."""
    return "".join(_escaped(char) if char > "~" else char for char in text)


def _escaped(char: str) -> str:
    units = char.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _totals(totals: Totals) -> dict[str, str]:
    return {
        "billed": amount_text(totals.billed),
        "effective": amount_text(totals.effective),
        "list": amount_text(totals.list),
        "contracted": amount_text(totals.contracted),
    }


def _by(one: CurrencyResult | None) -> dict[str, list[dict[str, str]]]:
    if one is None:
        return {"service": [], "account": [], "day": [], "region": []}
    return {
        "service": [_key_total(row) for row in one.service],
        "account": [_key_total(row) for row in one.account],
        "day": [_key_total(row) for row in one.day],
        "region": [_key_total(row) for row in one.region],
    }


def _key_total(row: KeyTotal) -> dict[str, str]:
    return {"key": row.key, "billed": amount_text(row.totals.billed), "effective": amount_text(row.totals.effective)}


def _anomaly(one: CostAnomaly) -> dict[str, Any]:
    document = msgspec.to_builtins(one)
    document |= {name: amount_text(getattr(one, name)) for name in ("actual", "expected", "impact")}
    document["causes"] = [{**msgspec.to_builtins(cause), "amount": amount_text(cause.amount)} for cause in one.causes]
    return document


def _recommendation(one: OptimizationRecommendation) -> dict[str, Any]:
    return {**msgspec.to_builtins(one), "estimated_savings": amount_text(one.estimated_savings)}


def _ruling(one: Recommendation) -> dict[str, Any]:
    document = _recommendation(one.chosen)
    if one.resource is not None:
        resource = one.resource
        document["resource"] = {
            "service": resource.service,
            "account": resource.account,
            "region": resource.region,
            "type": resource.resource_type,
            "size": resource.size,
            "monthly_cost": amount_text(resource.monthly_cost) if resource.monthly_cost is not None else None,
        }
    document["alternatives"] = [_recommendation(other) for other in one.alternatives]
    return document


def _policy(one: PolicyVerdict) -> dict[str, Any]:
    document = msgspec.to_builtins(one)
    for name in ("spent", "forecast", "limit"):
        value = getattr(one, name)
        document[name] = None if value is None else amount_text(value)
    return document


def _plugin(one: PluginRun) -> dict[str, Any]:
    document = msgspec.to_builtins(one)
    document["seconds"] = round(one.seconds, 6)
    return document
