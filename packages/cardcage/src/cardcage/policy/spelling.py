"""A policy as plain data, spelt as its file spells it: what `parse_policy` reads, this writes."""

from __future__ import annotations

from typing import Any

from cardcage.manifest import Limits
from cardcage.policy import bounds
from cardcage.policy.model import Conditions, Effects, Policy, Rule


def policy_document(policy: Policy) -> dict[str, Any]:
    """The policy as its file would hold it, without the rules of its level."""
    document: dict[str, Any] = {"level": policy.level.value, "default": policy.default}
    if policy.rules:
        document["rules"] = [rule_document(rule) for rule in policy.rules]
    if policy.approvals:
        document["approvals"] = [{"plugin": each.plugin, "digest": each.digest} for each in policy.approvals]
    return document


def rule_document(rule: Rule) -> dict[str, Any]:
    """One rule as the file would hold it."""
    document: dict[str, Any] = {"name": rule.name}
    if rule.reason:
        document["reason"] = rule.reason
    if when := conditions_document(rule.when):
        document["when"] = when
    if rule.unless is not None:
        document["unless"] = conditions_document(rule.unless)
    return document | {"then": effects_document(rule.then)}


def conditions_document(conditions: Conditions) -> dict[str, Any]:
    """The conditions that are given."""
    document: dict[str, Any] = {
        "plugin": list(conditions.plugin),
        "publisher": list(conditions.publisher),
        "verified": conditions.verified,
        "source": list(conditions.source),
        "type": list(conditions.type),
        "provides": list(conditions.provides),
        "runtime": [each.value for each in conditions.runtime],
        "isolation": list(conditions.isolation),
        "environment": list(conditions.environment),
        "label": list(conditions.label),
        "permission": list(map(str, conditions.permission)),
        "broad": [kind.value for kind in conditions.broad],
        "limits": {each.limit: each.text for each in conditions.limits},
    }
    return {key: value for key, value in document.items() if value not in (None, [], {})}


def effects_document(effects: Effects) -> dict[str, Any]:
    """The effects that are given."""
    document: dict[str, Any] = {
        "deny": effects.deny or None,
        "allow": effects.allow or None,
        "grant": list(map(str, effects.grant)),
        "isolation": effects.isolation,
        "floor": list(effects.floor),
        "floor_where_possible": list(effects.floor_where_possible),
        "caps": _limits(effects.caps),
        "defaults": _limits(effects.defaults),
        "bounded": list(effects.bounded),
        "encrypt": "always" if effects.encrypt else None,
        "fallback": effects.fallback,
        "unconfined": effects.unconfined,
        "approval": "required" if effects.approval else None,
        "warn": effects.warn or None,
    }
    return {key: value for key, value in document.items() if value not in (None, [], {})}


def _limits(limits: Limits) -> dict[str, float | str]:
    return {name: _limit(name, value) for name, value in bounds.given(limits).items()}


def _limit(name: str, value: float) -> float | str:
    """Sizes as people write them, counts and shares as numbers."""
    text = bounds.spelled(name, value)
    return text if text[-1:].isalpha() else value
