"""The reference page of policies says what the code does: its tables are written from it.

Run with `CARDCAGE_WRITE_DOCS=1` to write the tables anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

import pytest

from cardcage.policy import LEVELS, Conditions, Effects, Level, parse_policy, policy_faults
from cardcage.policy.keys import CONDITION_KEYS, EFFECT_KEYS, RULE_KEYS, TOP_KEYS, PolicyKey
from cardcage.policy.model import Policy
from cardcage.policy.parse import RULE_KEYS as READ_RULE_KEYS
from cardcage.policy.parse import TOP_KEYS as READ_TOP_KEYS
from cardcage.policy.spelling import conditions_document, effects_document


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *(tuple(cell.replace("|", "\\|") for cell in row) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def key_table(keys: Iterable[PolicyKey]) -> str:
    return table(
        ("key", "what it means", "takes", "example"),
        ((f"`{key.name}`", key.help, key.takes, f"`{key.example}`") for key in keys),
    )


def words(document: dict[str, object]) -> str:
    return "; ".join(f"`{key}`: {_value(value)}" for key, value in document.items()) or "always"


def _value(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())  # pyright: ignore[reportUnknownVariableType]
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value).lower()  # pyright: ignore


def level_table(level: Level) -> str:
    return table(
        ("rule", "when", "then"),
        (
            (f"`{rule.name}`", words(conditions_document(rule.when)), words(effects_document(rule.then)))
            for rule in LEVELS[level]
        ),
    )


TABLES = {
    "file": key_table(TOP_KEYS),
    "rule": key_table(RULE_KEYS),
    "conditions": key_table(CONDITION_KEYS),
    "effects": key_table(EFFECT_KEYS),
    **{level.value: level_table(level) for level in Level},
}


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_of_the_page_are_those_of_the_code(project_root: Path, name: str) -> None:
    path = project_root / "docs" / "reference" / "policy.md"
    pattern = re.compile(rf"(<!-- {name}: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
    text, wanted = path.read_text(), TABLES[name] + "\n"
    if os.environ.get("CARDCAGE_WRITE_DOCS"):
        text = pattern.sub(lambda match: match[1] + wanted + match[3], text)
        path.write_text(text)
    found = pattern.search(text)
    assert found is not None
    assert found[2] == wanted, "run: CARDCAGE_WRITE_DOCS=1 pytest tests/unit/policy/test_reference_page.py"


def test_the_tables_name_every_key_that_is_read() -> None:
    assert tuple(key.name for key in TOP_KEYS) == READ_TOP_KEYS
    assert tuple(key.name for key in RULE_KEYS) == READ_RULE_KEYS
    assert [key.name for key in CONDITION_KEYS] == list(Conditions.__dataclass_fields__)
    assert [key.name for key in EFFECT_KEYS] == list(Effects.__dataclass_fields__)
    assert get_args(Policy.__annotations__["default"]) or TOP_KEYS[1].name == "default"


@pytest.mark.parametrize("key", CONDITION_KEYS, ids=lambda key: key.name)
def test_the_example_of_each_condition_is_accepted(key: PolicyKey) -> None:
    assert parse_policy(f"rules: [{{when: {{{key.name}: {key.example}}}, then: {{deny: true}}}}]")


@pytest.mark.parametrize("key", EFFECT_KEYS, ids=lambda key: key.name)
def test_the_example_of_each_effect_is_accepted(key: PolicyKey) -> None:
    assert parse_policy(f"rules: [{{then: {{{key.name}: {key.example}}}}}]")


def test_every_policy_in_the_documents_is_one(project_root: Path) -> None:
    shown = 0
    for document in (project_root / "docs").glob("**/*.md"):
        for block in re.findall(r"^```yaml\n(.*?)^```", document.read_text(), flags=re.DOTALL | re.MULTILINE):
            if re.search(r"^(level|rules|default):", block, flags=re.MULTILINE):
                assert policy_faults(block) == (), document
                shown += 1
    assert shown == 4
