"""From the judgement of a policy to what a start is held to on this machine."""

from __future__ import annotations

from typing import Any

import pytest

from cardcage.foundation.errors import Refused
from cardcage.manager.judging import Judge, decisions, declared_capabilities, refuse_fallback
from cardcage.manager.policy_source import PolicySource
from cardcage.permissions import Grants, Permission, PermissionRequest
from cardcage.policy import Policy, Subject, judge, parse_policy
from cardcage.sandbox.plan import FALLBACK_FLOOR, STRICT_FLOOR
from cardcage.sandbox.report import Layer, LayerStatus, MachineReport, Mode

SUBJECT = Subject(plugin="ocr", version="1.2.0")


def machine(mode: Mode = Mode.ROOT, *, uid: int = 0, enforced: tuple[str, ...] = ()) -> MachineReport:
    layers = tuple(Layer(name=name, status=LayerStatus.ENFORCED) for name in enforced)
    return MachineReport(
        system="Linux", kernel="6.1", architecture="x86_64", mode=mode, uid=uid, gid=uid, layers=layers
    )


def a_judge(policy: Policy, **more: Any) -> Judge:
    return Judge(source=PolicySource("argument", fixed=policy), **more)


def floor(text: str, here: MachineReport, seen: MachineReport | None = None) -> tuple[str, ...]:
    policy = parse_policy(text)
    return a_judge(policy, examine=lambda: seen or here).floor(judge(policy, SUBJECT), here)


def test_the_standard_floor_is_that_of_the_walls_and_asks_for_an_own_uid_of_root_alone() -> None:
    assert set(floor("level: standard", machine())) == set(STRICT_FLOOR)
    assert set(floor("level: standard", machine(Mode.USER, uid=1000))) == {*STRICT_FLOOR} - {"own_uid"}


def test_layers_where_possible_count_where_this_machine_was_seen_to_enforce_them() -> None:
    seen = machine(enforced=("landlock_files", "cgroup_limits"))
    assert set(floor("level: strict", machine(), seen)) == {*STRICT_FLOOR, "landlock_files", "cgroup_limits"}
    assert set(floor("level: strict", machine(), machine())) == set(STRICT_FLOOR)


def test_the_fallback_keeps_to_its_own_floor_and_to_the_operators() -> None:
    here = machine(Mode.FALLBACK, uid=1000)
    assert set(floor("level: permissive", here)) == {*FALLBACK_FLOOR} - {"own_uid"}
    asking = "{level: permissive, rules: [{then: {floor: [landlock_scopes, user_namespace]}}]}"
    assert set(floor(asking, here)) == {*FALLBACK_FLOOR, "landlock_scopes", "user_namespace"} - {"own_uid"}


def test_a_machine_that_forbids_namespaces_starts_nothing_unless_the_policy_accepts_the_fallback() -> None:
    here = machine(Mode.FALLBACK, uid=1000)
    for text, accepted in (("level: permissive", True), ("level: standard", False), ("level: strict", False)):
        decision = judge(parse_policy(text), SUBJECT)
        refuse_fallback(SUBJECT, decision, machine())
        if accepted:
            refuse_fallback(SUBJECT, decision, here)
            continue
        with pytest.raises(Refused, match=r"policy \(policy.yaml\) does not accept the weaker wall") as caught:
            refuse_fallback(SUBJECT, decision, here)
        assert caught.value.code == "fallback_not_allowed"


def test_a_grant_that_a_denial_speaks_of_opens_nothing_else() -> None:
    policy = parse_policy('rules: [{when: {permission: "network:10.0.0.0/8:*"}, then: {deny: true}}]')
    grants = Grants.parse(["network:10.1.0.0/16:443", "network:192.168.0.0/16:443", "network:*.example:443"])
    left = a_judge(policy).undenied(SUBJECT, grants)
    assert list(map(str, left)) == ["network:*.example:443", "network:192.168.0.0/16:443"]


def test_what_nobody_declares_and_what_the_policy_denies_is_not_had_by_any_grant() -> None:
    texts = ("capability:ReadCostDat", "secret:S", "read:/a")
    requests = [PermissionRequest(permission=Permission.parse(text)) for text in texts]
    policy = parse_policy('rules: [{name: r, when: {permission: "secret:S"}, then: {deny: true}}]')
    verdict = judge(policy, Subject(plugin="ocr", requests=tuple(requests)))
    declared = declared_capabilities((), ["ReadCostData"])
    found = decisions(requests, Grants.parse(texts), policy=verdict, declared=declared)
    assert [(decision.allowed, decision.reason) for _, decision in found] == [
        (
            False,
            "capability ReadCostDat is unknown: no installed pack and no service of this host declares it; "
            "did you mean ReadCostData?",
        ),
        (False, 'rule "r" (policy.yaml, line 1) denies secret S'),
        (True, "reading /a is granted"),
    ]
