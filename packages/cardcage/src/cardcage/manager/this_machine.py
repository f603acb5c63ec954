"""What plans depend on of the machine that they are made on."""

from __future__ import annotations

import os
import platform

from cardcage.sandbox import landlock
from cardcage.sandbox.mode import detect_mode, fallback_facts
from cardcage.sandbox.report import MachineReport, Mode


def this_machine() -> MachineReport:
    """What plans depend on. The layers are not tried here: each process reports the walls that it really has."""
    mode = detect_mode()
    facts = fallback_facts() if mode is Mode.FALLBACK else {}
    return MachineReport(
        system=platform.system(),
        kernel=platform.release(),
        architecture=platform.machine(),
        mode=mode,
        uid=os.geteuid(),
        gid=os.getegid(),
        layers=(),
        landlock_abi=landlock.abi() if mode is Mode.FALLBACK else 0,
        facts=facts,
    )
