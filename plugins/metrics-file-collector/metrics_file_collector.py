"""A metrics collector that reads one file: CSV, wide or long, or JSON lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from metrics_rows import read_rows
from metrics_statistics import ResourceStatistics

from cardcage_finops.interfaces import MetricsCollectorPlugin
from cardcage_finops.models import MetricBatch, MetricSample, MetricSummary, RowIssue

SAMPLES_PER_BATCH = 5000
ISSUES_MAX = 1000
"""Issues told one by one; a file with more is told to have more."""


class MetricsFileCollector(MetricsCollectorPlugin):
    """Reads the file that the config names as `file`."""

    def load(self, config: dict[str, Any]) -> None:
        """Remember which file to read."""
        self.path = str(config["file"])

    def collect(self, resource_ids: list[str], names: list[str]) -> Iterator[MetricBatch]:
        """Stream the samples of these resources and metrics, in the file's order."""
        wanted_ids, wanted_names = frozenset(resource_ids), frozenset(names)
        samples: list[MetricSample] = []
        issues: list[RowIssue] = []
        for row in read_rows(self.path):
            if isinstance(row, RowIssue):
                issues.append(row)
            elif not wanted_ids or row.resource_id in wanted_ids:
                samples.extend(
                    MetricSample(resource_id=row.resource_id, name=name, time=row.time, value=value)
                    for name, value in row.values.items()
                    if not wanted_names or name in wanted_names
                )
            if len(samples) >= SAMPLES_PER_BATCH or len(issues) >= ISSUES_MAX:
                yield MetricBatch(samples=samples, issues=issues)
                samples, issues = [], []
        if samples or issues:
            yield MetricBatch(samples=samples, issues=issues)

    def summarize(self, resource_ids: list[str]) -> Iterator[MetricSummary]:
        """One summary a resource, in the order in which the file first names them.

        What was wrong with the file comes with the first summary; a file with issues but no good row gives one summary
        with an empty id.
        """
        wanted = frozenset(resource_ids)
        found: dict[str, ResourceStatistics] = {}
        issues: list[RowIssue] = []
        for row in read_rows(self.path):
            if isinstance(row, RowIssue):
                issues.append(row)
            elif not wanted or row.resource_id in wanted:
                found.setdefault(row.resource_id, ResourceStatistics()).add(row)
        told = _bounded(issues)
        if told and not found:
            yield MetricSummary(resource_id="", values={}, issues=told)
        for resource_id, statistics in found.items():
            yield MetricSummary(resource_id=resource_id, values=statistics.summary(), issues=told)
            told = []


def _bounded(issues: list[RowIssue]) -> list[RowIssue]:
    if len(issues) <= ISSUES_MAX:
        return issues
    message = f"and {len(issues) - ISSUES_MAX} more rows up to row {issues[-1].row}"
    more = RowIssue(row=issues[ISSUES_MAX].row, column="", code="more", message=message, action="refused")
    return [*issues[:ISSUES_MAX], more]
