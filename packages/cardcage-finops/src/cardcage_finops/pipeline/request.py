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

from cardcage.foundation.errors import Misuse, Unavailable
from cardcage_finops.models import Budget
from cardcage_finops.pipeline.amounts import DIGITS_BEFORE_POINT_MAX, is_amount

Detector = Literal["robust", "rule25"]
_PERIODS: Final = ("day", "month", "total")
_CURRENCY_CHARS_MAX: Final = 32
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
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links is a RuntimeError before Python 3.13
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise Misuse(f'the {what} "{shown}" cannot be read: {reason}', code="file_unreadable", hint=hint) from error
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise Misuse(f'the {what} "{shown}" is {kind}, expected a file', code="file_unreadable", hint=hint)
    if status.st_size == 0:
        raise Misuse(f'the {what} "{shown}" is empty, expected at least a line of column names', code="file_empty")
    if reason := ungrantable(str(resolved)):
        raise Misuse(
            f'the {what} "{shown}" cannot be granted to a plugin: its path {reason}',
            code="path_invalid",
            hint="rename it, or give it another name: ln FILE NEWNAME",
        )
    return resolved


def ungrantable(path: str) -> str:
    """Why no permission can name this path; empty where one can."""
    if not path.isprintable():
        return "holds a character that is not printable"
    return "holds the placeholder sign ${" if "${" in path else ""


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def file_state(path: Path) -> tuple[int, int, int, int] | None:
    """What changes when a file is written to or another takes its place; None where it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def changed_bill(path: Path) -> Unavailable:
    """The error for a bill that was not one and the same file from the first byte to the last."""
    return Unavailable(
        f'the bill "{path.name}" changed while it was being read, so that its totals are nobody\'s',
        code="bill_changed",
        hint="wait until it is written, or analyse a copy",
    )


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
        return NotifyTarget(kind="file", value=_target_path(value))
    if kind == "webhook" and value:
        try:
            parts = urlsplit(value)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
            good = good and value.isprintable() and " " not in value and parts.username is None
        except ValueError:
            good = False
        if good:
            return NotifyTarget(kind="webhook", value=value)
        raise Misuse(
            f"the webhook {value!r} is no http or https address without a user's name in it",
            code="target_invalid",
            hint=hint,
        )
    raise Misuse(f"--notify {text!r} names no channel, expected file: or webhook:", code="target_invalid", hint=hint)


def _target_path(value: str) -> str:
    try:
        path = str(Path(value).expanduser().resolve())
        reason = ungrantable(path)
    except (OSError, RuntimeError, ValueError) as error:
        path, reason = value, str(error)
    if reason:
        raise Misuse(
            f"messages cannot be written to {value!r}: its path {reason}",
            code="target_invalid",
            hint="write file:PATH with a path that a permission can name",
        )
    return path


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
    period, named = period.strip() or "month", named.strip()
    try:
        amount = Decimal(figure.replace("_", ""))
    except InvalidOperation:
        raise Misuse(f"the budget {text!r} has no amount, found {figure!r}", code="budget_invalid", hint=hint) from None
    if not is_amount(amount) or amount <= 0:
        raise Misuse(
            f"the budget {text!r} must be more than 0 and have at most {DIGITS_BEFORE_POINT_MAX} digits before the "
            f"point, found {figure}",
            code="budget_invalid",
            hint=hint,
        )
    if any(not sign.isprintable() or sign.isspace() for sign in named) or len(named) > _CURRENCY_CHARS_MAX:
        raise Misuse(f"the budget {text!r} is in {named!r}, which is no currency", code="budget_invalid", hint=hint)
    if period not in _PERIODS:
        raise Misuse(f"the budget {text!r} has the period {period!r}", code="budget_invalid", hint=hint)
    return Budget(
        name=name.strip() or "budget",
        amount=amount,
        currency=named or currency,
        period=period,  # pyright: ignore[reportArgumentType] - checked above
        service=service.strip(),
    )
