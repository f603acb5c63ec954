"""docs/reference/audit.md says what the code does."""

from __future__ import annotations

import ast
import inspect
import os
import re
from pathlib import Path

from cardcage.audit import actions
from cardcage.audit.actions import Action
from cardcage.audit.chain import LINE_BYTES_MAX, Entry
from cardcage.audit.intake import INSTANCE_EVENTS_MAX, QUEUE_EVENTS_MAX
from cardcage.audit.repeats import LINES_BURST, LINES_PER_S, SAME_MAX, WINDOW_S
from cardcage.audit.sink import LogLimits


def meanings() -> dict[str, str]:
    """Each action with the sentence beneath it in the source."""
    (found,) = [
        node
        for node in ast.parse(inspect.getsource(actions)).body
        if isinstance(node, ast.ClassDef) and node.name == "Action"
    ]
    told: dict[str, str] = {}
    for before, after in zip(found.body, found.body[1:], strict=False):
        if isinstance(before, ast.Assign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            (target,) = before.targets
            assert isinstance(target, ast.Name)
            told[str(Action[target.id])] = " ".join(str(after.value.value).split())
    return told


def test_every_action_is_explained() -> None:
    assert meanings().keys() == {str(action) for action in Action}


def test_every_action_is_recorded_somewhere(project_root: Path) -> None:
    sources = project_root.glob("packages/cardcage/src/cardcage/**/*.py")
    text = "\n".join(path.read_text() for path in sources if path.name != "actions.py")
    recorded = set(re.findall(r"\b(?:Action|Act)\.([A-Z_]+)", text))
    assert [action.name for action in Action if action.name not in recorded] == []


def test_the_table_of_actions_is_that_of_the_code(project_root: Path) -> None:
    path = project_root / "docs" / "reference" / "audit.md"
    pattern = re.compile(r"(<!-- actions: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
    rows = "\n".join(f"| `{action}` | {meaning} |" for action, meaning in meanings().items())
    wanted = f"| action | what it tells |\n|---|---|\n{rows}\n"
    text = path.read_text()
    if os.environ.get("CARDCAGE_WRITE_DOCS"):
        text = pattern.sub(lambda match: match[1] + wanted + match[3], text)
        path.write_text(text)
    found = pattern.search(text)
    assert found is not None
    assert found[2] == wanted, "run: CARDCAGE_WRITE_DOCS=1 pytest tests/unit/audit/test_reference.py"


def test_the_keys_of_a_line_are_told_in_their_order(project_root: Path) -> None:
    page = (project_root / "docs" / "reference" / "audit.md").read_text()
    table = page.split("## A line")[1].split("hash = SHA-256")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    assert re.findall(r"`(\w+)`", " ".join(rows)) == [*Entry.__struct_fields__, "hash"]


def test_the_numbers_in_the_reference_are_those_of_the_code(project_root: Path) -> None:
    page = " ".join((project_root / "docs" / "reference" / "audit.md").read_text().split())
    limits = LogLimits()
    for sentence in (
        f"files of {limits.segment_bytes // 2**20} MiB",
        f"at most {limits.segments} |",
        f"after {limits.checkpoint_lines} lines, after {limits.checkpoint_s:g} seconds",
        f"at most {LINE_BYTES_MAX // 1024} KiB",
        f"At most {QUEUE_EVENTS_MAX:,} events wait, {INSTANCE_EVENTS_MAX:,} of one instance",
        f"more than {SAME_MAX} times in a second",
        f"is written {LINES_BURST} times at once and {LINES_PER_S} times a second",
    ):
        assert sentence in page
    assert (WINDOW_S, limits.sync_s) == (1.0, 1.0)
