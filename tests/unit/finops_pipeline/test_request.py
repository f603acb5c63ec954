"""What an operator may ask for, and the sentences for what can't be."""

from __future__ import annotations

import hashlib
import os
from decimal import Decimal
from pathlib import Path

import pytest

from cardcage.foundation.errors import Misuse
from cardcage_finops.pipeline.request import NotifyTarget, file_sha256, input_file, parse_budget, parse_target


def test_a_bill_is_named_by_its_real_path(tmp_path: Path) -> None:
    real = tmp_path / "bill.csv"
    real.write_text("a\n")
    link = tmp_path / "link.csv"
    link.symlink_to(real)
    assert input_file(str(link), "bill") == real.resolve()
    assert file_sha256(real) == hashlib.sha256(b"a\n").hexdigest()


def test_a_missing_bill_a_folder_an_empty_file_and_a_pipe_are_each_named_for_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    os.mkfifo(tmp_path / "pipe")
    for name, sentence in (
        ("none.csv", "No such file"),
        ("", "is a folder"),
        ("empty.csv", "is empty"),
        ("pipe", "is no regular file"),
    ):
        with pytest.raises(Misuse, match=sentence):
            input_file(str(tmp_path / name), "bill")


def test_a_loop_of_links_and_a_path_that_no_permission_can_name_are_mistakes_of_the_caller(tmp_path: Path) -> None:
    loop = tmp_path / "loop.csv"
    loop.symlink_to(loop)
    with pytest.raises(Misuse, match="cannot be read"):
        input_file(str(loop), "bill")
    with pytest.raises(Misuse, match="cannot be read"):
        input_file("nul\0byte", "bill")
    for name, reason in (("new\nline.csv", "not printable"), ("${config.bill}.csv", "placeholder")):
        (tmp_path / name).write_text("a\n")
        with pytest.raises(Misuse, match=reason):
            input_file(str(tmp_path / name), "bill")
        with pytest.raises(Misuse, match=reason):
            parse_target(f"file:{tmp_path / name}")


@pytest.mark.parametrize("text", ["1e30", "1e999999", "a=10 USD EUR", "a=10 " + "U" * 33, "a=10 U\x1bS"])
def test_a_budget_of_an_absurd_amount_or_currency_is_refused(text: str) -> None:
    with pytest.raises(Misuse) as caught:
        parse_budget(text)
    assert caught.value.code == "budget_invalid"


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("webhook:https://hooks.example.com/x?y=1", "webhook", "https://hooks.example.com/x?y=1"),
        ("webhook:http://127.0.0.1:8080/", "webhook", "http://127.0.0.1:8080/"),
        ("file:/var/spool/cost.jsonl", "file", "/var/spool/cost.jsonl"),
    ],
)
def test_a_target_is_a_file_or_a_webhook(text: str, kind: str, value: str) -> None:
    target = parse_target(text)
    assert (target.kind, target.value) == (kind, str(Path(value).resolve()) if kind == "file" else value)
    assert str(NotifyTarget(kind="webhook", value="https://h/x")) == "webhook:https://h/x"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "mail:a@b",
        "file:",
        "webhook:",
        "webhook:ftp://h/",
        "webhook:https://",
        "webhook:http://h:99999/",
        "webhook:http://user:word@h/",
        "webhook:http://h/a b",
    ],
)
def test_any_other_target_is_refused(text: str) -> None:
    with pytest.raises(Misuse) as caught:
        parse_target(text)
    assert caught.value.code == "target_invalid"
    assert caught.value.hint


@pytest.mark.parametrize(
    ("url", "grant"),
    [
        ("https://hooks.example.com/x", "network:hooks.example.com:443"),
        ("http://hooks.example.com/x", "network:hooks.example.com:80"),
        ("http://127.0.0.1:8080", "network:127.0.0.1:8080"),
        ("https://[::1]:9/", "network:[::1]:9"),
    ],
)
def test_a_webhook_is_granted_its_own_host_and_port(url: str, grant: str) -> None:
    assert NotifyTarget(kind="webhook", value=url).grant == grant


def test_budgets_are_read_with_their_parts() -> None:
    plain = parse_budget("1000", "USD")
    assert (plain.name, plain.amount, plain.currency, plain.period) == ("budget", Decimal(1000), "USD", "month")
    full = parse_budget("team=1_200.50 EUR/total@Amazon EC2")
    assert (full.name, full.amount, full.currency) == ("team", Decimal("1200.50"), "EUR")
    assert (full.period, full.service) == ("total", "Amazon EC2")


@pytest.mark.parametrize("text", ["", "x=", "x=abc", "0", "-5", "NaN", "x=5/decade"])
def test_what_is_no_budget_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(Misuse) as caught:
        parse_budget(text)
    assert caught.value.code == "budget_invalid"
    assert "--budget" in (caught.value.hint or "")
