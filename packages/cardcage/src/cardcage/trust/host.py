"""What a package's demands on its host are held against."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from cardcage import __version__
from cardcage.foundation.errors import Fault
from cardcage.manifest.versions import version_matches

_SYSTEMS: Final = {"macos": "darwin", "osx": "darwin", "mac": "darwin", "win32": "windows", "win": "windows"}
_MACHINES: Final = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
_ANY: Final = frozenset({"any", "all", "*", ""})


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """The programs that a manifest may name in `requires`, with their versions; and the kind of machine."""

    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    system: str = "linux"
    machine: str = "x86_64"


def this_host() -> Host:
    """The host that is running."""
    system = "windows" if sys.platform == "win32" else sys.platform
    machine = platform.machine().lower()
    return Host(versions={"cardcage": __version__}, system=system, machine=_MACHINES.get(machine, machine))


def host_faults(host: Host, requires: Mapping[str, str], platforms: Iterable[str]) -> list[Fault]:
    """What this host lacks: versions out of range, and a platform that the package does not name.

    A program in `requires` that `host` does not know is another product's (a package may be made for several hosts),
    and is none of ours to judge.
    """
    faults = [
        Fault(path=f"requires.{program}", message=message)
        for program, wanted in requires.items()
        if (message := _version_fault(program, wanted, host.versions.get(program)))
    ]
    named = list(platforms)
    if named and not any(_is_this(name, host) for name in named):
        here = f"{host.system}-{host.machine}"
        message = f"made for {', '.join(named)}, but this machine is {here}"
        faults.append(Fault(path="platforms", message=message))
    return faults


def _version_fault(program: str, wanted: str, running: str | None) -> str | None:
    if running is None or version_matches(wanted, running):
        return None
    return f"expected {program} {wanted}, but {program} {running} is running"


def _is_this(name: str, host: Host) -> bool:
    text = name.strip().lower()
    if text in _ANY:
        return True
    system, _, machine = text.replace("/", "-").partition("-")
    machine = _MACHINES.get(machine, machine)
    return _SYSTEMS.get(system, system) == host.system and machine in ("", host.machine)
