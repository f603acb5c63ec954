"""Text for terminals and JSON for programs. Whatever a plugin or a manifest wrote is escaped on its way out."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# C0, DEL, C1, the line and paragraph separators, and the marks that turn the direction of text: what could drive a
# terminal or make a line look like another.
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_CONTROL_IN_JSON: Final = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

WIDTH_WITHOUT_TERMINAL: Final = 1000
"""Where output is piped there is no width to fit, and a path that is cut in two cannot be searched for."""


def safe(text: object) -> str:
    """`text` on one line with every control character written out, such as `\\x1b`."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), str(text))


def to_json(document: Any) -> str:
    """Indented JSON; decimals and times as strings, bytes as base64, nothing in it that could drive a terminal."""
    import msgspec

    plain = msgspec.to_builtins(document, str_keys=True)
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    return _CONTROL_IN_JSON.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    write_line(sys.stdout, to_json(document))


def write_line(stream: TextIO, line: str) -> None:
    """A line of text as it is; what the stream's encoding lacks is written as an escape."""
    encoding = stream.encoding or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def console(*, error: bool = False) -> Console:
    """Where people read. Colours only on a terminal and without NO_COLOR; no markup, so that text stays text."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    return Console(
        file=stream,
        markup=False,
        emoji=False,
        highlight=False,
        soft_wrap=False,
        width=None if stream.isatty() or os.environ.get("COLUMNS") else WIDTH_WITHOUT_TERMINAL,
    )


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table in the one style of all commands."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def facts(pairs: Mapping[str, object]) -> str:
    """Names and values under each other; values that are None are left out."""
    shown = {name: safe(value) for name, value in pairs.items() if value is not None}
    width = max(map(len, shown), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in shown.items())
