"""The JSON of an analysis."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from cardcage_finops.pipeline.result import Analysis
from cardcage_finops.report.document import analysis_json


def _read(analysis: Analysis) -> dict[str, Any]:
    return json.loads(analysis_json(analysis))


def test_the_document_has_the_promised_shape(analysis: Analysis) -> None:
    document = _read(analysis)
    assert document["rows"] == {"read": 121, "taken": 120, "corrected": 2, "refused": 1}
    assert set(document["totals"]) == {"billed", "effective", "list", "contracted"}
    assert {"service", "account", "day"} <= set(document["by"])
    for rows in document["by"].values():
        assert all(set(row) == {"key", "billed", "effective"} for row in rows)
    assert {"name", "version", "isolation", "seconds"} <= set(document["plugins"][0])
    assert {"anomalies", "recommendations", "policies", "currency", "issues", "period", "warnings"} <= set(document)


def test_amounts_are_decimal_strings_that_add_up_to_the_last_digit(analysis: Analysis) -> None:
    document = _read(analysis)
    total = Decimal(document["totals"]["billed"])
    assert total == sum(
        (
            round(Decimal(30 - 9 * at) * (3 if at == 0 and day in (19, 20) else 1) + Decimal(day) / 7, 10)
            for day in range(40)
            for at in range(3)
        ),
        Decimal(0),
    )
    for rows in document["by"].values():
        assert sum(Decimal(row["billed"]) for row in rows) == total
        assert not any("e" in (row["billed"] + row["effective"]).lower() for row in rows)
    assert document["monthly_savings"] == "321.5"
    assert document["recommendations"][0]["estimated_savings"] == "21.5"
    assert document["anomalies"][0]["impact"] == "120.4"


def test_a_recommendation_stands_with_its_alternatives_and_its_resource(analysis: Analysis) -> None:
    first = _read(analysis)["recommendations"][0]
    assert (first["action"], [other["action"] for other in first["alternatives"]]) == ("stop", ["downsize"])
    assert first["resource"]["service"] == "Amazon Elastic Compute Cloud"


def test_currencies_stand_side_by_side_with_the_main_one_at_the_top(make_analysis: Callable[..., Analysis]) -> None:
    document = _read(make_analysis("USD", "EUR"))
    assert [one["currency"] for one in document["currencies"]] == ["USD", "EUR"]
    assert document["currencies"][0]["totals"] == document["totals"]
    assert document["currencies"][1]["totals"] != document["totals"]


def test_nothing_in_the_text_can_drive_a_terminal_and_names_are_kept_whole(analysis: Analysis, hostile: str) -> None:
    text = analysis_json(analysis)
    assert text.isascii()
    assert all(char == "\n" or char.isprintable() for char in text)
    assert any(row["key"] == hostile for row in _read(analysis)["by"]["service"])
