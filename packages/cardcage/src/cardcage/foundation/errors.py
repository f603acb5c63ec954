"""One root error; its branches say whose fault it was, and so what the caller should do next.

| branch        | whose fault               | what next                          |
|---------------|---------------------------|------------------------------------|
| `Misuse`      | the caller's code         | change the call                    |
| `Refused`     | nobody's: a policy said no| ask for a grant, or do without     |
| `PluginFault` | the plugin's              | report it to the plugin's author   |
| `Unavailable` | nobody's, and not for long| try again after `retry_after_s`    |

`code` and the fields are stable and may be matched on; the wording of the sentence may improve. The sentence says what,
whom, expected and found; a hint stands apart. A bug of the host itself is an `AssertionError`, never one of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class CardcageError(Exception):
    """Root of every error that Cardcage raises on purpose.

    `code` is a stable word such as `"manifest_invalid"`; `fields` carries typed facts (`plugin`, `version`, ...).
    """

    code: str = "error"

    def __init__(self, message: str, *, code: str | None = None, hint: str | None = None, **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.fields: Mapping[str, Any] = {name: value for name, value in fields.items() if value is not None}
        if code is not None:
            self.code = code

    def to_json(self) -> dict[str, Any]:
        """The error as plain data for the wire, HTTP and `--json`: code, message, hint and the fields."""
        document: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.hint:
            document["hint"] = self.hint
        document.update(self.fields)
        return document


class Misuse(CardcageError):
    """The caller's code asked for something that cannot be: a wrong argument, an unknown name, a wrong order."""

    code = "misuse"


class Refused(CardcageError):
    """A policy, a grant or a limit said no. `reason` is the decision's own sentence."""

    code = "refused"

    def __init__(self, message: str, *, reason: str | None = None, **fields: Any) -> None:
        super().__init__(message, reason=reason, **fields)
        self.reason = reason or message


class PluginFault(CardcageError):
    """The plugin broke its contract: it raised, crashed, answered the wrong shape, too late or not at all."""

    code = "plugin_fault"


class Unavailable(CardcageError):
    """Not now, but perhaps in `retry_after_s` seconds: the instance is restarting, or a queue is full."""

    code = "unavailable"

    def __init__(self, message: str, *, retry_after_s: float | None = None, **fields: Any) -> None:
        super().__init__(message, retry_after_s=retry_after_s, **fields)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing wrong in a document: where (`permissions.network[2]`), and what was expected and found."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class InvalidDocument(Misuse):
    """A manifest, a config or another document is wrong; `faults` holds every fault found, not only the first."""

    code = "document_invalid"

    def __init__(self, subject: str, faults: Iterable[Fault], *, code: str | None = None, **fields: Any) -> None:
        self.faults: Sequence[Fault] = tuple(faults)
        count = len(self.faults)
        head = f"{subject} is not valid ({count} fault{'' if count == 1 else 's'})"
        super().__init__(
            "; ".join([f"{head}: {self.faults[0]}" if self.faults else head, *map(str, self.faults[1:])]),
            code=code,
            subject=subject,
            faults=[{"path": fault.path, "message": fault.message} for fault in self.faults],
            **fields,
        )
