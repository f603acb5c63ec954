"""`cardcage audit tail|verify|export|key`: what was decided and done, and whether the record of it is whole.

These commands only read: they start nothing, and need no host to be running or stopped.
"""

from __future__ import annotations

import contextlib
import csv
import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TextIO, TypeAlias

import typer

from cardcage.cli.exits import ExitCode
from cardcage.cli.options import Json, StateDir
from cardcage.cli.text import console, facts, print_json, safe, write_line
from cardcage.foundation.errors import Misuse

if TYPE_CHECKING:
    from cardcage.audit.chain import Line, RawLine
    from cardcage.audit.segments import Snapshot
    from cardcage.audit.selection import Selection
    from cardcage.audit.verify import LogReport

_FOLLOW_INTERVAL_S: Final = 0.25
_FIELDS_SHOWN_CHARS: Final = 300

Plugin: TypeAlias = Annotated[
    str | None,
    typer.Option("--plugin", metavar="NAME", show_default=False, help="Only of this plugin, or NAME/LABEL."),
]
ActionName: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--action", metavar="ACTION", show_default=False, help="Only this action, such as egress.refused or egress.*."
    ),
]
Denied: TypeAlias = Annotated[bool, typer.Option("--denied", help="Only what was refused.")]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", show_default=False, help="Only from this time on (ISO 8601, UTC)."),
]
Until: TypeAlias = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME", show_default=False, help="Only what came before this time."),
]
LogPath: TypeAlias = Annotated[
    Path | None,
    typer.Argument(metavar="PATH", show_default=False, help="A log's folder, or an exported file."),
]


def tail(
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the newest lines.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on showing lines as they come.")] = False,
    plugin: Plugin = None,
    action: ActionName = None,
    denied: Denied = False,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Show the newest decisions and acts of the audit log, each with its reason. With --json one object a line."""
    from cardcage.audit.segments import open_log
    from cardcage.audit.selection import Selection

    wanted = Selection(plugin=plugin, action=action, denied=denied)
    folder = _folder(state_dir)
    show = _show_json if as_json else _show
    with open_log(folder) as log:
        for line in _newest(log, wanted, lines):
            show(line)
        seen = _last_seq(log)
    if follow:
        _follow(folder, wanted, seen, show)


def verify(
    path: LogPath = None,
    key: Annotated[
        list[Path] | None,
        typer.Option(
            "--key",
            metavar="FILE",
            show_default=False,
            help="A public key (PEM) that checkpoints must be made with, kept elsewhere. May be repeated.",
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            "--checkpoint",
            metavar="FILE",
            show_default=False,
            help="A checkpoint that was kept elsewhere: shows a log that was cut before it.",
        ),
    ] = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Hold the audit log against its chain and its checkpoints. Status 1 where anything is wrong; all of it is told."""
    from cardcage.audit.keys import read_public
    from cardcage.audit.segments import open_log, read_kept
    from cardcage.audit.verify import verify_log

    keys = [read_public(each) for each in key or ()]
    with open_log(path or _folder(state_dir)) as log:
        kept = log.kept
        if checkpoint is not None and (kept := read_kept(checkpoint)) is None:
            raise Misuse(f"{checkpoint} holds no checkpoint of an audit log", code="audit_checkpoint_invalid")
        report = verify_log(log.lines(), keys=keys, kept=kept)
    if as_json:
        print_json({"intact": report.intact, "unsigned": report.unsigned, **_plain(report)})
    else:
        _print_report(report)
    raise typer.Exit(ExitCode.OK if report.intact else ExitCode.FAILED)


def export(
    format_: Annotated[
        Literal["jsonl", "csv"],
        typer.Option("--format", metavar="jsonl|csv", help="JSON lines as they are, or a table."),
    ] = "jsonl",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", show_default=False, help="A new file, instead of standard output."
        ),
    ] = None,
    plugin: Plugin = None,
    action: ActionName = None,
    since: Since = None,
    until: Until = None,
    denied: Denied = False,
    state_dir: StateDir = None,
) -> None:
    """Write the audit log out. As JSON lines and with nothing left out, `audit verify` can check the copy."""
    from cardcage.audit.segments import open_log
    from cardcage.audit.selection import Selection, parse_time

    wanted = Selection(
        plugin=plugin,
        action=action,
        denied=denied,
        since=parse_time(since, option="--since") if since else None,
        until=parse_time(until, option="--until") if until else None,
    )
    with open_log(_folder(state_dir)) as log, _opened(output) as stream:
        (_write_csv if format_ == "csv" else _write_lines)(log, wanted, stream)


def key(state_dir: StateDir = None, as_json: Json = False) -> None:
    """Print the public key of the audit log. Keep it on another machine, and give it to `audit verify --key`."""
    from cardcage.audit.checkpoint import key_id
    from cardcage.audit.keys import PUBLIC_NAME, public_pem, read_public

    path = _folder(state_dir) / PUBLIC_NAME
    if not path.exists():
        raise Misuse(f"there is no audit log at {path.parent}", code="no_audit_log", hint="nothing was recorded yet")
    public = read_public(path)
    if as_json:
        print_json({"key_id": key_id(public), "public_key": public_pem(public), "path": str(path)})
    else:
        print(public_pem(public), end="")


# reading --------------------------------------------------------------------------------------------------------------


def _folder(state_dir: Path | None) -> Path:
    from cardcage.manager.home import default_state_dir

    return (state_dir or default_state_dir()).absolute() / "audit"


def _selected(lines: Iterator[RawLine], wanted: Selection) -> Iterator[Line]:
    from cardcage.audit.chain import parse

    for raw in lines:
        line = parse(raw.data)
        if line is not None and wanted.wants(line.entry):
            yield line


def _newest(log: Snapshot, wanted: Selection, count: int) -> list[Line]:
    """The newest lines that are wanted; older files are read only where the newer ones have too few."""
    found: list[Line] = []
    for file in reversed(log.files):
        if len(found) >= count:
            break
        found = [*deque(_selected(log.lines_of(file), wanted), maxlen=count - len(found)), *found]
    return found


def _last_seq(log: Snapshot) -> int:
    from cardcage.audit.selection import Selection

    newest = _newest(log, Selection(), 1)
    return newest[0].entry.seq if newest else 0


def _follow(folder: Path, wanted: Selection, seen: int, show: Callable[[Line], None]) -> None:
    import time

    from cardcage.audit.segments import open_log
    from cardcage.audit.selection import Selection

    before: object = None
    while True:
        with open_log(folder) as log:
            lengths = [(name, length) for name, _, length in log.files]
            if lengths != before:
                # The newest two files hold all that can have come since the last look.
                for file in log.files[-2:]:
                    for line in _selected(log.lines_of(file), Selection()):
                        if line.entry.seq > seen:
                            seen = line.entry.seq
                            if wanted.wants(line.entry):
                                show(line)
                sys.stdout.flush()
            before = lengths
        time.sleep(_FOLLOW_INTERVAL_S)


# showing --------------------------------------------------------------------------------------------------------------


def _show(line: Line) -> None:
    from cardcage.audit.selection import fields_text

    entry = line.entry
    answer = {True: "allowed", False: "REFUSED", None: "-"}[entry.allowed]
    whom = entry.instance or entry.plugin or entry.actor
    more = fields_text(entry.fields)[:_FIELDS_SHOWN_CHARS]
    mark = "" if line.intact else " [this line was changed]"
    text = f"{entry.at[:19]}Z {entry.seq:>6} {answer:<7} {entry.action:<20} {whom}: {entry.reason} {more}".rstrip()
    write_line(sys.stdout, safe(text) + mark)


def _show_json(line: Line) -> None:
    import json

    import msgspec

    document = {**msgspec.to_builtins(line.entry), "hash": line.hash}
    write_line(sys.stdout, json.dumps(document, separators=(",", ":")))


def _write_lines(log: Snapshot, wanted: Selection, stream: TextIO) -> None:
    from cardcage.audit.chain import parse

    for raw in log.lines():
        line = None if wanted.everything else parse(raw.data)
        # A whole copy has its damage too, so that it can be found there; what is chosen from must be lines.
        if wanted.everything or (line is not None and wanted.wants(line.entry)):
            stream.write(raw.data.decode("utf-8", "backslashreplace") + "\n")


def _write_csv(log: Snapshot, wanted: Selection, stream: TextIO) -> None:
    from cardcage.audit.selection import COLUMNS, row

    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for line in _selected(log.lines(), wanted):
        writer.writerow([safe(cell) for cell in row(line.entry, line.hash)])


@contextlib.contextmanager
def _opened(output: Path | None) -> Generator[TextIO]:
    if output is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise Misuse(
            f"{output} cannot be made: {error.strerror}",
            code="output_unusable",
            hint="name a file that is not there yet",
        ) from error
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        yield stream


def _plain(report: LogReport) -> dict[str, object]:
    import msgspec

    return msgspec.to_builtins(report)


def _print_report(report: LogReport) -> None:
    out = console()
    span = f"numbers {report.first_seq} to {report.last_seq}, {report.first_at} to {report.last_at}"
    out.print(
        facts(
            {
                "lines": f"{report.lines}" + (f" ({span})" if report.lines else ""),
                "checkpoints": f"{report.checkpoints} good, made with {', '.join(report.keys) or 'no known key'}",
                "signed": f"through {report.signed_through}; {report.unsigned} lines after that are chained only",
                "trimmed": f"through {report.trimmed_through}, as the log itself says"
                if report.trimmed_through
                else None,
                "lost": f"{report.lost} events, as the log itself says" if report.lost else None,
                "key": None if report.key_pinned else "the one that the log names; to be sure of it, give --key",
            }
        )
    )
    for fault in report.faults:
        out.print(safe(str(fault)), style="red", soft_wrap=True)
    if report.faults_not_told:
        out.print(f"and {report.faults_not_told} more", style="red")
    if report.intact:
        out.print("\nThe log is as it was written.", style="green")
    else:
        count = len(report.faults) + report.faults_not_told
        out.print(f"\nThe log was tampered with or damaged: {count} faults.", style="red")
