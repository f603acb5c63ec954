"""Text that came out of a bill or a plugin, made harmless to look at.

A terminal obeys escape sequences and a reader is misled by characters that reorder text, so both are shown as what they
are. (HTML has its own defence: the template escapes everything.)
"""

from __future__ import annotations

import unicodedata
from typing import Final

from rich.text import Text

_SHOWN: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_HIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Controls, formats (such as bidirectional overrides), surrogates, private use, line and paragraph breaks."""


def visible(text: str, chars_max: int = 200) -> str:
    """`text` on one line with every control and format character spelled out (`\\x1b`), cut to `chars_max`."""
    cut = text[:chars_max]
    shown = "".join(_spelled(char) if unicodedata.category(char) in _HIDDEN_CATEGORIES else char for char in cut)
    return shown + "…" if len(text) > chars_max else shown


def cell(text: str, style: str = "", chars_max: int = 200) -> Text:
    """`visible(text)` as a rich text, in which `[markup]` is no markup."""
    return Text(visible(text, chars_max), style=style)


def _spelled(char: str) -> str:
    code = ord(char)
    return _SHOWN.get(char) or (
        f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
    )
