"""What to analyse, and where to tell of it. Parsing and checking of what an operator asks for; reads no bill."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from cardcage.foundation.errors import Misuse
from cardcage_finops.models import Budget

Detector = Literal["robust", "rule25"]
_PERIODS: Final = ("day", "month", "total")
_HASH_CHUNK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifyTarget:
    """Where a message goes: `file` and a path, or `webhook` and a URL."""

    kind: Literal["file", "webhook"]
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    @property
    def grant(self) -> str:
        """The one permission that a channel needs for it: to write that file, or to reach that host and port."""
        return f"write:{self.value}" if self.kind == "file" else f"network:{self.endpoint}"

    @property
    def config(self) -> dict[str, str]:
        """What a channel is told of it."""
        return {"path": self.value} if self.kind == "file" else {"url": self.value, "endpoint": self.endpoint}

    @property
    def endpoint(self) -> str:
        """Host and port of a webhook, such as `hooks.example.com:443`."""
        parts = urlsplit(self.value)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisRequest:
    """One analysis. Files are named by absolute, resolved paths: what a plugin is granted is exactly that file."""

    bill: Path
    metrics: Path | None = None
    detector: Detector = "robust"
    budgets: Sequence[Budget] = ()
    notify: Sequence[NotifyTarget] = ()
    hooks: Sequence[str] = ()
    """Plugins to start for the hook chain alone. Those that are active already take part in any case."""
    report: Path | None = None
    """The HTML report that a message may point to, where one is written."""


def input_file(path: str | os.PathLike[str], what: str) -> Path:
    """The absolute path of a readable, regular file that is not empty. Raises `Misuse` that says what it is instead."""
    shown = os.fspath(path)
    hint = f"name {'a' if what != 'metrics file' else 'the'} {what} that is a file on this machine"
    try:
        resolved = Path(path).expanduser().resolve(strict=True)
        status = resolved.stat()
        if stat.S_ISREG(status.st_mode):
            with resolved.open("rb"):
                pass
    except OSError as error:
        raise Misuse(
            f'the {what} "{shown}" cannot be read: {error.strerror or error}', code="file_unreadable", hint=hint
        ) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise Misuse(f'the {what} "{shown}" is {kind}, expected a file', code="file_unreadable", hint=hint)
    if status.st_size == 0:
        raise Misuse(f'the {what} "{shown}" is empty, expected at least a line of column names', code="file_empty")
    return resolved


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def make_target_file(target: NotifyTarget) -> None:
    """Make the file of a `file` target where it is missing: a plugin is granted that one file, not its folder.

    Raises `Misuse` where it can't be.
    """
    if target.kind != "file":
        return
    path = Path(target.value)
    try:
        path.touch(mode=0o600, exist_ok=True)
        if not path.is_file():
            raise IsADirectoryError(errno.EISDIR, "it is no file", target.value)
    except OSError as error:
        raise Misuse(
            f"messages cannot be written to {target.value}: {error.strerror}",
            code="target_unwritable",
            hint="name a file in a folder that is there: --notify file:PATH",
        ) from error


def parse_target(text: str) -> NotifyTarget:
    """`file:PATH` or `webhook:URL`. Raises `Misuse` for anything else."""
    kind, _, value = text.partition(":")
    hint = "write file:PATH or webhook:https://HOST/PATH"
    if kind == "file" and value:
        return NotifyTarget(kind="file", value=str(Path(value).expanduser().resolve()))
    if kind == "webhook" and value:
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            good = False
        if good:
            return NotifyTarget(kind="webhook", value=value)
        raise Misuse(f"the webhook {value!r} is no http or https address", code="target_invalid", hint=hint)
    raise Misuse(f"--notify {text!r} names no channel, expected file: or webhook:", code="target_invalid", hint=hint)


def parse_budget(text: str, currency: str = "") -> Budget:
    """A budget written `AMOUNT` or `NAME=AMOUNT[ CURRENCY][/PERIOD][@SERVICE]`, such as `team=1200/month@Amazon EC2`.

    A budget that names no currency is in `currency`; empty stands for the bill's main one. Raises `Misuse`.
    """
    name, equals, rest = text.partition("=")
    if not equals:
        name, rest = "budget", text
    rest, _, service = rest.partition("@")
    rest, _, period = rest.partition("/")
    figure, _, named = rest.strip().partition(" ")
    hint = "write --budget 1000, or --budget 'team=1200 USD/month@Amazon EC2'; periods are day, month, total"
    period = period.strip() or "month"
    try:
        amount = Decimal(figure.replace("_", ""))
    except InvalidOperation:
        raise Misuse(f"the budget {text!r} has no amount, found {figure!r}", code="budget_invalid", hint=hint) from None
    if not amount.is_finite() or amount <= 0:
        raise Misuse(f"the budget {text!r} must be more than 0, found {figure}", code="budget_invalid", hint=hint)
    if period not in _PERIODS:
        raise Misuse(f"the budget {text!r} has the period {period!r}", code="budget_invalid", hint=hint)
    return Budget(
        name=name.strip() or "budget",
        amount=amount,
        currency=named.strip() or currency,
        period=period,  # pyright: ignore[reportArgumentType] - checked above
        service=service.strip(),
    )
