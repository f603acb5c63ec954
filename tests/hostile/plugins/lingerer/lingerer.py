"""Does what it can to go on after it was told to stop."""

from __future__ import annotations

import ctypes
import os
import signal
import time


class Lingerer:
    """Each method prepares its survival and answers with the processes that are to live on."""

    def daemonise(self) -> str:
        """Away from its parent, its group and its session, as daemons do."""
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True:
                    time.sleep(60)
            os._exit(0)
        return "a daemon is up"

    def ignore_signals(self) -> str:
        for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
            try:
                signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError):
                continue
        return "deaf"

    def clear_death_signal(self) -> str:
        """The signal that comes when a parent dies can be refused by whoever would get it."""
        ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)
        return self.daemonise()

    def stop(self) -> None:
        """Asked to stop, it does not."""
        if os.environ.get("LINGER"):
            time.sleep(600)

    def linger(self) -> str:
        os.environ["LINGER"] = "1"
        return "will not stop"

    def respawn(self) -> str:
        """A watcher that starts it anew whenever it ends."""
        watched = os.getpid()
        if os.fork() == 0:
            descriptor = os.pidfd_open(watched)
            import select

            select.select([descriptor], [], [])
            while True:
                time.sleep(60)
        return "watched"
