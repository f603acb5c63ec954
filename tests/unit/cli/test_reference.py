"""The published reference and the exit statuses are those of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardcage.cli import exits
from cardcage.cli.exits import ExitCode, exit_code_of
from cardcage.cli.reference import reference
from cardcage.foundation.errors import CardcageError, InvalidDocument, Misuse, PluginFault, Refused, Unavailable

ROOT = Path(__file__).resolve().parents[3]


def test_the_published_reference_is_what_the_commands_say() -> None:
    published = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    assert published == reference(), "write it anew: python -m cardcage.cli.reference > docs/reference/cli.md"


def test_every_exit_status_has_a_meaning() -> None:
    assert set(exits.MEANINGS) == set(ExitCode)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Misuse("x"), ExitCode.USAGE),
        (InvalidDocument("x", []), ExitCode.USAGE),
        (Refused("x"), ExitCode.REFUSED),
        (PluginFault("x"), ExitCode.FAILED),
        (Unavailable("x"), ExitCode.UNAVAILABLE),
        (CardcageError("x"), ExitCode.FAILED),
    ],
)
def test_the_branch_of_an_error_decides_the_status(error: CardcageError, code: ExitCode) -> None:
    assert exit_code_of(error) is code
