"""Where the values of secrets come from: variables of the host's environment that an operator names, or a folder."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cardcage.foundation.errors import Fault, InvalidDocument, Refused

SECRET_BYTES_MAX: Final = 64 * 1024
"""A private key with its chain is a few KiB."""

SECRETS_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "environment": {"type": "object", "additionalProperties": {"type": "string"}},
        "folder": {"type": "string"},
    },
}

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,199}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_USUAL_VARIABLE: Final = re.compile(r"[A-Z_]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSecrets:
    """The operator's secrets. `environment` maps a secret's name to a variable; `folder` holds one file for each.

    Values are read each time they are asked for, so that a changed one is what the next start gets.
    """

    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    folder: Path | None = None

    def secret(self, name: str) -> str:
        """The value of the secret called `name`. Raises `Refused`, which never shows a value."""
        variable = self.environment.get(name)
        if variable is not None:
            value = os.environ.get(variable)
            if value is None:
                # What stands there by mistake is often the secret itself: only what looks like a variable is shown.
                shown = variable if _USUAL_VARIABLE.fullmatch(variable) else f"that secrets.environment.{name} names"
                raise _refused(name, f"the variable {shown} of the host's environment is not set", "secret_missing")
            return value
        if self.folder is not None:
            return self._from_folder(name)
        raise _refused(name, f"it is not in {self.describe()}", "secret_missing")

    def describe(self) -> str:
        """Where is looked, in words."""
        places = [f"variables named for {', '.join(sorted(self.environment))}"] if self.environment else []
        places += [f"the folder {self.folder}"] if self.folder is not None else []
        return " or ".join(places) or "the host configuration, which names no secrets"

    def _from_folder(self, name: str) -> str:
        assert self.folder is not None
        path = self.folder / name
        if not _NAME.fullmatch(name):
            raise _refused(name, "that is no name of a secret", "secret_missing")
        try:
            _check_folder(name, self.folder, os.stat(self.folder))
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise _refused(name, f"it is not in {self.describe()}", "secret_missing") from None
        except OSError as error:
            raise _refused(name, f"{path}: {error.strerror}", "secret_unusable") from None
        try:
            _check_file(name, path, os.fstat(file))
            value = os.read(file, SECRET_BYTES_MAX + 1)
        finally:
            os.close(file)
        if len(value) > SECRET_BYTES_MAX:
            raise _refused(name, f"{path} holds more than {SECRET_BYTES_MAX} bytes", "secret_unusable")
        try:
            return value.decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise _refused(name, f"{path} is not text in UTF-8", "secret_unusable") from None


def _check_folder(name: str, folder: Path, found: os.stat_result) -> None:
    """Whoever may rename files there could have one secret sent where another is meant to go."""
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid not in (0, os.geteuid()):
        raise _refused(
            name, f"the folder {folder} belongs to user {found.st_uid}, who could change it", "secret_unsafe"
        )
    if mode & 0o022 and not mode & stat.S_ISVTX:  # in a sticky folder nobody renames what is another's
        raise _refused(
            name,
            f"the folder {folder} can be written by others (mode {mode:04o})",
            "secret_unsafe",
            hint=f"chmod go-w {folder}",
        )


def _check_file(name: str, path: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISREG(found.st_mode):
        raise _refused(name, f"{path} is not a file", "secret_unusable")
    if found.st_uid not in (0, os.geteuid()):
        raise _refused(name, f"{path} belongs to user {found.st_uid}, who could change it", "secret_unsafe")
    if mode & 0o077:
        raise _refused(
            name, f"{path} can be read by others (mode {mode:04o})", "secret_unsafe", hint=f"chmod 600 {path}"
        )


def _refused(name: str, why: str, code: str, hint: str | None = None) -> Refused:
    return Refused(
        f"secret {name} cannot be given: {why}",
        code=code,
        hint=hint
        or "secrets: {environment: {NAME: VARIABLE}, folder: PATH} in the host configuration says where they are",
        secret=name,
    )


def read_secrets(document: Mapping[str, Any]) -> HostSecrets:
    """The secrets that a checked configuration names. Raises `InvalidDocument` for names that are none."""
    environment = dict(document.get("environment", {}))
    faults = [
        Fault(path=f"secrets.environment.{name}", message="expected the name of a secret and of a variable")
        for name, variable in environment.items()
        if not _NAME.fullmatch(name) or not _VARIABLE.fullmatch(variable)
    ]
    if faults:
        raise InvalidDocument("the host configuration", faults, code="config_invalid")
    folder = document.get("folder")
    return HostSecrets(environment=environment, folder=Path(folder).expanduser() if folder else None)
