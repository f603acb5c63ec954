"""The policy file: every fault at once, nothing unknown, and what is written reads back."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cardcage.foundation.errors import InvalidDocument, Misuse
from cardcage.policy import LEVELS, Level, Policy, level_named, parse_policy, policy_faults
from cardcage.policy.json_schema import policy_json_schema
from cardcage.policy.model import Rule
from cardcage.policy.spelling import policy_document, rule_document


def faults(text: str, **more: Any) -> list[str]:
    with pytest.raises(InvalidDocument) as caught:
        parse_policy(text, **more)
    assert caught.value.code == "policy_invalid"
    return list(map(str, caught.value.faults))


def plain(policy: Policy) -> Any:
    """The policy without where its rules stand."""
    return json.loads(json.dumps(policy_document(policy)))


def test_what_is_written_reads_back_and_the_schema_accepts_it(worlds: SimpleNamespace) -> None:
    schema = jsonschema.Draft202012Validator(policy_json_schema())

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(worlds.policies)
    def check(policy: Policy) -> None:
        document = plain(policy)
        schema.validate(document)  # pyright: ignore[reportUnknownMemberType]
        read = parse_policy(json.dumps(document), source="policy.json")
        assert plain(read) == document
        assert (read.level, read.default, read.approvals) == (policy.level, policy.default, policy.approvals)

    check()


@pytest.mark.parametrize("level", Level)
def test_a_level_can_be_written_as_the_rules_of_a_file(level: Level) -> None:
    rules = [rule_document(rule) for rule in LEVELS[level]]
    read = parse_policy(json.dumps({"rules": rules}), source="policy.json")
    wanted: list[Rule] = list(LEVELS[level])
    assert [(rule.name, rule.when, rule.then) for rule in read.rules] == [
        (rule.name, rule.when, rule.then) for rule in wanted
    ]


def test_every_fault_is_told_at_once_with_its_path_and_line() -> None:
    text = """\
level: strikt
defualt: allow
rules:
- name: a
  when: {plugin: [], permission: "network:example.com", limits: {memory: 1GiB}}
  then: {deny: false, caps: {memory: lots, gpu: 1}, isolation: unconfined}
- name: a
  then: {}
- 7
approvals: [{plugin: x, digest: abc}]
"""
    found = {fault.path: fault.message for fault in policy_faults(text)}
    assert found == {
        "level": 'expected one of strict, standard, permissive (did you mean strict?), found "strikt" (line 1)',
        "defualt": "no such key; did you mean default? (line 2)",
        "rules[0].when.plugin": "expected a text, in which * stands for any characters, found an empty list (line 5)",
        "rules[0].when.permission": "network: expected host:port, found 'example.com' (line 5)",
        "rules[0].when.limits.memory": 'expected a comparison such as "> 1GiB", or none, where the amount is a size '
        'such as 256MiB, or a number of bytes, found "1GiB" (line 5)',
        "rules[0].then.deny": "expected true, or not this key at all, found false (line 6)",
        "rules[0].then.caps.memory": 'expected a size such as 256MiB, or a number of bytes, found "lots" (line 6)',
        "rules[0].then.caps.gpu": "no such key; did you mean cpu? (line 6)",
        "rules[0].then.isolation": "expected one of process, container, vm (did you mean container?), "
        'found "unconfined" (line 6)',
        "rules[1].then": found["rules[1].then"],
        "rules[1].name": found["rules[1].name"],
        "rules[2]": "expected a mapping of name, reason, when, unless, then, found the number 7 (line 9)",
        "approvals[0].digest": 'expected a digest of 64 hexadecimal digits, found "abc" (line 10)',
    }
    assert found["rules[1].then"].startswith("expected at least one of deny, allow, grant,")
    assert "is called" in found["rules[1].name"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("level: strict\nlevel: standard", "stands here twice: first on line 1, again on line 2"),
        ("rules: &a [{then: {deny: true}}]", "anchors are not accepted"),
        ("level: *a", "aliases are not accepted"),
        ("level: !!str strict", "tags are not accepted"),
        ("x-note: hello", "no such key"),
        ("rules: [{then: {deny: true}, x-why: y}]", "no such key"),
        ("level:", "expected a value, found nothing"),
        ("rules: [{when: {plugin: }, then: {deny: true}}]", "expected a value, found nothing"),
        ("[]", "a mapping of level, default, rules, approvals"),
        ("", "an empty document"),
        ("rules: {then: {deny: true}}", "a list of rules"),
        ("rules: [" + "{then: {deny: true}}, " * 501 + "]", "expected at most 500, found 501"),
        ("rules: [{when: {plugin: '[a-z]'}, then: {deny: true}}]", "* stands for any characters"),
        ("rules: [{when: {source: plugins}, then: {deny: true}}]", "absolute path"),
        ("rules: [{when: {source: /srv/../etc}, then: {deny: true}}]", 'without ".."'),
        ("rules: [{when: {broad: secret}, then: {deny: true}}]", "network, read, write, subprocess"),
        ("rules: [{when: {permission: 'read:${config.x}'}, then: {deny: true}}]", "without placeholders"),
        ("rules: [{then: {allow: true, deny: true}}]", "found both"),
        ("rules: [{then: {encrypt: sometimes}}]", "expected always"),
        ("rules: [{then: {approval: true}}]", "expected required"),
        ("a: " + "[" * 40 + "]" * 40, "levels"),
        ("#" * 300_000, "at most 256 KiB"),
    ],
)
def test_what_is_no_policy_is_refused_with_what_was_expected(text: str, words: str) -> None:
    assert words in " ".join(faults(text))


@pytest.mark.parametrize(
    ("rule", "trusted"),
    [
        ("when: {publisher: Acme}, then: {grant: 'read:/srv/'}", False),
        ("when: {publisher: Acme}, then: {allow: true}", False),
        ("when: {publisher: Acme}, then: {unconfined: named}", False),
        ("when: {publisher: Acme}, then: {fallback: allow}", False),
        ("when: {publisher: Acme, verified: false}, then: {allow: true}", False),
        ("when: {publisher: Acme, verified: true}, then: {allow: true}", True),
        ("when: {publisher: Acme}, then: {deny: true}", True),
        ("when: {publisher: Acme}, then: {unconfined: never, caps: {memory: 1MiB}}", True),
        ("unless: {publisher: Acme}, then: {deny: true}", False),
        ("unless: {publisher: Acme, verified: true}, then: {deny: true}", True),
        ("unless: {publisher: Evil}, then: {allow: true}", False),
        ("unless: {publisher: Evil, verified: true}, then: {allow: true}", False),
    ],
)
def test_a_claim_of_the_manifest_takes_but_never_gives(rule: str, trusted: bool) -> None:
    found = policy_faults(f"rules: [{{{rule}}}]")
    assert (not found) is trusted
    assert all("only what the manifest claims" in fault.message for fault in found)


def test_a_rule_about_permissions_either_gives_or_takes() -> None:
    text = "rules: [{when: {permission: 'read:/etc/'}, then: {grant: 'read:/etc/', caps: {memory: 1MiB}}}]"
    assert "make two rules of it" in " ".join(faults(text))


def test_a_layer_that_does_not_exist_is_a_fault_where_the_layers_are_known() -> None:
    text = "rules: [{then: {floor: [landlock_file]}}]"
    assert parse_policy(text).rules[0].then.floor == ("landlock_file",)
    assert faults(text, layers=["landlock_files", "own_uid"]) == [
        'rules[0].then.floor[0]: no layer is called "landlock_file"; did you mean landlock_files? '
        "(layers: landlock_files, own_uid) (line 1)"
    ]


def test_a_word_that_is_no_level_is_refused_with_the_nearest() -> None:
    assert level_named("strict") is Level.STRICT
    with pytest.raises(Misuse, match="did you mean permissive"):
        level_named("permisive")


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300) | st.text(max_size=300))
@example(b"rules: [{when: {limits: {memory: '> 1e999'}}, then: {deny: true}}]")
@example("rules: [{when: {limits: {memory: '> ٣'}}, then: {deny: true}}]")
@example(b"rules: [{when: {verified: 1, runtime: {}, isolation: [[]]}, then: [], name: {}}]")
@example(b"{level: {}, default: [], rules: {}, approvals: 1}")
def test_no_bytes_do_worse_than_being_refused(data: bytes | str) -> None:
    assert policy_faults(data) or isinstance(parse_policy(data), Policy)


def test_the_published_schema_is_the_one_that_the_code_makes(project_root: Path) -> None:
    published = json.loads((project_root / "protocol" / "policy.schema.json").read_text())
    assert published == policy_json_schema(), "run: python -m cardcage.policy.json_schema > protocol/policy.schema.json"
