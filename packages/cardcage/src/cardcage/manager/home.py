"""The host's own folder: the registry and what plugins keep."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cardcage.foundation.errors import Misuse
from cardcage.trust.authority import Authority

STATE_DIR_VARIABLE = "CARDCAGE_HOME"


def default_state_dir() -> Path:
    """`$CARDCAGE_HOME`, or the user's state folder (`$XDG_STATE_HOME/cardcage`, `~/.local/state/cardcage`)."""
    named = os.environ.get(STATE_DIR_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "cardcage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The folder and what stands in it: `registry.db`, `audit`, `data/<instance>`, `temp/<instance>`."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Home:
        """Make the folder where it is missing; nobody else may look into it. Raises `Misuse` where that fails."""
        root = root.absolute()
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            mode = stat.S_IMODE(root.stat().st_mode)
            if mode & 0o022:
                raise Misuse(
                    f"the state folder {root} may be written by others (mode {mode:04o}), which would let them "
                    "change what is installed",
                    code="state_dir_unsafe",
                    hint=f"chmod go-w {root}",
                )
            for name in ("data", "temp"):
                (root / name).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise Misuse(
                f"the state folder {root} cannot be used: {error.strerror}",
                code="state_dir_unusable",
                hint=f"name another: state_dir=..., or {STATE_DIR_VARIABLE}",
            ) from error
        return cls(root=root)

    @property
    def audit(self) -> Path:
        return self.root / "audit"

    def authority(self) -> Authority:
        """The certificate authority of this host, made at the first use."""
        folder = self.root / "authority"
        folder.mkdir(exist_ok=True, mode=0o700)
        return Authority.open(folder)

    @property
    def trust_bundle(self) -> Path:
        return self.root / "trust" / "bundle.pem"

    @property
    def registry(self) -> Path:
        return self.root / "registry.db"

    @property
    def machines(self) -> Path:
        """What virtual machines boot from: made anew where it is missing."""
        return self.root / "machines"

    def folders(self, instance: str, uid: int | None) -> tuple[Path, Path]:
        """The data and temp folder of an instance, made, private, and owned by `uid` where one is given."""
        made: list[Path] = []
        for kind in ("data", "temp"):
            folder = self.root / kind / instance.replace("/", "@")
            folder.mkdir(exist_ok=True, mode=0o700)
            if uid is not None and folder.stat().st_uid != uid:
                os.chown(folder, uid, uid, follow_symlinks=False)
            made.append(folder)
        return made[0], made[1]

    def let_pass(self) -> None:
        """Let other users through to folders of their own in here, and see nothing on the way.

        Without namespaces a plugin gets to its data by the path that it has on the host, as the uid that it was given.
        Whatever else stands here is closed to others by itself.
        """
        trust = self.trust_bundle.parent
        trust.mkdir(exist_ok=True, mode=0o700)
        for folder in (self.root, self.root / "data", self.root / "temp", trust):
            mode = stat.S_IMODE(folder.stat().st_mode)
            if not mode & stat.S_IXOTH:
                folder.chmod(mode | stat.S_IXOTH)
