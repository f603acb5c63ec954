"""The table of defaults in docs/reference/limits.md, held against the code; `CARDCAGE_WRITE_DOCS=1` writes it anew."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from cardcage.foundation.errors import InvalidDocument
from cardcage.foundation.sizes import size_text
from cardcage.manager.settings import DEFAULT_LIMITS, read_settings
from cardcage.manifest.limits import LIMIT_KEYS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "limits.md"


def test_the_page_lists_the_default_limits() -> None:
    written = PAGE.read_text(encoding="utf-8")
    lines = ["| limit | default |", "| --- | --- |"]
    for name, key in LIMIT_KEYS.items():
        value = getattr(DEFAULT_LIMITS, key.attribute)
        if value is not None:
            shown = size_text(value) if key.attribute.endswith("_bytes") else f"{value:g}"
            lines.append(f"| `{name}` | {shown} |")
    table = "\n".join(lines) + "\n"
    pattern = re.compile(r"(<!-- defaults: [^\n]*-->\n)(.*?)(<!-- end -->)", re.DOTALL)
    expected = pattern.sub(lambda match: match[1] + table + match[3], written)
    if os.environ.get("CARDCAGE_WRITE_DOCS"):
        PAGE.write_text(expected, encoding="utf-8")
    assert written == expected, "CARDCAGE_WRITE_DOCS=1 writes the page anew"


def test_every_limit_that_the_walls_keep_has_a_default() -> None:
    kept_elsewhere = {"network_bytes_per_s", "connections", "log_lines_per_s"}
    open_ = {field.name for field in fields(DEFAULT_LIMITS) if getattr(DEFAULT_LIMITS, field.name) is None}
    assert open_ <= kept_elsewhere


def test_an_operator_sets_each_default_apart() -> None:
    limits = read_settings({"default_limits": {"memory": "256MiB", "cpu": 0.5}}).default_limits
    assert (limits.memory_bytes, limits.cpu_cores) == (256 << 20, 0.5)
    assert limits.processes == DEFAULT_LIMITS.processes


def test_wrong_defaults_are_told_all_at_once_with_their_paths() -> None:
    with pytest.raises(InvalidDocument) as caught:
        read_settings({"default_limits": {"memory": "lots", "cpus": 1}})
    assert {fault.path for fault in caught.value.faults} == {"default_limits.memory", "default_limits.cpus"}
    assert caught.value.code == "config_invalid"
