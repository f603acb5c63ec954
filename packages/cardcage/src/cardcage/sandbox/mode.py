"""Whether walls are put up as root, as an ordinary user, or not at all."""

from __future__ import annotations

import os
import sys

from cardcage.sandbox import capabilities, syscalls
from cardcage.sandbox.report import Mode


def detect_mode() -> Mode:
    """How this process can put up walls, from who it is; whether it really works is for the doctor to try."""
    if sys.platform != "linux" or not syscalls.supported():
        return Mode.NONE
    if os.geteuid() != 0:
        return Mode.USER
    administers = capabilities.effective() >> capabilities.CAP_SYS_ADMIN & 1
    return Mode.ROOT if administers else Mode.NONE
