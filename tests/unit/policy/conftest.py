"""Random policies and subjects, and the short way to ask a policy about a plugin."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st

from cardcage.manifest import Limits, Runtime
from cardcage.permissions import Permission, PermissionKind, PermissionRequest
from cardcage.policy import (
    Approval,
    Conditions,
    Effects,
    Level,
    LimitCondition,
    Policy,
    PolicyDecision,
    Rule,
    Subject,
    judge,
    parse_policy,
)
from cardcage.policy.parse import BROAD_WORDS

DIGESTS = ("a" * 64, "b" * 64)

permissions = st.sampled_from(
    [
        Permission.parse(text)
        for text in (
            "network:a.example:443",
            "network:*.example:443",
            "network:*:*",
            "network:10.0.0.0/8:443",
            "network:10.0.0.1:443",
            "read:/",
            "read:/etc/",
            "read:/etc/hosts",
            "write:/srv/out/",
            "secret:TOKEN",
            "capability:ReadCostData",
            "subprocess:*",
            "subprocess:/usr/bin/git",
        )
    ]
)
names = st.sampled_from(["ocr", "aws-scan", "notify"])
patterns = st.lists(st.sampled_from(["ocr", "aws-*", "*", "n?tify", "none"]), unique=True, max_size=2).map(tuple)
claims = st.sampled_from(["", "Acme", "Evil Corp"])
folders = st.lists(st.sampled_from(["/srv/plugins", "/srv/plugins/ocr/", "/opt"]), unique=True, max_size=2).map(tuple)
limits = st.builds(
    Limits,
    memory_bytes=st.none() | st.integers(1, 2**32),
    cpu_cores=st.none() | st.sampled_from([0.25, 1.0, 4.0]),
    connections=st.none() | st.integers(1, 100),
)


def _comparison(sign: Any, number: int) -> LimitCondition:
    return LimitCondition(limit="memory", sign=sign, number=number, text=f"{sign} {number}")


comparisons = st.builds(_comparison, st.sampled_from([">", ">=", "<", "<=", "=="]), st.integers(1, 2**33)) | st.just(
    LimitCondition(limit="cpu", sign="none", text="none")
)
isolations = st.sampled_from(["unconfined", "process", "container", "vm"])


def _conditions(*, publisher: bool) -> st.SearchStrategy[Conditions]:
    return st.builds(
        Conditions,
        plugin=patterns,
        publisher=st.lists(st.sampled_from(["acme", "*corp"]), unique=True, max_size=2).map(tuple)
        if publisher
        else st.just(()),
        verified=st.sampled_from([None, None, True, False]),
        source=folders,
        runtime=st.sampled_from([(), (), (Runtime.PYTHON,), (Runtime.NODE, Runtime.WASM)]),
        isolation=st.sampled_from([(), (), ("unconfined",), ("process", "vm")]),
        environment=st.sampled_from([(), (), ("prod*",)]),
        permission=st.lists(permissions, unique=True, max_size=2).map(tuple),
        broad=st.lists(st.sampled_from(BROAD_WORDS).map(PermissionKind), unique=True, max_size=2).map(tuple),
        limits=st.lists(comparisons, max_size=1).map(tuple),
    )


layers = st.lists(st.sampled_from(["landlock_files", "cgroup_limits", "own_uid"]), unique=True, max_size=2).map(tuple)
tightening = st.builds(
    Effects,
    deny=st.booleans(),
    isolation=st.sampled_from([None, None, "process", "container", "vm"]),
    floor=layers,
    floor_where_possible=layers,
    caps=limits,
    defaults=limits,
    bounded=st.sampled_from([(), (), ("memory",)]),
    encrypt=st.booleans(),
    fallback=st.sampled_from([None, "never"]),
    unconfined=st.sampled_from([None, "never"]),
    approval=st.booleans(),
).filter(lambda effects: effects.tightens)
loosening = st.builds(
    Effects,
    allow=st.booleans(),
    grant=st.lists(permissions, unique=True, max_size=2).map(tuple),
    fallback=st.sampled_from([None, "allow"]),
    unconfined=st.sampled_from([None, "named", "any"]),
    warn=st.sampled_from(["", "take care"]),
).filter(lambda effects: effects.loosens)


def _rules(then: st.SearchStrategy[Effects], *, publisher: bool) -> st.SearchStrategy[Rule]:
    return st.builds(
        Rule,
        name=st.text("abcdefgh", min_size=1, max_size=12),
        position=st.just("somewhere"),
        then=then,
        when=_conditions(publisher=publisher),
        unless=st.none() | _conditions(publisher=False),
        reason=st.sampled_from(["", "because"]),
    )


tightening_rules = _rules(tightening, publisher=True)
denials = _rules(st.just(Effects(deny=True)), publisher=True)
rules = tightening_rules | _rules(loosening, publisher=False)
policies = st.builds(
    Policy,
    level=st.sampled_from(Level),
    default=st.sampled_from(["allow", "deny"]),
    rules=st.lists(rules, max_size=4, unique_by=lambda rule: rule.name).map(tuple),
    approvals=st.lists(st.builds(Approval, plugin=names, digest=st.sampled_from(DIGESTS)), max_size=2, unique=True).map(
        tuple
    ),
)
subjects = st.builds(
    Subject,
    plugin=names,
    publisher=claims,
    source=st.sampled_from(["/srv/plugins/ocr", "/opt/x", "/srv/pluginsX"]),
    digest=st.sampled_from(DIGESTS),
    runtime=st.sampled_from(Runtime),
    isolation=isolations,
    unconfined_named=st.booleans(),
    environment=st.sampled_from(["", "production"]),
    requests=st.lists(
        st.builds(PermissionRequest, permission=permissions, optional=st.booleans()),
        max_size=4,
        unique_by=lambda request: request.permission,
    ).map(tuple),
    limits=limits,
)


@pytest.fixture(scope="session")
def worlds() -> SimpleNamespace:
    """The strategies, by name."""
    return SimpleNamespace(
        policies=policies,
        subjects=subjects,
        denials=denials,
        tightening_rules=tightening_rules,
        permissions=permissions,
    )


Asking = Callable[..., PolicyDecision]


@pytest.fixture(scope="session")
def asking() -> Asking:
    """Ask a policy, given as its text, about a plugin that asks for these permissions (`?` after an optional one)."""

    def ask(text: str, *asked: str, **facts: Any) -> PolicyDecision:
        requests = tuple(
            PermissionRequest(permission=Permission.parse(each.removesuffix("?")), optional=each.endswith("?"))
            for each in asked
        )
        known: dict[str, Any] = {"plugin": "ocr", "version": "1.2.0", "requests": requests, **facts}
        return judge(parse_policy(text), Subject(**known))

    return ask
