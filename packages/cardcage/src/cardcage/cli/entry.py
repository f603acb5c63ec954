"""From the shell to a command and back: what was asked, the error where there was one, and the exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from cardcage.cli import environment
from cardcage.cli.exits import ExitCode, exit_code_of
from cardcage.foundation.errors import CardcageError, InvalidDocument, Misuse


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Never shows a traceback, unless CARDCAGE_DEBUG is set."""
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in args
    try:
        code = _run(args)
        sys.stdout.flush()
        return code
    except CardcageError as error:
        _report(error, as_json=as_json)
        return exit_code_of(error)
    except KeyboardInterrupt:
        print("cardcage: interrupted", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output went away, as `head` does. The interpreter's last flush must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.FAILED
    except Exception as error:
        return _report_bug(error, as_json=as_json)


def _run(args: list[str]) -> int:
    import typer

    from cardcage.cli.app import app

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
        raise Misuse(
            message().rstrip("."), code="usage", hint=f"{usage.command_path} --help" if usage is not None else None
        ) from error
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
