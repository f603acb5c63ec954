"""`cardcage finops` as an operator runs it: real command, real plugins behind their walls, real and broken bills."""

from __future__ import annotations

import csv
import gzip
import http.server
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest

Finops = Callable[..., "Outcome"]

HEADER = (
    "BilledCost",
    "EffectiveCost",
    "ListCost",
    "ContractedCost",
    "BillingCurrency",
    "ChargePeriodStart",
    "ChargePeriodEnd",
    "ServiceName",
    "SubAccountId",
    "ResourceId",
    "ChargeCategory",
)


class Outcome:
    """How a command ended."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.out = done.stdout
        self.err = done.stderr

    @property
    def document(self) -> dict[str, Any]:
        """What it printed, as JSON."""
        assert self.out, self.err
        return json.loads(self.out)


@pytest.fixture
def finops(tmp_path: Path) -> Finops:
    """Runs `cardcage finops ...` in an empty folder."""

    def run(*words: str | Path) -> Outcome:
        environment = {**os.environ, "COLUMNS": "160"}
        command = [sys.executable, "-m", "cardcage.cli", "finops", *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=tmp_path, env=environment, timeout=110, check=False
        )
        return Outcome(done)

    return run


def _row(billed: str = "1", **more: str) -> list[str]:
    values = {
        "BilledCost": billed,
        "EffectiveCost": billed,
        "ListCost": billed,
        "ContractedCost": billed,
        "BillingCurrency": "USD",
        "ChargePeriodStart": "2024-09-01T00:00:00Z",
        "ChargePeriodEnd": "2024-09-01T01:00:00Z",
        "ServiceName": "Compute",
        "SubAccountId": "a1",
        "ResourceId": "i-1",
        "ChargeCategory": "Usage",
        **more,
    }
    return [values[name] for name in HEADER]


def _write_bill(path: Path, rows: Sequence[list[str]], encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as stream:
        csv.writer(stream).writerows([list(HEADER), *rows])
    return path


def _sums(rows: Sequence[dict[str, str]], key: Callable[[dict[str, str]], str], cost: str) -> dict[str, Decimal]:
    """Sums that have nothing to do with the project's own."""
    found: defaultdict[str, Decimal] = defaultdict(Decimal)
    for row in rows:
        text = row[cost]
        found[key(row)] += Decimal(0) if text in ("", "NULL") else Decimal(text)
    return dict(found)


def _by(document: dict[str, Any], dimension: str, cost: str) -> dict[str, Decimal]:
    return {row["key"]: Decimal(row[cost]) for row in document["by"][dimension]}


# totals -----------------------------------------------------------------------------------------------------------


def test_the_totals_of_the_focus_sample_are_its_own_to_the_last_digit(finops: Finops, shared_data: Path) -> None:
    bill = shared_data / "focus_1.0_official_sample_1000.csv"
    with bill.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    outcome = finops("analyze", bill, "--json")
    assert outcome.status == 0, outcome.err
    document = outcome.document
    assert document["rows"]["read"] == document["rows"]["taken"] == len(rows) == 1000
    names = {"billed": "BilledCost", "effective": "EffectiveCost", "list": "ListCost", "contracted": "ContractedCost"}
    for name, column in names.items():
        assert Decimal(document["totals"][name]) == sum(_sums(rows, lambda _: "", column).values()), name
    keys: dict[str, Callable[[dict[str, str]], str]] = {
        "service": lambda row: row["ServiceName"],
        "account": lambda row: (
            row["SubAccountId"] if row["SubAccountId"] not in ("", "NULL") else row["BillingAccountId"]
        ),
        "day": lambda row: row["ChargePeriodStart"][:10],
    }
    for dimension, key in keys.items():
        assert _by(document, dimension, "billed") == _sums(rows, key, "BilledCost")
        assert _by(document, dimension, "effective") == _sums(rows, key, "EffectiveCost")


def test_the_totals_of_the_aws_report_are_its_own_to_the_last_digit(finops: Finops, shared_data: Path) -> None:
    bill = shared_data / "aws_cur_anonymous_1281.csv"
    with bill.open(newline="", encoding="utf-8-sig") as stream:
        rows = list(csv.DictReader(stream))
    outcome = finops("analyze", bill, "--json")
    assert outcome.status == 0, outcome.err
    document = outcome.document
    assert document["rows"]["read"] == document["rows"]["taken"] == len(rows) == 1281
    assert document["totals"]["billed"] == "1.6823086974"
    cost = "lineItem/UnblendedCost"
    assert _by(document, "account", "billed") == _sums(rows, lambda row: row["lineItem/UsageAccountId"], cost)
    assert _by(document, "day", "billed") == _sums(rows, lambda row: row["lineItem/UsageStartDate"][:10], cost)
    assert _by(document, "service", "billed") == _sums(rows, lambda row: row["lineItem/ProductCode"], cost)
    names = {row["lineItem/ProductCode"]: row["product/ProductName"] for row in rows}
    assert document["services"] == names
    assert next(one for one in document["plugins"] if one["role"] == "cost source")["name"] == "aws-cur-cost-source"


def test_a_generated_estate_is_analysed_to_what_its_truth_says(finops: Finops, tmp_path: Path) -> None:
    made = finops("sample", tmp_path / "estate", "--resources", "30", "--days", "45", "--seed", "11", "--json")
    assert made.status == 0, made.err
    truth = json.loads((tmp_path / "estate" / "truth.json").read_text())
    page = tmp_path / "report.html"
    bill, metrics = tmp_path / "estate" / "bill.csv", tmp_path / "estate" / "metrics.csv"
    outcome = finops("analyze", bill, "--metrics", metrics, "--json", "--html", page)
    assert outcome.status == 0, outcome.err
    document = outcome.document
    assert document["rows"] == {"read": truth["rows"], "taken": truth["rows"], "corrected": 0, "refused": 0}
    assert document["totals"] == truth["totals"]
    for dimension in ("service", "account", "day"):
        for cost in ("billed", "effective"):
            expected = {key: Decimal(costs[cost]) for key, costs in truth["by"][dimension].items()}
            assert _by(document, dimension, cost) == expected
    named = {one["resource_id"] for one in document["recommendations"]}
    assert {one["resource_id"] for one in truth["idle"] + truth["oversized"]} <= named
    assert {one["isolation"] for one in document["plugins"]} == {"process"}
    assert page.read_text().startswith("<!doctype html>")


def test_a_gzipped_bill_counts_as_the_same_bill(finops: Finops, tmp_path: Path) -> None:
    plain = _write_bill(tmp_path / "bill.csv", [_row("1.25"), _row("2")])
    packed = tmp_path / "bill.csv.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert finops("analyze", packed, "--json").document["totals"]["billed"] == "3.25"


# dirty bills ------------------------------------------------------------------------------------------------------


def test_every_row_of_a_dirty_bill_is_taken_corrected_or_refused_with_its_number(
    finops: Finops, tmp_path: Path
) -> None:
    rows = [
        _row("10"),
        _row("-4", ChargeCategory="Credit"),
        _row("NULL"),
        _row("12,5"),
        _row("1,234.50"),
        _row("1", ChargePeriodStart="yesterday"),
        _row("1", SubAccountId="NULL"),
        [*_row("1"), "surplus"],
    ]
    outcome = finops("analyze", _write_bill(tmp_path / "bill.csv", rows, "utf-8-sig"), "--json")
    assert outcome.status == 0, outcome.err
    document = outcome.document
    counts = document["rows"]
    assert counts["read"] == 8 == counts["taken"] + counts["refused"]
    assert counts["corrected"] >= 1
    refused = {one["row"]: one["code"] for one in document["issues"]["listed"] if one["action"] == "refused"}
    assert {4, 6, 8} <= set(refused)
    assert counts["refused"] == len(refused)
    assert "byte_order_mark" in {one["code"] for one in document["issues"]["counts"]}
    taken = Decimal(10) - 4 + Decimal("1234.50") + 1
    assert Decimal(document["totals"]["billed"]) == taken


def test_currencies_are_kept_apart(finops: Finops, tmp_path: Path) -> None:
    rows = [_row("10"), _row("7", BillingCurrency="EUR"), _row("2")]
    bill = _write_bill(tmp_path / "bill.csv", rows)
    document = finops("analyze", bill, "--json").document
    assert (document["currency"], document["totals"]["billed"]) == ("USD", "12")
    assert {one["currency"]: one["totals"]["billed"] for one in document["currencies"]} == {"USD": "12", "EUR": "7"}
    assert "never added together" in finops("analyze", bill).out


def test_a_bill_with_a_header_and_no_row_is_an_empty_report(finops: Finops, tmp_path: Path) -> None:
    bill = _write_bill(tmp_path / "bill.csv", [])
    outcome = finops("analyze", bill, "--json", "--html", tmp_path / "page.html")
    assert outcome.status == 0, outcome.err
    assert outcome.document["rows"] == {"read": 0, "taken": 0, "corrected": 0, "refused": 0}
    assert finops("analyze", bill).status == 0


def test_what_a_bill_says_can_not_drive_the_terminal(finops: Finops, tmp_path: Path) -> None:
    bill = _write_bill(tmp_path / "bill.csv", [_row("1", ServiceName="\x1b]0;owned\x07[bold red]x[/] \u202eyz")])
    outcome = finops("analyze", bill)
    assert outcome.status == 0, outcome.err
    assert "\\x1b]0;owned\\x07[bold red]x[/] \\u202eyz" in outcome.out
    assert all(char == "\n" or char.isprintable() for char in outcome.out)


# bills that are none ----------------------------------------------------------------------------------------------


def _leave_out(path: Path) -> None:
    assert not path.exists()


NO_BILLS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (_leave_out, "cannot be read: No such file"),
    "folder": (Path.mkdir, "is a folder"),
    "empty": (Path.touch, "is empty"),
    "binary": (lambda path: path.write_bytes(bytes(range(256)) * 40), "no cost source can read the bill"),
    "unknown format": (lambda path: path.write_text("name,colour\nrose,red\n"), "no cost source can read the bill"),
    "broken gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08broken"), "no cost source can read the bill"),
    "JSON": (lambda path: path.write_text('{"not": "csv"}\n'), "no cost source can read the bill"),
}


@pytest.mark.parametrize("kind", NO_BILLS)
def test_what_is_no_bill_is_told_in_one_sentence_with_a_hint(finops: Finops, tmp_path: Path, kind: str) -> None:
    make, sentence = NO_BILLS[kind]
    bill = tmp_path / "bill.csv"
    make(bill)
    outcome = finops("analyze", bill)
    assert outcome.status == 2
    assert outcome.out == ""
    lines = outcome.err.splitlines()
    assert sentence in lines[0]
    assert lines[-1].startswith("hint: ") or sentence == "is empty"
    assert "Traceback" not in outcome.err
    error = finops("analyze", bill, "--json").document["error"]
    assert sentence in error["message"]
    assert error["code"] in ("file_unreadable", "file_empty", "bill_unrecognised")


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--metrics", "none.csv"], "file_unreadable"),
        (["--budget", "lots"], "budget_invalid"),
        (["--notify", "pigeon:x"], "target_invalid"),
        (["--notify", "file:/nowhere/at/all/x"], "target_unwritable"),
        (["--html", "/nowhere/at/all/x.html"], "report_unwritable"),
        (["--plugins", "nowhere"], "plugins_missing"),
        (["--grant", "everything"], "grant_invalid"),
        (["--detector", "guess"], "usage"),
    ],
)
def test_a_wrong_option_is_told_before_anything_is_done(
    finops: Finops, tmp_path: Path, words: list[str], code: str
) -> None:
    bill = _write_bill(tmp_path / "bill.csv", [_row()])
    outcome = finops("analyze", bill, "--json", *words)
    assert outcome.status == 2
    assert outcome.document["error"]["code"] == code


# plugins ----------------------------------------------------------------------------------------------------------


def _write_plugin(folder: Path, name: str, manifest: str, code: str) -> None:
    place = folder / name
    place.mkdir(parents=True)
    module = name.replace("-", "_")
    (place / "plugin.yaml").write_text(f"name: {name}\nversion: 1.0.0\nentrypoint: {module}:Main\n{manifest}")
    (place / f"{module}.py").write_text(textwrap.dedent(code))


def test_an_optimizer_that_fails_is_in_the_report_and_the_others_go_on(finops: Finops, tmp_path: Path) -> None:
    code = """
        from cardcage_finops.interfaces import OptimizerPluginBase

        class Main(OptimizerPluginBase):
            def analyze(self, resource, metrics):
                raise RuntimeError("out of ideas")
    """
    _write_plugin(tmp_path / "own", "broken-optimizer", "type: optimizer\n", code)
    outcome = finops(
        "analyze", _write_bill(tmp_path / "bill.csv", [_row("5")]), "--json", "--plugins", tmp_path / "own"
    )
    assert outcome.status == 1
    document = outcome.document
    errors = {one["name"]: one["error"] for one in document["plugins"] if one["error"]}
    assert set(errors) == {"broken-optimizer"}
    assert "out of ideas" in errors["broken-optimizer"]
    assert document["totals"]["billed"] == "5"


def test_an_optimizer_of_one_s_own_takes_part_and_can_not_promise_more_than_a_resource_costs(
    finops: Finops, tmp_path: Path
) -> None:
    code = """
        from cardcage_finops.interfaces import OptimizerPluginBase
        from cardcage_finops.models import OptimizationRecommendation

        class Main(OptimizerPluginBase):
            def analyze(self, resource, metrics):
                cost = resource.monthly_cost
                modest = OptimizationRecommendation(
                    resource_id=resource.id, estimated_savings=cost / 2, confidence=0.7, action="shrink"
                )
                absurd = OptimizationRecommendation(
                    resource_id=resource.id, estimated_savings=cost * 9, confidence=1.0, action="vanish"
                )
                return [modest, absurd]
    """
    _write_plugin(tmp_path / "own", "own-optimizer", "type: optimizer\n", code)
    bill = _write_bill(tmp_path / "bill.csv", [_row("5")])
    outcome = finops("analyze", bill, "--json", "--plugins", tmp_path / "own")
    assert outcome.status == 0, outcome.err
    (found,) = outcome.document["recommendations"]
    assert (found["action"], found["source"], found["estimated_savings"]) == ("shrink", "own-optimizer", "75")
    assert any("would save" in warning and "own-optimizer" in warning for warning in outcome.document["warnings"])


def test_a_plugin_without_its_grant_does_not_run_and_with_it_does(finops: Finops, tmp_path: Path) -> None:
    code = """
        from cardcage_finops.interfaces import OptimizerPluginBase

        class Main(OptimizerPluginBase):
            def analyze(self, resource, metrics):
                return []
    """
    manifest = "type: optimizer\npermissions: [ReadInstanceMetrics]\n"
    _write_plugin(tmp_path / "own", "asking-optimizer", manifest, code)
    bill = _write_bill(tmp_path / "bill.csv", [_row("5")])
    words = ["analyze", bill, "--json", "--plugins", tmp_path / "own"]
    without = finops(*words)
    assert without.status == 1
    (error,) = [one for one in without.document["plugins"] if one["error"]]
    assert (error["name"], error["error_code"]) == ("asking-optimizer", "permission_missing")
    granted = finops(*words, "--grant", "asking-optimizer=capability:ReadInstanceMetrics")
    assert granted.status == 0, granted.out


def test_a_plugin_of_the_hook_chain_sees_the_analysis_and_raises_an_alert(finops: Finops, tmp_path: Path) -> None:
    code = """
        from cardcage_finops.hooks import hook, trigger_alert
        from cardcage_sdk import Plugin

        class Main(Plugin):
            @hook("post_cost_analysis")
            def watch(self, context):
                if context.daily_spike > 0.25:
                    trigger_alert("CostSpikeDetected", growth=context.daily_spike)
    """
    _write_plugin(tmp_path / "own", "spike-watcher", "permissions: [AlertManagement]\n", code)
    rows = [_row("100"), _row("150", ChargePeriodStart="2024-09-02T00:00:00Z", ChargePeriodEnd="2024-09-02T01:00:00Z")]
    bill = _write_bill(tmp_path / "bill.csv", rows)
    grant = "spike-watcher=capability:AlertManagement"
    outcome = finops("analyze", bill, "--json", "--plugins", tmp_path / "own", "--grant", grant)
    assert outcome.status == 0, outcome.err
    (alert,) = outcome.document["alerts"]
    assert (alert["name"], alert["source"], alert["details"]) == (
        "CostSpikeDetected",
        "spike-watcher",
        {"growth": "0.5"},
    )


def test_a_package_that_is_no_plugin_is_an_error_at_once(finops: Finops, tmp_path: Path) -> None:
    (tmp_path / "own" / "bad").mkdir(parents=True)
    (tmp_path / "own" / "bad" / "plugin.yaml").write_text("name: [no]\n")
    bill = _write_bill(tmp_path / "bill.csv", [_row("5")])
    outcome = finops("analyze", bill, "--plugins", tmp_path / "own")
    assert outcome.status == 2
    assert "not valid" in outcome.err


def test_the_plugins_that_can_take_part_are_listed_with_what_they_ask_for(finops: Finops) -> None:
    document = finops("plugins", "--json").document
    names = {one["name"] for one in document["plugins"]}
    assert {"focus-cost-source", "aws-cur-cost-source", "cost-anomaly-detector", "budget-policy"} <= names
    assert document["problems"] == []
    assert "read:${config.bill}" in finops("plugins").out


# policies and messages --------------------------------------------------------------------------------------------


def test_a_breached_budget_is_told_and_fails_the_command_only_where_asked(finops: Finops, tmp_path: Path) -> None:
    words = ["analyze", _write_bill(tmp_path / "bill.csv", [_row("50")]), "--json", "--budget", "team=10"]
    calm = finops(*words)
    assert calm.status == 0
    (verdict,) = calm.document["policies"]
    assert (verdict["status"], verdict["spent"], verdict["limit"], verdict["currency"]) == ("breach", "50", "10", "USD")
    assert finops(*words, "--fail-on", "breach").status == 5


def test_a_message_is_appended_to_the_file_that_was_named_and_to_no_other(finops: Finops, tmp_path: Path) -> None:
    target = tmp_path / "messages.jsonl"
    bill = _write_bill(tmp_path / "bill.csv", [_row("50")])
    for _ in range(2):
        outcome = finops("analyze", bill, "--json", "--notify", f"file:{target}")
        assert outcome.status == 0, outcome.out
        assert [one["delivered"] for one in outcome.document["notifications"]] == [True]
    first, second = (json.loads(line) for line in target.read_text().splitlines())
    assert first["kind"] == second["kind"] == "analysis_finished"
    assert first["data"]["totals"]["billed"] == "50"


class _Hook(http.server.BaseHTTPRequestHandler):
    """A webhook on loopback that keeps what it is sent."""

    bodies: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        """Keep the body."""
        self.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nothing on stderr."""


@pytest.fixture
def hook() -> Iterator[str]:
    """The address of a webhook on loopback; what it was sent is in `_Hook.bodies`."""
    _Hook.bodies.clear()
    server = http.server.HTTPServer(("127.0.0.1", 0), _Hook)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"webhook:http://127.0.0.1:{server.server_address[1]}/cost"
    server.shutdown()
    server.server_close()


def test_a_message_reaches_a_webhook_from_behind_walls(finops: Finops, tmp_path: Path, hook: str) -> None:
    bill = _write_bill(tmp_path / "bill.csv", [_row("50")])
    outcome = finops("analyze", bill, "--json", "--notify", hook)
    assert outcome.status == 0, outcome.out
    assert {one["isolation"] for one in outcome.document["plugins"]} == {"process"}
    assert [one["delivered"] for one in outcome.document["notifications"]] == [True]
    assert len(_Hook.bodies) == 1
    assert "50.00 USD billed" in json.dumps(_Hook.bodies[0])


def test_running_without_walls_can_not_be_missed(finops: Finops, tmp_path: Path, hook: str) -> None:
    bill = _write_bill(tmp_path / "bill.csv", [_row("50")])
    outcome = finops("analyze", bill, "--json", "--isolation", "unconfined", "--notify", hook)
    assert outcome.status == 0, outcome.out
    assert "UNCONFINED" in outcome.err
    assert {one["isolation"] for one in outcome.document["plugins"]} == {"unconfined"}
    assert len(_Hook.bodies) == 1


def test_a_channel_that_can_not_deliver_is_told_and_fails_the_command(finops: Finops, tmp_path: Path) -> None:
    bill = _write_bill(tmp_path / "bill.csv", [_row("50")])
    outcome = finops("analyze", bill, "--json", "--notify", "webhook:http://127.0.0.1:1/closed")
    assert outcome.status == 1
    (notice,) = outcome.document["notifications"]
    assert not notice["delivered"]
    assert any(one["error"] for one in outcome.document["plugins"] if one["role"] == "notification channel")
    assert outcome.document["totals"]["billed"] == "50"


def test_quiet_prints_nothing_and_still_writes_the_page(finops: Finops, tmp_path: Path) -> None:
    bill = _write_bill(tmp_path / "bill.csv", [_row("50")])
    outcome = finops("analyze", bill, "--quiet", "--html", "page.html")
    assert (outcome.status, outcome.out, outcome.err) == (0, "", "")
    assert (tmp_path / "page.html").stat().st_size > 10_000
    assert not (tmp_path / "page.html.part").exists()


# slips of the pen --------------------------------------------------------------------------------------------------


def test_a_report_never_takes_the_place_of_what_is_no_file(finops: Finops, tmp_path: Path) -> None:
    bill = _write_bill(tmp_path / "bill.csv", [_row()])
    os.mkfifo(tmp_path / "pipe")
    ran = finops("analyze", bill, "--html", tmp_path / "pipe", "--json")
    assert (ran.status, ran.document["error"]["code"]) == (2, "report_unwritable")
    assert (tmp_path / "pipe").is_fifo()


def test_a_grant_to_a_plugin_that_is_not_there_is_told(finops: Finops, tmp_path: Path) -> None:
    bill = _write_bill(tmp_path / "bill.csv", [_row()])
    ran = finops("analyze", bill, "--grant", "no-such=read:/etc/hostname", "--json")
    assert (ran.status, ran.document["error"]["code"]) == (2, "grant_invalid")
    assert "focus-cost-source" in ran.document["error"]["message"]


def test_an_estate_too_large_to_plan_is_refused_before_anything_is_written(finops: Finops, tmp_path: Path) -> None:
    ran = finops("sample", tmp_path / "estate", "--rows", "99999999999999", "--days", "1", "--json")
    assert (ran.status, ran.document["error"]["code"]) == (2, "sample_invalid")
    assert not (tmp_path / "estate").exists()
