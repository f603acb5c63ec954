"""From what a plugin tried to the permissions that it might need, and to the fewest that let its tests pass.

The trials themselves are someone else's: this module decides what is tried next.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

from cardcage.foundation.errors import Misuse
from cardcage.launch.recorder import Deed, Tried
from cardcage.permissions import Permission, PermissionKind
from cardcage.sandbox.plan import RESERVED_DIRS, TEMP_DIR

RUNS_MAX: Final = 60

NOTHING_THERE: Final = "there is nothing on this host"

FileKind = Literal["file", "folder", ""]


class HostFiles(Protocol):
    """What stands on the host at a path."""

    def kind(self, path: str) -> FileKind:
        """Whether it is a file or a folder; empty where it is neither."""
        ...

    def is_open_to_all(self, path: str) -> bool:
        """Whether any user of the machine may read it."""
        ...

    def is_program(self, path: str) -> bool:
        """Whether it is a file that may be executed."""
        ...

    def is_itself(self, path: str) -> bool:
        """Whether no link stands there or on the way: a plugin can make links where it may write."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What may be given to a plugin while it is learnt from."""

    within: tuple[str, ...] = ()
    """Folders in which it may read and write what it tries; elsewhere it may read what all users may, and no more."""
    network: bool = False
    """Whether connections may be made."""
    runs_max: int = RUNS_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One run of a plugin's tests: whether they passed, why not, and what the plugin tried."""

    passed: bool
    reason: str = ""
    tried: tuple[Tried, ...] = ()
    capabilities: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()


class Trial(Protocol):
    """Runs the tests of one plugin with the given permissions."""

    async def run(self, granted: Sequence[Permission], *, recording: bool) -> Outcome:
        """Without a `recording` the walls are exactly those that such grants give."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class LeftOut:
    """Something that was seen and is not in the result, and why."""

    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The result: the permissions that are needed, what was left out, and how many runs it took."""

    passed: bool
    permissions: tuple[Permission, ...]
    left_out: tuple[LeftOut, ...]
    runs: int
    minimal: bool = True
    """Whether the tests were seen to fail without each one."""
    reason: str = ""
    """Why the tests do not pass, where they do not."""


@dataclass(slots=True)
class Guess:
    """What might be needed, in the order in which it was tried, and what could not be given."""

    permissions: dict[Permission, None] = field(default_factory=dict[Permission, None])
    left_out: dict[LeftOut, None] = field(default_factory=dict[LeftOut, None])

    def want(self, kind: PermissionKind, value: str) -> None:
        try:
            self.permissions.setdefault(Permission(kind, value))
        except Misuse as error:
            self.leave_out(f"{kind}:{value}", error.message)

    def leave_out(self, what: str, reason: str) -> None:
        self.left_out.setdefault(LeftOut(what, reason))


def guess(outcome: Outcome, host: HostFiles, bounds: Bounds, visible: Sequence[str]) -> Guess:
    """The permissions that what was tried asks for. `visible` are the places that the plugin sees without any."""
    found = Guess()
    named = {tried.thing.rpartition(":")[0] for tried in outcome.tried if tried.deed is Deed.CONNECT}
    for tried in outcome.tried:
        match tried.deed:
            case Deed.READ | Deed.LIST | Deed.LOOK:
                _guess_read(found, tried, host, bounds, visible)
            case Deed.WRITE | Deed.MAKE:
                _guess_write(found, tried, host, bounds, visible)
            case Deed.RUN:
                _guess_program(found, tried.thing, host, bounds)
            case Deed.CONNECT:
                if bounds.network:
                    found.want(PermissionKind.NETWORK, tried.thing)
                else:
                    found.leave_out(f"network:{tried.thing}", "connections are made only where that is allowed")
            case Deed.ASK:
                if tried.thing not in named:
                    found.leave_out(f"the address of {tried.thing}", "it was asked for, and nothing was connected to")
    for name in outcome.capabilities:
        found.want(PermissionKind.CAPABILITY, name)
    for name in outcome.secrets:
        found.want(PermissionKind.SECRET, name)
    return found


def _guess_read(found: Guess, tried: Tried, host: HostFiles, bounds: Bounds, visible: Sequence[str]) -> None:
    path = tried.thing
    kind = host.kind(path)
    if _is_own(path, visible, kind) or any(_is_among(place, [path]) for place in visible):
        return  # seen anyway, or the way to what is seen
    what = f"read:{path}"
    if not kind:
        found.leave_out(what, NOTHING_THERE)
    elif kind == "folder" and tried.deed is not Deed.LIST:
        found.leave_out(f"{what}/", "it was only looked for")
    elif not _may_be_tried(path, host, bounds):
        found.leave_out(what, "it is not for every user to read, and not in a folder that may be tried")
    else:
        found.want(PermissionKind.READ, f"{path}/" if kind == "folder" else path)


def _guess_write(found: Guess, tried: Tried, host: HostFiles, bounds: Bounds, visible: Sequence[str]) -> None:
    path = tried.thing
    wanted = path if tried.deed is Deed.WRITE and host.kind(path) == "file" else _folder_for(path, host)
    if _is_among(path, RESERVED_DIRS) or _is_own(path, visible, "" if wanted == f"{TEMP_DIR}/" else "file"):
        return  # its own folders, or parts of the sandbox that nobody can be given
    if not wanted or wanted == "/":
        found.leave_out(f"write:{path}", "there is no folder on this host to write it in")
    elif not (_is_among(wanted.rstrip("/"), bounds.within) and host.is_itself(wanted.rstrip("/"))):
        found.leave_out(f"write:{wanted}", "it is not in a folder that may be tried")
    else:
        found.want(PermissionKind.WRITE, wanted)


def _may_be_tried(path: str, host: HostFiles, bounds: Bounds) -> bool:
    return (_is_among(path, bounds.within) and host.is_itself(path)) or host.is_open_to_all(path)


def _led_astray(permission: Permission, host: HostFiles) -> bool:
    """Whether a path that was fit to be given has become a link to something that is not for everybody."""
    if permission.kind not in (PermissionKind.READ, PermissionKind.WRITE, PermissionKind.SUBPROCESS):
        return False
    path = permission.value.rstrip("/")
    return not host.is_itself(path) and (permission.kind is PermissionKind.WRITE or not host.is_open_to_all(path))


def _is_own(path: str, visible: Sequence[str], on_host: FileKind) -> bool:
    """Whether a path leads to what the plugin has anyway. The host may have files in its own /tmp."""
    if _is_among(path, [TEMP_DIR]):
        return not on_host
    return _is_among(path, visible)


def _folder_for(path: str, host: HostFiles) -> str:
    """The nearest folder above that is there: a file that is not cannot be shown to a plugin."""
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        if host.kind(path) == "folder":
            return "/" if path == "/" else f"{path}/"
    return ""


def _guess_program(found: Guess, path: str, host: HostFiles, bounds: Bounds) -> None:
    if not host.is_program(path):
        return  # one of the places where a program is looked for
    if _may_be_tried(path, host, bounds):
        found.want(PermissionKind.SUBPROCESS, path)
    else:
        found.leave_out(f"subprocess:{path}", "it is not for every user, and not in a folder that may be tried")


def _is_among(path: str, places: Iterable[str]) -> bool:
    inside = f"{path.rstrip('/')}/"
    return any(inside.startswith(f"{place.rstrip('/')}/") for place in places)


async def learn(trial: Trial, host: HostFiles, bounds: Bounds, *, visible: Sequence[str]) -> Learned:
    """The fewest permissions with which the tests pass: first enough of them, then fewer and fewer."""
    search = _Search(trial, bounds, host)
    enough = await search.find_enough(visible)
    if enough is None:
        return search.result((), passed=False)
    if not (await search.run(enough, recording=False)).passed:
        return search.result(enough, passed=False)
    fewest = await search.minimise(enough)
    for permission in enough:
        if permission not in fewest:
            search.left_out.setdefault(LeftOut(str(permission), "the tests pass without it"))
    return search.result(fewest, passed=True)


class _Search:
    """One search: its runs so far, and what was left out."""

    def __init__(self, trial: Trial, bounds: Bounds, host: HostFiles) -> None:
        self._trial = trial
        self._host = host
        self._bounds = bounds
        self._runs = 0
        self._minimal = True
        self._last = Outcome(passed=False, reason="nothing was run")
        self.left_out: dict[LeftOut, None] = {}

    async def run(self, granted: Sequence[Permission], *, recording: bool) -> Outcome:
        """One run. Nothing of the plugin lives between two runs, so what is looked at here stays as it is."""
        self._runs += 1
        if astray := [str(each) for each in granted if _led_astray(each, self._host)]:
            reason = f"{', '.join(astray)} has become a link to something else while it was tried"
            self._last = Outcome(passed=False, reason=reason)
        else:
            self._last = await self._trial.run(granted, recording=recording)
        return self._last

    async def find_enough(self, visible: Sequence[str]) -> tuple[Permission, ...] | None:
        """Give what is tried until the tests pass; None where there is nothing left to give."""
        granted: dict[Permission, None] = {}
        while True:
            outcome = await self.run(tuple(granted), recording=True)
            found = guess(outcome, self._host, self._bounds, visible)
            self.left_out.update(found.left_out)
            if outcome.passed:
                self._tell_unneeded(found, granted)
                return tuple(granted)
            fresh = [each for each in found.permissions if each not in granted]
            if not fresh or self._runs >= self._bounds.runs_max:
                return None
            granted.update(dict.fromkeys(fresh))

    def _tell_unneeded(self, found: Guess, granted: dict[Permission, None]) -> None:
        for permission in found.permissions:
            if permission not in granted:
                self.left_out.setdefault(LeftOut(str(permission), "it was refused, and the tests pass all the same"))

    async def minimise(self, permissions: Sequence[Permission]) -> tuple[Permission, ...]:
        """Take parts away, ever smaller ones, for as long as the tests pass without them."""
        left = list(permissions)
        size = max(1, len(left) // 2)
        while left:
            smaller = await self._without_parts(left, size)
            if smaller == left and size == 1:
                break
            left, size = smaller, max(1, min(size, len(smaller)) // 2) if size > 1 else 1
            if self._runs >= self._bounds.runs_max:
                self._minimal = False
                break
        return tuple(left)

    async def _without_parts(self, permissions: list[Permission], size: int) -> list[Permission]:
        left = permissions
        for start in range(0, len(permissions), size):
            part = permissions[start : start + size]
            fewer = [each for each in left if each not in part]
            if self._runs >= self._bounds.runs_max:
                self._minimal = False
                break
            if (await self.run(fewer, recording=False)).passed:
                left = fewer
        return left

    def result(self, permissions: Sequence[Permission], *, passed: bool) -> Learned:
        return Learned(
            passed=passed,
            permissions=tuple(sorted(permissions)),
            # Places where something was looked for in vain matter only where something is missing.
            left_out=tuple(sorted(each for each in self.left_out if not passed or each.reason != NOTHING_THERE)),
            runs=self._runs,
            minimal=self._minimal and passed,
            reason="" if passed else self._last.reason,
        )
