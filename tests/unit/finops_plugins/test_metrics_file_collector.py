"""The metrics collector: three forms of file, percentiles, and nothing lost in silence."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cardcage_finops.interfaces import MetricsCollectorPlugin
from cardcage_finops.models import MetricBatch, MetricSample, MetricSummary

if TYPE_CHECKING:
    from .conftest import Shipped


@pytest.fixture
def collector(shipped: Shipped, tmp_path: Path) -> Collector:
    return Collector(shipped, tmp_path / "metrics.csv")


class Collector:
    """Writes a metrics file and reads it with the plugin, in this process."""

    def __init__(self, shipped: Shipped, path: Path) -> None:
        self.shipped = shipped
        self.path = path

    def over(self, text: str) -> MetricsCollectorPlugin:
        self.path.write_text(text, "utf-8")
        return self.shipped.make("metrics-file-collector", MetricsCollectorPlugin, {"file": str(self.path)})

    def summaries(self, text: str) -> dict[str, dict[str, float]]:
        return {one.resource_id: one.values for one in self.over(text).summarize([])}


WIDE = """time,resource_id,cpu_usage,requests
2025-01-01T00:00:00Z,a,10,
2025-01-01T01:00:00Z,a,30.5,
2025-01-02,b,,7
"""
LONG = """timestamp,ResourceId,metric,value
2025-01-01T00:00:00Z,a,cpu_usage,10
2025-01-01T01:00:00Z,a,cpu_usage,30.5
2025-01-02,b,requests,7
"""
LINES = """{"time": "2025-01-01T00:00:00Z", "resource_id": "a", "cpu_usage": 10}
{"time": "2025-01-01T01:00:00Z", "resource_id": "a", "metric": "cpu_usage", "value": 30.5}
{"time": "2025-01-02", "resource_id": "b", "requests": 7, "cpu_usage": null}
"""


@pytest.mark.parametrize("text", [WIDE, LONG, LINES])
def test_all_forms_of_a_file_say_the_same(collector: Collector, text: str) -> None:
    (batch,) = collector.over(text).collect([], [])
    assert batch == MetricBatch(
        samples=[
            MetricSample(resource_id="a", name="cpu_usage", time="2025-01-01T00:00:00Z", value=10.0),
            MetricSample(resource_id="a", name="cpu_usage", time="2025-01-01T01:00:00Z", value=30.5),
            MetricSample(resource_id="b", name="requests", time="2025-01-02T00:00:00Z", value=7.0),
        ]
    )


def test_samples_can_be_asked_for_by_resource_and_name(collector: Collector) -> None:
    plugin = collector.over(WIDE)
    assert [one.value for batch in plugin.collect(["b"], []) for one in batch.samples] == [7.0]
    assert [one.value for batch in plugin.collect([], ["requests"]) for one in batch.samples] == [7.0]
    assert list(plugin.collect(["c"], [])) == []


def test_a_summary_has_mean_greatest_counts_and_percentiles_of_percentages(collector: Collector) -> None:
    found = collector.summaries(WIDE)
    assert found["a"] == {
        "cpu_usage": 20.25,
        "cpu_usage_max": 30.5,
        "cpu_usage_samples": 2.0,
        "cpu_usage_days": 1.0,
        "cpu_usage_p50": 10.0,
        "cpu_usage_p95": 30.5,
        "cpu_usage_p99_5": 30.5,
    }
    assert found["b"] == {"requests": 7.0, "requests_max": 7.0, "requests_samples": 1.0, "requests_days": 1.0}


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_percentiles_are_those_of_nearest_rank_rounded_up(collector: Collector, values: list[float]) -> None:
    rows = [f"2025-01-01T00:00:00Z,a,{value!r}" for value in values]
    found = collector.summaries("\n".join(["time,resource_id,cpu_peak", *rows]))["a"]
    for label, share in {"p50": 0.5, "p95": 0.95, "p99_5": 0.995}.items():
        exact = sorted(values)[math.ceil(share * len(values)) - 1]
        assert exact - 1e-6 <= found[f"cpu_peak_{label}"] <= exact + 0.1


def test_rows_that_cannot_be_read_are_refused_with_their_numbers(collector: Collector) -> None:
    text = WIDE + "yesterday,a,1,\n2025-01-01,,1,\n2025-01-01,a,much,\n2025-01-01,a,1\n2025-01-01,a,nan,\n"
    (batch,) = collector.over(text).collect([], [])
    assert [(one.row, one.column, one.code) for one in batch.issues] == [
        (4, "time", "bad_date"),
        (5, "resource_id", "missing_value"),
        (6, "cpu_usage", "bad_number"),
        (7, "", "wrong_width"),
        (8, "cpu_usage", "bad_number"),
    ]
    summaries = list(collector.over(text).summarize([]))
    assert [len(one.issues) for one in summaries] == [5, 0]


def test_issues_are_told_though_no_row_is_good(collector: Collector) -> None:
    (found,) = collector.over("time,resource_id,cpu_usage\nx,a,1\n").summarize([])
    assert (found.resource_id, len(found.issues)) == ("", 1)


def test_gzip_and_byte_order_marks_make_no_difference(collector: Collector) -> None:
    plugin = collector.over("")
    collector.path.write_bytes(gzip.compress(("\ufeff" + WIDE).encode()))
    assert [one.resource_id for one in plugin.summarize([])] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is empty"),
        ("resource_id,cpu_usage\n", "has no column time; found the columns resource_id, cpu_usage"),
        ("time,cpu_usage\n", "has no column resource_id"),
        ("time,resource_id\n", "has no metric"),
    ],
)
def test_what_is_no_metrics_file_is_refused_in_one_sentence(collector: Collector, text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        list(collector.over(text).summarize([]))


def test_a_file_that_is_not_there_is_named(shipped: Shipped, tmp_path: Path) -> None:
    plugin = shipped.make("metrics-file-collector", MetricsCollectorPlugin, {"file": str(tmp_path / "none")})
    with pytest.raises(ValueError, match=r"cannot read the metrics file .*: No such file"):
        list(plugin.summarize([]))


def test_a_served_collector_gives_the_same_as_an_imported_one(
    shipped: Shipped, collector: Collector, tmp_path: Path
) -> None:
    rows = [json.dumps({"time": "2025-01-01", "resource_id": f"r{n}", "cpu_usage": n}) for n in range(50)]
    plugin = collector.over("\n".join(rows))
    with shipped.serve("metrics-file-collector", {"file": str(collector.path)}, tmp_path) as served:
        assert served.stream(MetricSummary, "summarize", []) == list(plugin.summarize([]))
        assert served.stream(MetricBatch, "collect", [], ["cpu_usage"]) == list(plugin.collect([], ["cpu_usage"]))


def test_blank_lines_above_the_header_are_passed_over(collector: Collector) -> None:
    assert set(collector.summaries("\n \n" + WIDE)) == {"a", "b"}


def test_a_column_that_stands_there_twice_is_one_error(collector: Collector) -> None:
    with pytest.raises(ValueError, match="column cpu_usage twice"):
        collector.summaries("time,resource_id,cpu_usage,cpu_usage\n2025-01-01,a,1,2\n")


def test_a_line_of_json_nested_too_deep_costs_only_that_line(collector: Collector) -> None:
    line = json.dumps({"time": "2025-01-01", "resource_id": "a", "cpu_usage": 5})
    assert set(collector.summaries(f"{line}\n{'[' * 100_000}\n{line}\n")) == {"a"}


def test_a_broken_gzip_file_is_told_with_its_name(collector: Collector) -> None:
    made = collector.over(WIDE)
    collector.path.write_bytes(b"\x1f\x8b\x08\x00" + b"no gzip at all, though it begins like one")
    with pytest.raises(ValueError, match=r"metrics\.csv"):
        list(made.summarize([]))
