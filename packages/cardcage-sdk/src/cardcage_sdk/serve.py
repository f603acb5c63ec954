"""The plugin's main loop: says hello on its socket, waits for the host's ready, then answers calls until the goodbye.

The fork server imports this module before it forks, so its imports are kept few: no asyncio, no logging, no threads. A
plugin that needs them brings them in.
"""

from __future__ import annotations

import os
import sys
from socket import socket
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

from cardcage_sdk import __version__
from cardcage_sdk.blocking import BlockingServer
from cardcage_sdk.link import Link
from cardcage_sdk.plugin import Plugin as Plugin  # what nearly every plugin imports first

if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # without the enumerations around it, which plugins seldom need

EXIT_SOFTWARE: Final = 70
"""EX_SOFTWARE of sysexits.h: this package has a bug."""

EXIT_USAGE: Final = 2


def serve(connection: socket | int) -> NoReturn:
    """Serve one plugin on a connected stream socket, or the number of one; the process ends with the connection.

    It ends by `os._exit`, so that no code of the plugin's (`atexit`, `finally`) runs once the host has said goodbye.
    """
    try:
        sock = socket(fileno=connection) if isinstance(connection, int) else connection
        sock.setblocking(True)
        sock.set_inheritable(False)
        _tame_standard_streams()
        # Ctrl-C in a terminal reaches the whole process group; it is the host that decides when its plugins stop.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        link = Link(sock)
        _serve(link)
    except BaseException:
        from traceback import print_exc

        print_exc()
        sys.stderr.flush()
        os._exit(EXIT_SOFTWARE)


def _serve(link: Link) -> NoReturn:
    try:
        link.send(
            link.session.hello(
                sdk="cardcage-sdk",
                sdk_version=__version__,
                language="python",
                language_version=".".join(map(str, sys.version_info[:3])),
            )
        )
        while not link.ready:
            link.receive()
        BlockingServer(link).run()
    except KeyboardInterrupt:
        link.leave(1, "keyboard_interrupt", "the plugin's process was interrupted")


def _tame_standard_streams() -> None:
    """What a plugin prints goes out by whole lines, and printing never fails for the characters in it."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None and not _is_tame(stream):
            reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def _is_tame(stream: TextIO) -> bool:
    """Whether it was made that way already, as the fork server does: doing it again is not free."""
    made = (stream.encoding, stream.errors, getattr(stream, "line_buffering", None))
    return made == ("utf-8", "backslashreplace", True)


def main(arguments: list[str]) -> NoReturn:
    """`python -P -m cardcage_sdk.serve --fd N`: serve the inherited socket N.

    Without -P the working folder, which is the plugin's, comes before the standard library.
    """
    if len(arguments) != 2 or arguments[0] != "--fd" or not arguments[1].isdecimal():
        print("usage: python -P -m cardcage_sdk.serve --fd NUMBER", file=sys.stderr)
        print("Serves one plugin on the connected socket that it inherits under that number.", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    # Under its own name, so that there is one copy of this module and not a second one called __main__.
    from cardcage_sdk.serve import serve as serve_imported

    serve_imported(int(arguments[1]))


if __name__ == "__main__":
    main(sys.argv[1:])
