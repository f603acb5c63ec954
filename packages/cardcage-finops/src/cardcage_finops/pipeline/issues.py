"""What was wrong with a bill: every problem is counted by kind, the first of each kind are kept with their row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from cardcage_finops.models import RowIssue

LISTED_PER_KIND_MAX: Final = 50
"""Enough to see the pattern; the counts stay exact whatever the number."""

KINDS_MAX: Final = 100
"""Kinds are words that plugins choose. What comes after the hundredth kind is counted as `other`."""

OTHER_KIND: Final = "other"
TEXT_CHARS_MAX: Final = 500
"""A plugin's sentence about a row may quote the row, and rows have no bound of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IssueCount:
    """How many issues of one kind were met, and what was done about them."""

    code: str
    action: str
    count: int


@dataclass(slots=True)
class IssueLog:
    """Gathers issues in bounded memory: at most `KINDS_MAX` kinds with `LISTED_PER_KIND_MAX` listed each."""

    _counts: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    _listed: list[RowIssue] = field(default_factory=list[RowIssue])

    def add(self, issue: RowIssue) -> None:
        """Count `issue`, and keep it where its kind has room."""
        kind = (issue.code, issue.action)
        if kind not in self._counts and len(self._counts) >= KINDS_MAX:
            kind = (OTHER_KIND, issue.action)
        seen = self._counts.get(kind, 0)
        self._counts[kind] = seen + 1
        if seen < LISTED_PER_KIND_MAX:
            self._listed.append(_shortened(issue))

    def extend(self, issues: Iterable[RowIssue]) -> None:
        """`add` each."""
        for issue in issues:
            self.add(issue)

    @property
    def total(self) -> int:
        """Every issue met, listed or not."""
        return sum(self._counts.values())

    def counts(self) -> list[IssueCount]:
        """The kinds met, the most frequent first."""
        found = [IssueCount(code=code, action=action, count=n) for (code, action), n in self._counts.items()]
        return sorted(found, key=lambda one: (-one.count, one.code, one.action))

    def listed(self) -> list[RowIssue]:
        """The issues kept, by row."""
        return sorted(self._listed, key=lambda issue: (issue.row, issue.column, issue.code))


def _shortened(issue: RowIssue) -> RowIssue:
    if len(issue.message) <= TEXT_CHARS_MAX and len(issue.column) <= TEXT_CHARS_MAX and len(issue.code) <= 100:
        return issue
    return RowIssue(
        row=issue.row,
        column=issue.column[:TEXT_CHARS_MAX],
        code=issue.code[:100],
        message=issue.message[:TEXT_CHARS_MAX],
        action=issue.action,
    )
