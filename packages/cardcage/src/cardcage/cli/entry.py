"""From the shell to a command and back: what was asked, the error where there was one, and the exit status."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from typing import Final

from cardcage.cli import environment
from cardcage.cli.exits import ExitCode, exit_code_of
from cardcage.foundation.errors import CardcageError, InvalidDocument, Misuse

_OUTPUT_GONE: Final = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EBADF)
"""Why an output takes no more; what writes files of its own says so itself, with the file's name."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Never shows a traceback, unless CARDCAGE_DEBUG is set."""
    args = list(sys.argv[1:] if argv is None else argv)
    _stand_in_for_closed_streams()
    try:
        return _answer(args, as_json="--json" in args)
    except BrokenPipeError:
        # Whoever read our output went away, as `head` does.
        return _abandon_output()
    except OSError as error:
        # The error itself could not be told: the output is a full disk or a dead terminal.
        with contextlib.suppress(OSError):
            print(f"cardcage: the output cannot be written: {error.strerror or error}", file=sys.stderr)
        return _abandon_output()


def _stand_in_for_closed_streams() -> None:
    """A stream that the shell closed (`>&-`) is None; what is written to it goes nowhere, as it was asked to."""
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process
    if sys.stderr is None:  # pyright: ignore[reportUnnecessaryComparison]
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - for the rest of the process


def _abandon_output() -> ExitCode:
    """The interpreter's last flush must not complain again about an output that takes nothing."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.FAILED


def _answer(args: list[str], *, as_json: bool) -> int:
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except CardcageError as error:
        _report(error, as_json=as_json)
        return exit_code_of(error)
    except KeyboardInterrupt:
        _report(CardcageError("interrupted", code="interrupted"), as_json=as_json)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _OUTPUT_GONE:
            raise
        return _report_bug(error, as_json=as_json)


def _run(args: list[str]) -> int:
    import typer

    from cardcage.cli.app import app

    if args and args[0] in ("--version", "-V"):
        args = ["version", *args[1:]]
    try:
        answer = app(args=args, prog_name="cardcage", standalone_mode=False)
    except typer.Abort:
        print("cardcage: aborted", file=sys.stderr)
        return ExitCode.FAILED
    except Exception as error:
        # What the parser of the command line raises has no public base class; this is what all of it has.
        message, usage = getattr(error, "format_message", None), getattr(error, "ctx", None)
        if message is None:
            raise
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help, which is no sentence
            print(message(), file=sys.stderr)
            return ExitCode.USAGE
        raise Misuse(
            message().rstrip("."), code="usage", hint=f"{usage.command_path} --help" if usage is not None else None
        ) from error
    if answer == ExitCode.INTERRUPTED:  # what the parser of the command line makes of Ctrl-C, without a word
        raise KeyboardInterrupt
    return answer if isinstance(answer, int) else ExitCode.OK


def _report(error: CardcageError, *, as_json: bool) -> None:
    from cardcage.cli.text import print_json, safe, write_line

    _show_trace(error)
    if as_json:
        print_json({"error": error.to_json()})
        return
    if isinstance(error, InvalidDocument) and len(error.faults) > 1:
        write_line(sys.stderr, f"cardcage: {safe(error.fields['subject'])} is not valid ({len(error.faults)} faults):")
        for fault in error.faults:
            write_line(sys.stderr, f"  {safe(fault)}")
    else:
        write_line(sys.stderr, f"cardcage: {safe(error.message)}")
    if error.hint:
        write_line(sys.stderr, f"hint: {safe(error.hint)}")


def _report_bug(error: Exception, *, as_json: bool) -> ExitCode:
    if isinstance(error, UnicodeEncodeError) and "surrogates not allowed" in str(error):
        # A word of the command line that is not UTF-8, on its way into the registry or to a plugin.
        wrong = Misuse("the command line holds bytes that are not UTF-8", code="usage", hint="rename the file")
        _report(wrong, as_json=as_json)
        return ExitCode.USAGE
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    _report(
        CardcageError(
            f"this is a bug in Cardcage: {what}", code="internal", hint=f"{environment.DEBUG}=1 shows where it is"
        ),
        as_json=as_json,
    )
    _show_trace(error)
    return ExitCode.BUG


def _show_trace(error: BaseException) -> None:
    if os.environ.get(environment.DEBUG):
        import traceback

        traceback.print_exception(error)
