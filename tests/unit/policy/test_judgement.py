"""What policies say: denials win, the most restrictive holds, and no rule gives by a claim."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardcage.manifest import Limits, Runtime
from cardcage.permissions import Grants, decide
from cardcage.policy import LEVELS, Level, Policy, PolicyDecision, judge
from cardcage.policy.levels import FLOOR, SECOND_WALLS
from cardcage.policy.model import limit_values
from cardcage.sandbox.plan import STRICT_FLOOR
from cardcage.sandbox.report import LayerName

Asking = Callable[..., PolicyDecision]


def gets(decision: PolicyDecision, subject: Any) -> set[str]:
    """The permissions that the policy lets an instance have, were all granted."""
    return {str(each.permission) for each in subject.requests if each.permission not in decision.refused}


def is_no_looser(tight: PolicyDecision, loose: PolicyDecision, subject: Any) -> bool:
    """Whether whatever the first allows the second allows, too."""
    if not tight.allowed:
        return True
    least = [
        second is None or (first is not None and first <= second)
        for first, second in zip(limit_values(tight.limits).values(), limit_values(loose.limits).values(), strict=True)
    ]
    return (
        loose.allowed
        and gets(tight, subject) <= gets(loose, subject)
        and set(tight.floor) >= set(loose.floor)
        and set(tight.floor_where_possible) >= set(loose.floor_where_possible)
        and tight.encrypt >= loose.encrypt
        and tight.fallback <= loose.fallback
        and all(least)
    )


def test_adding_a_denial_never_allows_more(worlds: SimpleNamespace) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(worlds.policies, worlds.denials, worlds.subjects, st.integers(0, 4))
    def check(policy: Policy, denial: Any, subject: Any, place: int) -> None:
        rules = (*policy.rules[:place], denial, *policy.rules[place:])
        assert is_no_looser(judge(replace(policy, rules=rules), subject), judge(policy, subject), subject)

    check()


def test_strict_allows_no_more_than_standard_and_standard_no_more_than_permissive(worlds: SimpleNamespace) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(worlds.subjects)
    def check(subject: Any) -> None:
        strict, standard, permissive = (judge(Policy(level=level), subject) for level in Level)
        assert is_no_looser(strict, standard, subject)
        assert is_no_looser(standard, permissive, subject)

    check()


def test_the_same_rules_on_a_stricter_level_allow_no_more(worlds: SimpleNamespace) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(worlds.policies, worlds.subjects)
    def check(policy: Policy, subject: Any) -> None:
        # Defaults aside: a rule may replace those of a level, and one that asks for a bound is content with them.
        rules = tuple(replace(rule, then=replace(rule.then, defaults=Limits(), bounded=())) for rule in policy.rules)
        strict, standard, permissive = (judge(replace(policy, rules=rules, level=level), subject) for level in Level)
        assert is_no_looser(strict, standard, subject)
        assert is_no_looser(standard, permissive, subject)

    check()


def test_the_order_of_rules_decides_nothing_but_defaults(worlds: SimpleNamespace) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(worlds.policies, worlds.subjects)
    def check(policy: Policy, subject: Any) -> None:
        rules = tuple(replace(rule, then=replace(rule.then, defaults=Limits())) for rule in policy.rules)
        there = judge(replace(policy, rules=rules), subject)
        back = judge(replace(policy, rules=rules[::-1]), subject)
        assert (there.allowed, there.limits, there.grants, there.isolation) == (
            back.allowed,
            back.limits,
            back.grants,
            back.isolation,
        )
        assert there.refused.keys() == back.refused.keys()
        assert set(there.floor) == set(back.floor)

    check()


def test_limits_are_never_more_than_asked_and_never_more_than_a_cap(worlds: SimpleNamespace) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(worlds.policies, worlds.subjects)
    def check(policy: Policy, subject: Any) -> None:
        found = limit_values(judge(policy, subject).limits)
        for name, asked in limit_values(subject.limits).items():
            value = found[name]
            assert asked is None or (value is not None and value <= asked)

    check()


def test_a_policy_denies_what_overlaps_and_grants_only_what_is_covered(worlds: SimpleNamespace) -> None:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(worlds.permissions, worlds.permissions)
    def check(pattern: Any, asked: Any) -> None:
        text = f'rules: [{{when: {{permission: "{pattern}"}}, then: {{deny: true}}}}]'
        subject = _subject(asked)
        assert (asked in judge(_parsed(text), subject).refused) == pattern.overlaps(asked)
        text = f'rules: [{{when: {{permission: "{pattern}"}}, then: {{grant: "{pattern}"}}}}]'
        grants = judge(_parsed(text), subject).grants
        assert decide(asked, grants).allowed == pattern.covers(asked)

    check()


def _parsed(text: str) -> Policy:
    from cardcage.policy import parse_policy

    return parse_policy(text)


def _subject(*asked: Any) -> Any:
    from cardcage.permissions import PermissionRequest
    from cardcage.policy import Subject

    return Subject(plugin="ocr", requests=tuple(PermissionRequest(permission=each) for each in asked))


def test_the_levels_name_layers_that_exist_and_standard_asks_for_the_floor_of_the_walls() -> None:
    assert set(FLOOR) == set(STRICT_FLOOR)
    known = set(map(str, LayerName))
    for rules in LEVELS.values():
        for rule in rules:
            assert {*rule.then.floor, *rule.then.floor_where_possible} <= known
    assert not set(SECOND_WALLS) & set(FLOOR)


def test_a_denial_names_the_rule_its_place_and_the_reason(asking: Asking) -> None:
    found = asking(
        "rules:\n- name: no wildcards\n  reason: the firewall is not ours\n"
        "  when: {broad: network}\n  then: {deny: true}\n",
        "network:*.example.com:443",
        "network:a.example.com:443",
    )
    assert not found.allowed
    assert found.reason == (
        'rule "no wildcards" (policy.yaml, line 2) denies network access to *.example.com:443: the firewall is not ours'
    )
    assert [denial.permission for denial in found.denials] == ["network:*.example.com:443"]


def test_a_plugin_starts_without_an_optional_permission_that_is_denied(asking: Asking) -> None:
    text = 'rules: [{when: {permission: "network:*:*"}, then: {deny: true}}]'
    assert asking(text, "network:a.example:443?", "read:/srv/x").allowed
    assert list(map(str, asking(text, "network:a.example:443?").refused)) == ["network:a.example:443"]
    assert not asking(text, "network:a.example:443").allowed


@pytest.mark.parametrize(
    ("when", "facts", "denied"),
    [
        ("plugin: o*", {}, True),
        ("plugin: [x, y]", {}, False),
        ("publisher: '*corp'", {"publisher": "Evil Corp"}, True),
        ("publisher: '*corp'", {"publisher": "Good"}, False),
        ("publisher: '*corp', verified: true", {"publisher": "Evil Corp"}, False),
        ("source: /srv/plugins", {"source": "/srv/plugins/ocr"}, True),
        ("source: /srv/plugins/", {"source": "/srv/plugins"}, True),
        ("source: /srv/plugins", {"source": "/srv/plugins2/ocr"}, False),
        ("type: notif*", {"type": "notifier"}, True),
        ("provides: 'optimizer@*'", {"provides": ("a@1", "optimizer@2")}, True),
        ("provides: 'optimizer@*'", {}, False),
        ("runtime: [executable, node]", {"runtime": Runtime.NODE}, True),
        ("runtime: executable", {}, False),
        ("isolation: process", {}, True),
        ("isolation: vm", {}, False),
        ("environment: prod*", {"environment": "production"}, True),
        ("environment: prod*", {}, False),
        ("label: eu", {"label": "eu"}, True),
        ("limits: {memory: '> 1GiB'}", {"limits": Limits(memory_bytes=2**30 + 1)}, True),
        ("limits: {memory: '> 1GiB'}", {"limits": Limits(memory_bytes=2**30)}, False),
        ("limits: {memory: '> 1GiB'}", {}, True),
        ("limits: {memory: none}", {}, True),
        ("limits: {memory: none}", {"limits": Limits(memory_bytes=5)}, False),
        ("limits: {cpu: '>= 50%', connections: '< 10'}", {"limits": Limits(cpu_cores=0.5, connections=9)}, True),
        ("limits: {cpu: '>= 50%', connections: '< 10'}", {"limits": Limits(cpu_cores=0.5, connections=10)}, False),
        ("plugin: ocr, environment: x", {}, False),
    ],
)
def test_all_conditions_must_hold(asking: Asking, when: str, facts: dict[str, Any], denied: bool) -> None:
    assert asking(f"rules: [{{when: {{{when}}}, then: {{deny: true}}}}]", **facts).allowed is not denied


def test_an_exception_of_a_denial_reaches_no_further_than_its_pattern(asking: Asking) -> None:
    text = (
        'rules: [{when: {permission: "network:*:*"}, unless: {permission: "network:*.example.com:443"}, '
        "then: {deny: true}}]"
    )
    assert asking(text, "network:a.example.com:443").allowed
    assert not asking(text, "network:a.example.com:*").allowed
    assert not asking(text, "network:a.example.com:443", "network:b.example:443").allowed


def test_a_list_of_plugins_that_may_start_is_a_default_of_deny(asking: Asking) -> None:
    text = "default: deny\nrules: [{when: {plugin: ocr}, then: {allow: true}}]"
    assert asking(text).allowed
    found = asking(text, plugin="other")
    assert not found.allowed
    assert "no rule allows" in found.reason
    assert found.denials[0].hint == "add a rule: {when: {plugin: other}, then: {allow: true}}"
    assert not asking(f"{text.removesuffix(']')}, {{then: {{deny: true}}}}]").allowed


def test_of_several_caps_the_lowest_holds_and_a_later_default_replaces_an_earlier(asking: Asking) -> None:
    found = asking(
        "rules:\n"
        "- then: {caps: {memory: 1GiB}, defaults: {cpu: 2}}\n"
        "- then: {caps: {memory: 64MiB}, defaults: {cpu: 1, connections: 9}}\n",
        limits=Limits(memory_bytes=2**31),
    )
    assert found.limits == Limits(memory_bytes=64 * 2**20, cpu_cores=1.0, connections=9)


def test_a_limit_without_bound_is_refused_where_one_is_asked_for(asking: Asking) -> None:
    found = asking("rules: [{name: b, then: {bounded: [memory, disk]}}]", limits=Limits(memory_bytes=1))
    assert found.reason == 'rule "b" (policy.yaml, line 1) asks for a bound of disk, and plugin "ocr" 1.2.0 has none'
    assert asking("rules: [{then: {bounded: all}}, {then: {defaults: {memory: 1B}}}]").allowed is False
    assert asking("level: strict").limits.memory_bytes == 256 * 2**20
    assert asking("level: strict").allowed


def test_the_strongest_isolation_holds_and_unconfined_is_never_strong_enough(asking: Asking) -> None:
    text = "rules: [{then: {isolation: container}}, {then: {isolation: process}}]"
    assert asking(text).isolation == "container"
    assert asking(text, isolation="vm").isolation == "vm"
    found = asking(text, isolation="unconfined", unconfined_named=True)
    assert [denial.reason for denial in found.denials] == [
        f'rule "rules[{index}]" (policy.yaml, line 1) asks for at least {wall} isolation, found unconfined'
        for index, wall in enumerate(("container", "process"))
    ]


@pytest.mark.parametrize(
    ("text", "named", "allowed"),
    [
        ("level: standard", True, True),
        ("level: standard", False, False),
        ("level: permissive", False, True),
        ("level: strict", True, False),
        ("{level: strict, rules: [{then: {unconfined: any}}]}", True, False),
        ("{level: standard, rules: [{when: {plugin: ocr}, then: {unconfined: any}}]}", False, True),
        ("{level: permissive, rules: [{when: {plugin: ocr}, then: {unconfined: never}}]}", True, False),
    ],
)
def test_unconfined_is_the_operators_word_for_one_plugin(asking: Asking, text: str, named: bool, allowed: bool) -> None:
    found = asking(text, isolation="unconfined", unconfined_named=named)
    assert found.allowed is allowed
    assert allowed or found.denials[0].code == "unconfined_refused"


@pytest.mark.parametrize(
    ("text", "fallback"),
    [
        ("level: standard", False),
        ("level: permissive", True),
        ("{level: standard, rules: [{then: {fallback: allow}}]}", True),
        ("{level: strict, rules: [{then: {fallback: allow}}]}", False),
        ("{level: permissive, rules: [{then: {fallback: never}}]}", False),
    ],
)
def test_never_wins_over_what_allows_the_fallback(asking: Asking, text: str, fallback: bool) -> None:
    assert asking(text).fallback is fallback


def test_an_approval_is_of_exact_bytes(asking: Asking) -> None:
    text = "rules: [{name: look first, when: {plugin: ocr}, then: {approval: required}}]\n"
    found = asking(text, digest="a" * 64)
    assert (found.allowed, found.denials[0].code) == (False, "approval_needed")
    assert found.denials[0].hint == f"approve these bytes: approvals: [{{plugin: ocr, digest: {'a' * 64}}}]"
    approved = f"{text}approvals: [{{plugin: ocr, digest: {'a' * 64}}}]"
    assert asking(approved, digest="a" * 64).allowed
    assert not asking(approved, digest="b" * 64).allowed


def test_strict_refuses_what_is_broad_and_encrypts(asking: Asking) -> None:
    for broad in ("network:*.example.com:443", "network:10.0.0.0/8:443", "network:a.b:*", "subprocess:*", "read:/"):
        assert not asking("level: strict", broad).allowed
        assert asking("level: standard", broad).allowed
    assert asking("level: strict", "network:a.example:443", "subprocess:/usr/bin/git").allowed
    assert asking("level: strict").encrypt
    assert not asking("level: standard").encrypt


def test_grants_of_a_policy_are_those_of_the_rules_that_apply(asking: Asking) -> None:
    text = (
        'rules: [{when: {plugin: ocr}, then: {grant: ["read:/srv/"]}}, '
        '{when: {plugin: other}, then: {grant: ["read:/"]}}]'
    )
    assert asking(text).grants == Grants.parse(["read:/srv/"])


def test_every_rule_that_applied_is_told_with_what_came_of_it(asking: Asking) -> None:
    found = asking("rules: [{name: cap, then: {caps: {memory: 64MiB}, warn: take care}}]")
    told = {each.rule: each.effects for each in found.applied}
    assert told["cap"] == ("at most memory 64MiB", "warns: take care")
    assert set(told) == {"standard/walls", "standard/unconfined-by-name", "cap"}
    assert found.warnings == ("take care",)
    assert found.to_json()["applied"][-1]["position"] == "policy.yaml, line 1"
