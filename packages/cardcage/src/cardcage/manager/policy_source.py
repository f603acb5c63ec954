"""Where the policy comes from, and reading its file: at each start anew, and only where nobody else can write it."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from cardcage.foundation.errors import CardcageError, InvalidDocument, Misuse, Refused
from cardcage.foundation.limits import MANIFEST_BYTES_MAX
from cardcage.policy import Level, Policy, level_named, parse_policy
from cardcage.sandbox.report import LayerName

POLICY_VARIABLE: Final = "CARDCAGE_POLICY"
ENVIRONMENT_VARIABLE: Final = "CARDCAGE_ENVIRONMENT"
FILE_NAME: Final = "policy.yaml"
"""What is looked for in the state folder where nothing names a policy."""

_LINKS_MAX: Final = 40
"""The kernel follows no more in a row."""

Origin = Literal["argument", "configuration", "environment", "state folder", "default"]
_Signature = tuple[int, ...]


@dataclass(slots=True)
class PolicySource:
    """Gives the policy that stands now. Its methods may be called from several threads."""

    origin: Origin
    fixed: Policy | None = None
    path: Path | None = None
    optional: bool = False
    """Whether the file may be missing: then `fixed` stands."""
    _read: tuple[_Signature, Policy] | None = field(default=None, init=False)

    @property
    def words(self) -> str:
        """What it is, for people."""
        if self.path is not None and not (self.optional and not os.path.lexists(self.path)):
            return str(self.path)
        return f"level {self.fixed.level}" if self.fixed is not None else "none"

    def current(self) -> Policy:
        """The policy as it is now; its file is read again where it has changed.

        Raises `Misuse` (`policy_unreadable`, `policy_unsafe`) or `InvalidDocument` (`policy_invalid`).
        """
        if self.path is None or (self.optional and not os.path.lexists(self.path)):
            assert self.fixed is not None
            return self.fixed
        data, signature = _read_safely(self.path)
        known = self._read
        if known is not None and known[0] == signature:
            return known[1]
        policy = _parse(data, self.path)
        self._read = signature, policy
        return policy

    def for_start(self, whom: str) -> Policy:
        """The same, for a start: a file that cannot be trusted or understood refuses it. Raises `Refused`."""
        try:
            return self.current()
        except CardcageError as error:
            faults = [str(fault) for fault in error.faults] if isinstance(error, InvalidDocument) else None
            raise Refused(
                f"{whom} was not started, because the policy cannot be used: {error.message}",
                reason=error.message,
                code=error.code,
                hint=error.hint or f"cardcage policy check {self.path}",
                path=str(self.path),
                faults=faults,
            ) from error


def find_policy(
    given: Policy | Level | str | os.PathLike[str] | None,
    configured: str | None,
    state_dir: Path,
    *,
    unconfined: bool,
) -> PolicySource:
    """The policy of a host, from the first of: the caller, the configuration, the environment, the state folder.

    Where none of them names one it is `standard`; or `permissive`, where the program itself takes the walls from all
    plugins (`unconfined`), and so has said what it wants.
    """
    if isinstance(given, Policy):
        return PolicySource("argument", fixed=given)
    if given is not None:
        return _named("argument", given)
    if configured is not None:
        return _named("configuration", configured)
    if named := os.environ.get(POLICY_VARIABLE):
        return _named("environment", named)
    level = Level.PERMISSIVE if unconfined else Level.STANDARD
    path = state_dir / FILE_NAME
    origin: Origin = "state folder" if os.path.lexists(path) else "default"
    return PolicySource(origin, fixed=Policy(level=level), path=path, optional=True)


def _named(origin: Origin, word: Level | str | os.PathLike[str]) -> PolicySource:
    """A level by its name, or else a file."""
    text = os.fspath(word)
    looks_like_a_file = not isinstance(word, str) or os.sep in text or "." in text
    if looks_like_a_file:
        return PolicySource(origin, path=Path(text).expanduser().absolute())
    try:
        return PolicySource(origin, fixed=Policy(level=level_named(text)))
    except Misuse as error:
        error.hint = f"a file is named with its folder: ./{text}"
        raise


def read_policy_file(path: Path) -> Policy:
    """The policy in a file. Raises what `PolicySource.current` raises."""
    return _parse(_read_safely(path)[0], path)


def _parse(data: bytes, path: Path) -> Policy:
    return parse_policy(data, source=str(path), layers=[layer.value for layer in LayerName])


def _read_safely(path: Path) -> tuple[bytes, _Signature]:
    """The bytes of a file that nobody but root and this user can have written, and by what a change shows."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            found = os.fstat(descriptor)
            _check_owner(path, found)
            for folder, state in _folders_above(path):
                _check_folder(path, folder, state)
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(MANIFEST_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise Misuse(
            f"the policy file {path} cannot be read: {error.strerror}",
            code="policy_unreadable",
            hint=f"name another with {POLICY_VARIABLE} or --policy, or a level: strict, standard, permissive",
            path=str(path),
        ) from error
    return data, (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _unsafe(path, f"the policy {path} is no file", f"write a policy file there, or name another: {path}")
    if found.st_uid not in (0, os.geteuid()):
        raise _unsafe(
            path,
            f"the policy file {path} belongs to uid {found.st_uid}, expected this user ({os.geteuid()}) or root",
            f"chown {os.geteuid()} {path}",
        )
    if found.st_mode & 0o022:
        raise _unsafe(
            path,
            f"the policy file {path} may be written by others (mode {stat.S_IMODE(found.st_mode):04o}), "
            "who could give plugins whatever they like",
            f"chmod go-w {path}",
        )


def _folders_above(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Every folder on the way to the file, and on the way of each link: whoever can write one can lead elsewhere."""
    folders: dict[Path, None] = {}
    for _ in range(_LINKS_MAX):
        folders.update(dict.fromkeys(path.parents))
        if not path.is_symlink():
            break
        path = path.parent / path.readlink()
    folders.update(dict.fromkeys(path.resolve().parents))
    for folder in folders:
        yield folder, folder.stat()


def _check_folder(path: Path, folder: Path, found: os.stat_result) -> None:
    shared = bool(found.st_mode & 0o022) and not found.st_mode & stat.S_ISVTX
    if shared or found.st_uid not in (0, os.geteuid()):
        owner = f"uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"
        raise _unsafe(
            path,
            f"the policy file {path} lies beneath {folder}, which others may write ({owner}) and so put another there",
            f"chmod go-w {folder}, or keep the policy in a folder of this user's own",
        )


def _unsafe(path: Path, message: str, hint: str) -> Misuse:
    return Misuse(message, code="policy_unsafe", hint=hint, path=str(path))
