"""`docs/reference/system-calls.md`, written from the profile: `python -m cardcage.sandbox.call_reference`."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Final

from cardcage.sandbox.profile import Profile, ProfileName, profile
from cardcage.sandbox.syscalls import NUMBERS

_SHOWN: Final[tuple[ProfileName, ...]] = ("plugin", "fallback", "fallback-shared")
"""The filters around plugins. What stands around QEMU is told where machines are."""

_HEAD = """# System calls

What a plugin behind walls may ask of the kernel. This page is written from `sandbox/profile.py` by
`python -m cardcage.sandbox.call_reference`, and a test holds it to that.

Each call of x86_64 and aarch64 has one place here. A number that is newer than these tables is answered with `ENOSYS`,
so that C libraries fall back to what they did before it existed. A call of another architecture (i386 by `int 0x80`,
x32) ends the process with `SIGSYS`.
"""


_ON_CONDITIONS = """
A condition looks at arguments that are numbers; what a pointer leads to can be changed after the look, so nothing is
decided on it.
"""


_WITHOUT_NAMESPACES = """
## Without namespaces

Behind the wall for machines that forbid namespaces ([fallback](fallback.md)) the filter is stricter. Where the host is
an ordinary user, and the plugin shares its uid, it is stricter again.

| call | is refused or asked about | where |
|---|---|---|"""


def _rows_without_namespaces() -> Iterator[str]:
    """What differs from the filter behind full walls, call by call."""
    full, own, shared = (profile(execute=False, machine="x86_64", name=name) for name in _SHOWN)
    for name in own.notified:
        yield f"| `{name}` | a supervisor decides | always |"
    for words, less, where in ((own, full, "always"), (shared, own, "the host's own uid")):
        for why, calls in words.refused.items():
            new = [name for name in calls if name not in less.refused.get(why, ())]
            yield from (f"| `{name}` | {why} | {where} |" for name in sorted(new))
        for name, conditions in sorted(words.conditional.items()):
            new_conditions = [one for one in conditions if one not in less.conditional.get(name, ())]
            yield from (f"| `{name}` | {one.why} | {where} |" for one in new_conditions)


def render() -> str:
    """The whole page."""
    machines = {machine: profile(execute=False, machine=machine) for machine in NUMBERS}
    return "\n".join([_HEAD, *_sections(machines), ""]).rstrip("\n") + "\n"


def _sections(machines: dict[str, Profile]) -> Iterator[str]:
    yield "## Allowed\n"
    yield _listed(name for words in machines.values() for name in words.allowed) + "\n"
    yield "## Allowed but for some arguments\n\n| call | is refused | with |\n|---|---|---|"
    conditional = {name: found for words in machines.values() for name, found in words.conditional.items()}
    for name, conditions in sorted(conditional.items()):
        yield from (f"| `{name}` | {one.why} | `{errno.errorcode[one.code]}` |" for one in conditions)
    yield _ON_CONDITIONS
    yield "## Said not to exist\n\nAnswered with `ENOSYS`.\n\n| call | why |\n|---|---|"
    absent = {name: why for words in machines.values() for name, why in words.absent.items()}
    yield from (f"| `{name}` | {why} |" for name, why in sorted(absent.items()))
    yield "\n## Refused\n\nAnswered with `EPERM`.\n\n| what | calls |\n|---|---|"
    for why in dict.fromkeys(why for words in machines.values() for why in words.refused):
        names = (name for words in machines.values() for name in words.refused.get(why, ()))
        yield f"| {why} | {_listed(names)} |"
    yield _WITHOUT_NAMESPACES
    yield from _rows_without_namespaces()


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(set(names)))


if __name__ == "__main__":
    print(render(), end="")
